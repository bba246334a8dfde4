"""Explain a policy: does it look at its target, does looking decide what it does, and where does it fail?

Plays episodes that training has not seen: as they are, with pixels taken from the frames, with heads
silenced, and with one thing moved, recoloured or removed in the simulator. Writes one report, as an HTML page
and as JSON, with a verdict on each question.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from robot_attn_scripts import _loaded_run


@dataclass(frozen=True)
class Options:
    """What to explain, by how much, and where to write it."""

    run: tyro.conf.Positional[Path]
    """Run folder that `robot-attn train` made."""
    out: Path = Path("explanation.html")
    """Where the page goes; its figures go beside it, with the ending .json."""
    episodes: int = 32
    """Episodes to explain it by."""
    calibration_episodes: int = 8
    """Episodes, of other seeds, on which heads are weighed by how much they change the action; 0 for heads
    that count alike."""
    seed: int | None = None
    """The first episode's seed; by default the first evaluation seed."""
    curves: bool = True
    """Also measure the return with 2, 5, 20 and 40 % of the pixels erased, which takes most of the time."""
    which: Literal["best", "last"] = "best"
    """The best policy of the run, or its last."""
    suite: str | None = None
    """Suite of visual shifts to play under, such as hard. Without it: the scene of training."""
    env: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """Options of the environment that differ from training's, such as distractors=14."""
    module: str | None = None
    """The module whose import registers the run's environment, where the run names one: its code runs."""
    envs: int | None = None
    """Environments that run side by side. Without it: 32, and 8 of a third party's."""


def run(options: Options) -> dict[str, object]:
    """Play, write the report, print its verdicts, and return its figures.

    Raises:
        ValueError: an option that makes no sense; the run or its environment as in `_policy`.
    """
    from rich.console import Console

    from robot_attn_policies.evaluation.evaluate import CALIBRATION_SEED, EVALUATION_SEED
    from robot_attn_policies.pages.report import report_json, write_report
    from robot_attn_policies.probing.explain import explain

    if options.out.suffix.lower() != ".html":
        raise ValueError(f"--out is a page whose name ends in .html, got {options.out}")
    if options.envs is not None and options.envs < 1:
        raise ValueError(f"--envs is 1 or more, got {options.envs}")
    if options.calibration_episodes < 0:
        raise ValueError(f"--calibration-episodes is 0 or more, got {options.calibration_episodes}")
    if options.episodes < 2:
        raise ValueError(f"an explanation with intervals takes 2 episodes or more, got {options.episodes}")
    policy = _loaded_run.load(options.run, options.which, options.module, gradients=True)
    first = EVALUATION_SEED if options.seed is None else options.seed
    seeds = _loaded_run.seeds_from(first, options.episodes, policy.held_out_from, "explanation")
    used = policy.held_out_from | set(seeds)
    calibration = _loaded_run.seeds_from(CALIBRATION_SEED, options.calibration_episodes, used, "calibration")
    scene = _loaded_run.scene(policy.config.env, options.env, options.suite)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    envs = _loaded_run.batch_size(policy.config.task, len(seeds), options.envs)
    with (
        closing(_loaded_run.make_env(policy.config.task, scene, envs)) as env,
        _loaded_run.step_bar(Console(stderr=True)) as watch,
    ):
        report = explain(
            policy.probe,
            env,
            seeds=seeds,
            calibration=calibration,
            title=f"{policy.name}: what it looks at, and whether that decides",
            facts=[
                ("Policy", policy.name),
                ("Task", policy.config.task),
                ("Scene", ", ".join(f"{name} {value}" for name, value in scene.items()) or "as it comes"),
            ],
            curves=options.curves,
            start_progress=watch,
        )
    write_report(options.out, report)
    console = Console()
    for line in report.summary:
        console.print(line, highlight=False)
    for path in (options.out, options.out.with_suffix(".json")):
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    return report_json(report)
