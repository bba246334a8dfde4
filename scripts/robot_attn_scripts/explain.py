"""Explain a policy: test whether its attention drives its actions."""

from __future__ import annotations

from contextlib import closing

from robot_attn_scripts import _loaded_run
from robot_attn_scripts.options.explain import Options

FIRST_ROUND = 16
"""Episodes of the first round, and so environments, where they are stepped together."""


def run(options: Options) -> dict[str, object]:
    """Run the episodes, write the report, print its verdicts, and return its figures.

    Raises:
        ValueError: training or calibration used a seed, or the run or its environment cannot be loaded.
    """
    from rich.console import Console

    from robot_attn_policies.evaluation.evaluate import CALIBRATION_SEED
    from robot_attn_policies.pages.report import report_json, write_report
    from robot_attn_policies.probing.explain import explain

    policy = _loaded_run.open_policy(options.run, options, maps=options.maps)
    seeds = _loaded_run.seeds_from(options.seed, options.episodes, policy.held_out_from, "explanation")
    used = policy.held_out_from | set(seeds)
    calibration = _loaded_run.seeds_from(CALIBRATION_SEED, options.calibration_episodes, used, "calibration")
    scene = _loaded_run.scene(policy.config.env, options.pairs, options.suite)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    envs = _loaded_run.batch_size(policy.config.task, len(seeds), options.envs, many=FIRST_ROUND)
    with (
        closing(policy.make_env(policy.config.task, scene, envs)) as env,
        _loaded_run.step_bar(Console(stderr=True)) as start_progress,
    ):
        report = explain(
            policy.probes,
            env,
            seeds=seeds,
            calibration=calibration,
            title=f"{policy.name}: faithfulness report",
            facts=[
                ("Policy", policy.name),
                ("Task", policy.config.task),
                ("Scene", ", ".join(f"{name} {value}" for name, value in scene.items()) or "default options"),
            ],
            curves=options.curves,
            start_progress=start_progress,
        )
    write_report(options.out, report)
    console = Console()
    for line in report.summary:
        console.print(line, highlight=False)
    for path in (options.out, options.out.with_suffix(".json")):
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    return report_json(report)
