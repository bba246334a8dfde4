"""Run folders of policies whose maps are known to be honest or not, for `robot-attn explain`.

`python tests/scripts/control_runs.py RUNS OUT` explains 20 honest and 20 dishonest policies on Track, and
writes how often the verdict "faithful" is wrong. RUNS has folders FAMILY-SEED that `robot-attn train
track` wrote.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robot_attn import Percept, Perception, build
from robot_attn_policies.sb3.extractor import find_extractor
from robot_attn_policies.sb3.policy import PerceptionPolicy, build_policy, policy_weights
from robot_attn_policies.training.presets import PPOPreset, TrainConfig
from robot_attn_policies.training.run_folder import (
    describe_run,
    load_policy,
    read_config,
    write_config,
    write_policy,
)

sys.path.insert(0, str(Path(__file__).parent))
import planted


class BorrowedMap(Perception):
    """Features of one module, and the map of another that they do not depend on.

    Args:
        image_shape: as for `Perception`.
        context_dim: as for `Perception`.
        acts: family of the module whose features these are.
        shows: family of the module whose map is shown.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], context_dim: int = 0, *, acts: str, shows: str
    ) -> None:
        super().__init__(image_shape, context_dim)
        self.acting, self.shown = (build(name, image_shape, context_dim) for name in (acts, shows))
        self.features_dim = self.acting.features_dim
        self.num_heads, self.grid = self.shown.num_heads, self.shown.grid

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        return Percept(self.acting(frames, context).features, self.shown(frames, context).attention)


def write_run(folder: Path, config: TrainConfig, policy: PerceptionPolicy) -> Path:
    """Write the run folder of a policy, with its best checkpoint alone."""
    run = describe_run(config, policy.observation_space, policy.action_space)
    write_config(folder, run)
    write_policy(folder / "best" / "policy.safetensors", policy_weights(policy), run, steps=0)
    return folder


def write_planted(folder: Path, name: str) -> Path:
    """Write the run folder of a planted policy for Track."""
    policy = planted.make(name)
    kind = type(find_extractor(policy).perception)
    config = TrainConfig("track", perception=f"planted:{kind.__name__}", ppo=PPOPreset(net_arch=()))
    return write_run(folder, replace(config, options=planted.POLICIES[name]), policy)


def write_borrowed(folder: Path, acts: Path, shows: Path) -> Path:
    """Write the run folder of a policy that acts as one run's and shows the map of another's."""
    acting, shown = (read_config(path) for path in (acts, shows))
    config = replace(
        acting.config,
        perception="control_runs:BorrowedMap",
        options={"acts": acting.config.perception, "shows": shown.config.perception},
    )
    policy = build_policy(config, acting.observation_space, acting.action_space)
    weights, borrowed = (policy_weights(load_policy(path)[0]) for path in (acts, shows))
    with torch.no_grad():
        for name, tensor in policy_weights(policy).items():
            source = borrowed if ".shown." in name else weights
            tensor.copy_(source[name.replace(".shown.", ".").replace(".acting.", ".")])
    return write_run(folder, config, policy)


LIARS = (
    *("ignores its map", "uniform", "looks at the centre", "looks at distractors", "acts blindly"),
    *("3 steps late", "10 steps late", "another network", "a hidden network", "a filter"),
    *("a declared network", "a network beside the declared map"),
)
"""Planted policies whose map is not what they act on."""
BORROWED = (
    ("cnn-0", "query-0"),
    ("cnn-0", "keypoints-0"),
    ("cnn-1", "query-1"),
    ("cnn-1", "hierarchical-1"),
    ("cnn-1", "slots-1"),
    ("query-1", "query-2"),
    ("query-3", "keypoints-2"),
    ("keypoints-1", "query-2"),
    ("mask-1", "query-3"),
)
"""Whose actions, and whose map: names of run folders."""
COUNT = 20
"""Policies of each kind."""


def explained(run: Path, out: Path, arguments: list[str]) -> Mapping[str, Any]:
    """What `robot-attn explain` finds, from the report's figures; a report that exists is kept."""
    from robot_attn_scripts import cli

    if not out.with_suffix(".json").exists():
        given = ["--module", "planted", "control_runs"]
        if cli.main(["explain", str(run), "--out", str(out), "--no-curves", *given, *arguments]):
            raise SystemExit(f"expected a report on {run}, got none")
    return json.loads(out.with_suffix(".json").read_text())


def control_runs(runs: Path, made: Path) -> Iterator[tuple[str, bool, Path]]:
    """Yield the name of each control, whether its map is honest, and its run folder."""
    trained = sorted(path for path in runs.iterdir() if not path.name.startswith("cnn"))
    yield "planted: honest", True, write_planted(made / "honest", "honest")
    for path in trained[: COUNT - 1]:
        yield f"trained: {path.name}", True, path
    for name in LIARS:
        yield f"planted: {name}", False, write_planted(made / name.replace(" ", "-"), name)
    for acts, shows in BORROWED[: COUNT - len(LIARS)]:
        folder = made / f"{acts}-shows-{shows}"
        yield f"{acts}, with the map of {shows}", False, write_borrowed(folder, runs / acts, runs / shows)


def main(runs: Path, out: Path, arguments: list[str]) -> None:
    """Explain all controls and write the table."""
    rows = []
    with tempfile.TemporaryDirectory() as made:
        for name, honest, folder in control_runs(runs, Path(made)):
            report = explained(folder, out / f"{name.replace(': ', '-').replace(' ', '-')}.html", arguments)
            verdicts = {
                section: found["verdict"]["outcome"]
                for section, found in report["sections"].items()
                if found.get("verdict")
            }
            wrong = verdicts.get("faithful") == ("no" if honest else "yes")
            rows.append({"name": name, "honest": honest, "wrong": wrong, **verdicts})
            print(json.dumps(rows[-1]), flush=True)
    wrong = sum(row["wrong"] for row in rows)
    undecided = sum(row.get("faithful") == "undecided" for row in rows)
    print(f"{len(rows)} policies: faithful is wrong in {wrong}, undecided in {undecided}")
    (out / "controls.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
