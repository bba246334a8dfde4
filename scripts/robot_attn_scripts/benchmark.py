"""Measure rendering, tasks, training and the extractors against their peers, each peer in the same run."""

from __future__ import annotations

from collections.abc import Mapping

from robot_attn_scripts._command import Command

COMMANDS: Mapping[str, Command] = {
    "render": Command(
        "benchmarks.render", "frames a second of each way to render the Track scene", ("train",)
    ),
    "envs": Command("benchmarks.envs", "steps a second of every task, with shifts and without", ("train",)),
    "train": Command("benchmarks.train", "frames trained a second, against Stable-Baselines3", ("train",)),
    "extractor": Command("benchmarks.extractor", "the cost of each family, against NatureCNN", ("train",)),
    "attention": Command(
        "benchmarks.attention", "attention over many tokens, against torch's own", ("train",)
    ),
    "pointing": Command("benchmarks.pointing", "whether each family learns to find the target", ("train",)),
    "watch": Command(
        "benchmarks.watch", "frames of a video watched a second, on one core", ("train", "video")
    ),
    "overlay": Command(
        "benchmarks.overlay", "pictures of attention drawn a second, against Matplotlib", ("train", "video")
    ),
}
