"""Measure rendering, tasks, training and feature extractors against their peers, in the same run."""

from __future__ import annotations

from collections.abc import Mapping

from robot_attn_scripts._command import Command

COMMANDS: Mapping[str, Command] = {
    "render": Command(
        "benchmarks.render", "frames rendered a second, against MuJoCo and Gymnasium", ("train",)
    ),
    "envs": Command("benchmarks.envs", "environment steps a second of every task", ("train",)),
    "train": Command("benchmarks.train", "frames trained a second, against Stable-Baselines3", ("train",)),
    "extractor": Command("benchmarks.extractor", "cost of each family, against NatureCNN", ("train",)),
    "attention": Command(
        "benchmarks.attention", "cost of attention over many tokens, against torch's", ("train",)
    ),
    "pointing": Command("benchmarks.pointing", "whether each family learns to find the target", ("train",)),
    "maps": Command(
        "benchmarks.maps",
        "causal maps against gradients: what the pixels that they select decide",
        ("train", "explain"),
    ),
    "watch": Command("benchmarks.watch", "video frames processed a second, on one core", ("train", "video")),
    "overlay": Command(
        "benchmarks.overlay", "attention overlays drawn a second, against Matplotlib", ("train", "video")
    ),
}
