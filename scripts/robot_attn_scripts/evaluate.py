"""Evaluate a trained policy: return, success, and attention on the target."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from robot_attn_scripts import _loaded_run, _nuisance, _report
from robot_attn_scripts.options.evaluate import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from robot_attn.explain import Captures
    from robot_attn.focus import RatioOfSums
    from robot_attn_policies.evaluation.evaluate import Focus
    from robot_attn_policies.rollouts.rollout import Rollouts

REFERENCE_NAMES = {"center_bias": "centre bias", "prior": "average place", "uniform": "uniform"}


def run(options: Options) -> dict[str, object]:
    """Evaluate, print the tables, write the JSON file of --json, and return the figures."""
    from rich.console import Console

    figures = evaluate(options)
    show(figures, Console())
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures


def evaluate(options: Options) -> dict[str, object]:
    """Return the figures of `run`, without printing tables or writing files."""
    from rich.console import Console

    from robot_attn_policies.evaluation.evaluate import CALIBRATION_SEED

    policy = _loaded_run.open_policy(options.run, options, maps=options.maps).with_fast_maps()
    calibration_seeds = _loaded_run.seeds_from(
        CALIBRATION_SEED, options.calibration_episodes, policy.held_out_from, "calibration"
    )
    used = policy.held_out_from | set(calibration_seeds)
    seeds = _loaded_run.seeds_from(options.seed, options.episodes, used, "evaluation")

    scene = _loaded_run.scene(policy.config.env, options.pairs, options.suite)
    envs = _loaded_run.batch_size(policy.config.task, options.episodes, options.envs)
    focus: dict[str | None, Focus | None] = dict.fromkeys(policy.probes)
    nuisance: dict[str | None, object] = dict.fromkeys(policy.probes)
    console = Console(stderr=True)
    with closing(policy.make_env(policy.config.task, scene, envs)) as env:
        masked = {key: probe for key, probe in policy.probes.items() if _loaded_run.has_masks(env, probe)}
        with _loaded_run.step_bar(console) as start_progress:
            for key, probe in masked.items():
                rollouts, focus[key] = _loaded_run.score(
                    policy, probe, env, seeds, calibration_seeds, start_progress
                )
            if not masked:
                act = next(iter(policy.probes.values())).act
                rollouts = _loaded_run.play("the policy", act, env, seeds, start_progress)
            random, oracle = _loaded_run.baselines(env, seeds, start_progress)
        for key, probe in masked.items() if options.nuisance else ():
            with _nuisance.frame_bar(console, options.nuisance_frames) as on_frames:
                nuisance[key] = _nuisance.figures_of(
                    _nuisance.measure(probe, env, seeds, options.nuisance_frames, on_frames)
                )

    by_camera = {
        key: None if found is None else _focus_figures(found, policy.probes[key].uniform, calibration_seeds)
        for key, found in focus.items()
    }
    several = len(by_camera) > 1
    return {
        "run": str(options.run),
        "policy": policy.which,
        "task": policy.config.task,
        "perception": policy.config.perception,
        "env": scene,
        "episodes": {"value": len(seeds), "unit": "episodes"},
        "seeds": {"first": seeds[0], "last": seeds[-1]},
        **_score_figures(rollouts, random, oracle),
        "focus": None if several else next(iter(by_camera.values())),
        **({"focus_by_camera": by_camera} if several else {}),
        **({} if several or not options.nuisance else {"nuisance": next(iter(nuisance.values()))}),
        **({"nuisance_by_camera": nuisance} if several and options.nuisance else {}),
    }


def _score_figures(rollouts: Rollouts, random: Rollouts, oracle: Rollouts | None) -> dict[str, object]:
    from robot_attn_policies.evaluation.evaluate import normalised_score
    from robot_attn_policies.evaluation.statistics import bootstrap_interval, iqm, mean

    statistics = {"mean": mean, "iqm": iqm}

    def both(values: Any, unit: str) -> dict[str, _report.Figure]:
        return {
            name: _report.interval(bootstrap_interval(values, of), unit) for name, of in statistics.items()
        }

    success = None if rollouts.successes is None else both(rollouts.successes, "fraction of episodes")
    return {
        "return": both(rollouts.returns, "reward an episode"),
        "normalised_score": None
        if oracle is None
        else {
            name: _report.interval(
                normalised_score(rollouts.returns, random.returns, oracle.returns, of), "0 random, 1 oracle"
            )
            for name, of in statistics.items()
        },
        "success": success,
        "length": {"mean": _report.interval(bootstrap_interval(rollouts.lengths, mean), "steps")},
        "random_return": {
            "mean": _report.interval(bootstrap_interval(random.returns, mean), "reward an episode")
        },
        "oracle_return": None
        if oracle is None
        else {"mean": _report.interval(bootstrap_interval(oracle.returns, mean), "reward an episode")},
    }


def _focus_figures(focus: Focus, uniform: bool, calibration_seeds: list[int]) -> dict[str, object]:
    from robot_attn.explain import STATES
    from robot_attn_policies.evaluation.evaluate import REFERENCES

    totals = focus.totals

    def of(index: int) -> dict[str, object]:
        return {
            "mass": _means(totals.mean_mass(index), "fraction of the map"),
            "mass_over_chance": _means(totals.mass_over_chance(index), "times chance"),
            "pointing_game": _means(totals.pointing(index), "fraction of frames"),
            "all_frames": {
                "mass": _means(totals.mean_mass_in_all_frames(index), "fraction of the map"),
                **{
                    state.replace(", ", "_").replace(" ", "_"): _means(
                        focus.share(index, state), "fraction of all frames"
                    )
                    for state in STATES
                },
            },
        }

    center, prior = focus.index("center_bias"), focus.index("prior")
    best = {
        "head": focus.best_head,
        **of(focus.best_head),
        "mass_over_center_bias": _means(
            totals.mass_over(focus.best_head, center), "times the centre-bias map"
        ),
        "mass_over_prior": _means(
            totals.mass_over(focus.best_head, prior), "times the target's average place"
        ),
    }
    return {
        "uniform_attention": uniform,
        "frames_scored": {"value": int(totals.visible.sum()), "unit": "frames"},
        "frames_target_not_visible": {"value": int(totals.hidden.sum()), "unit": "frames"},
        "chance": _means(totals.mean_chance(), "fraction of the frame"),
        "calibration": {
            "episodes": len(calibration_seeds),
            "first_seed": calibration_seeds[0],
            "last_seed": calibration_seeds[-1],
        },
        # A uniform map has no head to choose: calling one "best" would claim that it localises something.
        "best_head": None if uniform else best,
        "heads": [] if uniform else [{"head": head, **of(head)} for head in range(focus.num_heads)],
        "references": {name: of(focus.index(name)) for name in REFERENCES},
        "captures": None if uniform else _capture_figures(focus.captures),
        "things": _thing_figures(focus, uniform),
    }


def _capture_figures(found: Captures) -> dict[str, object]:
    from robot_attn_policies.evaluation.statistics import bootstrap_interval, mean

    flags = [True] * found.captured + [False] * (found.episodes - found.captured)
    return {
        "text": str(found),
        "episodes": None
        if not flags
        else _report.interval(bootstrap_interval(flags, mean), "fraction of episodes"),
        "target_lost": {"value": found.lost, "unit": "times"},
        "captures": [{**asdict(capture), "mass": round(capture.mass, 4)} for capture in found.captures],
    }


def _thing_figures(focus: Focus, uniform: bool) -> dict[str, object]:
    """Mass on each thing over all frames, also those in which the target is not visible."""
    from robot_attn.things import thing_kinds

    things, unit = focus.things, "fraction of the map"
    kinds = thing_kinds(things.names)
    every = [*kinds, *(name for name in things.names if name not in kinds)]

    def mass(head: int, names: Sequence[str]) -> dict[str, _report.Figure]:
        return {name: _means(things.mean_mass(head, name), unit) for name in names}

    return {
        "frames": {"value": int(things.frames.sum()), "unit": "frames"},
        "area": {name: _means(things.mean_area(name), "fraction of the frame") for name in every},
        "best_head": None if uniform else {"head": focus.best_head, "mass": mass(focus.best_head, every)},
        "heads": []
        if uniform
        else [{"head": head, "mass": mass(head, kinds)} for head in range(focus.num_heads)],
    }


def _means(means: RatioOfSums, unit: str) -> _report.Figure:
    import numpy as np

    from robot_attn_policies.evaluation.statistics import bootstrap_interval, ratio_of_sums

    return _report.interval(bootstrap_interval(np.stack(means, axis=1), ratio_of_sums), unit)


def show(figures: Any, console: Any) -> None:
    """Print the figures of `evaluate` as tables that fit in 80 columns, the width in a pipe."""
    from rich.text import Text

    seeds = figures["seeds"]
    console.print()
    console.print(Text(f"{figures['run']} ({figures['policy']})", style="bold"))
    console.print(
        f"{figures['task']}, perception {figures['perception']}, {figures['episodes']['value']} episodes, "
        f"seeds {seeds['first']} to {seeds['last']}\n"
        "in brackets: 95 % bootstrap interval over episodes",
        style="dim",
        highlight=False,
    )
    console.print()
    score = _report.figure_table("score", "mean", "interquartile mean")
    rows = (("return", "return", 1, 1), ("normalised score", "normalised_score", 3, 1))
    for label, key, digits, factor in (*rows, ("success, %", "success", 1, 100)):
        if figures[key] is not None:
            cells = [
                _report.interval_text(figures[key][name], digits, factor=factor) for name in ("mean", "iqm")
            ]
            score.add_row(label, *cells, style="bold" if key == "normalised_score" else None)
    console.print(score, highlight=False)
    low, oracle = figures["random_return"]["mean"]["value"], figures["oracle_return"]
    console.print(
        f"a random policy has a return of {low:.1f}; not normalised, because this environment has no oracle"
        if oracle is None
        else f"0 is a random policy (return {low:.1f}), 1 the oracle (return {oracle['mean']['value']:.1f})",
        style="dim",
        highlight=False,
    )
    console.print()

    for camera, focus in figures.get("focus_by_camera", {None: figures["focus"]}).items():
        _show_focus(figures, focus, camera, console)
    if "nuisance" in figures:
        _nuisance.show(figures["nuisance"], None, console)
    for camera, nuisance in figures.get("nuisance_by_camera", {}).items():
        _nuisance.show(nuisance, camera, console)


def _show_focus(figures: Any, focus: Any, camera: str | None, console: Any) -> None:
    """Print the focus at a camera; `camera` is None for a policy with one."""
    if focus is None:
        where = "" if camera is None else f" at the camera {camera}"
        console.print(
            f"Localisation{where} is not scored: this environment gives no target_mask in its info{where}, "
            "so the target's location in the frame is unknown.",
            style="yellow",
            highlight=False,
        )
        return
    if camera is not None:
        console.print(f"camera {camera}", style="bold", highlight=False)
    table = _report.figure_table("localisation", "mass on target, %", "x chance", "pointing game, %")

    def add(label: str, row: Any, style: str | None) -> None:
        cells = (
            _report.interval_text(row["mass"], 1, factor=100),
            _report.interval_text(row["mass_over_chance"], 1),
            _report.interval_text(row["pointing_game"], 1, factor=100),
        )
        table.add_row(label, *cells, style=style)

    _add_maps(focus, add)
    best = focus["best_head"]
    console.print(table, highlight=False)
    scored, hidden = focus["frames_scored"]["value"], focus["frames_target_not_visible"]["value"]
    if focus["chance"]["value"] is None:
        console.print("The target was never visible in these episodes: nothing to score.", style="yellow")
        return
    hidden_share = hidden / (scored + hidden)
    console.print(
        f"chance: the target covers {100 * focus['chance']['value']:.2f} % of the frame; {scored:,} frames "
        f"scored, {hidden:,} left out (target not visible: {hidden_share:.1%} of all)",
        style="dim",
        highlight=False,
    )
    console.print()
    console.print(_states_table(focus), highlight=False)
    console.print(
        "attended: no other place holds more of the map than the target and what is around it; mass 0 where "
        "the target is out of view",
        style="dim",
        highlight=False,
    )
    console.print()
    if best is None:
        console.print(
            f"The policy has no attention (perception {figures['perception']!r}), so there is no head to "
            "score. The rows above are baseline maps that ignore the frame; --maps causal scores one of any "
            "policy.",
            style="yellow",
            highlight=False,
        )
        return
    calibration = focus["calibration"]["episodes"]
    console.print(
        f"The attention mass of head {best['head']}, chosen on {calibration} other episodes, on the target "
        f"is {_number(best['mass_over_chance'])} times chance, "
        f"{_number(best['mass_over_center_bias'])} times that of the centre-bias map "
        f"and {_number(best['mass_over_prior'])} times that of the target's average place.",
        highlight=False,
    )
    console.print(focus["captures"]["text"], highlight=False)
    _show_things(focus["things"], console)


def _add_maps(focus: Any, add: Callable[[str, Any, str | None], None]) -> None:
    """Add a row for each head, the best one first, and for each reference map.

    Args:
        focus: the figures of focus.
        add: called with the row's label, its figures and its style.
    """
    best = focus["best_head"]
    if best is not None:
        add(f"head {best['head']} (best)", best, "bold")
        for head in focus["heads"]:
            if head["head"] != best["head"]:
                add(f"head {head['head']}", head, None)
    for name, row in focus["references"].items():
        add(REFERENCE_NAMES[name], row, "dim")


def _states_table(focus: Any) -> Any:
    """Make the table of attention over all frames, whether the target is visible or not."""
    table = _report.figure_table("all frames", "attended, %", "in view, not att., %", "mass, %")

    def add(label: str, row: Any, style: str | None) -> None:
        shares = ("attended", "in_view_not_attended", "mass")
        cells = (_report.interval_text(row["all_frames"][name], 1, factor=100) for name in shares)
        table.add_row(label, *cells, style=style)

    _add_maps(focus, add)
    return table


def _show_things(things: Any, console: Any) -> None:
    """Print the mass on each thing; nothing where the environment labels the target alone."""
    best, area = things["best_head"], things["area"]
    if best is None or set(area) == {"backdrop", "target"}:
        return
    console.print()
    table = _report.figure_table(f"head {best['head']} (best)", "attention mass, %", "share of the frame, %")
    for name in best["mass"]:
        if area[name]["value"]:  # what never came into view has no row
            cells = [_report.interval_text(row[name], 1, factor=100) for row in (best["mass"], area)]
            table.add_row(name, *cells, style="dim" if name not in things["heads"][0]["mass"] else None)
    console.print(table, highlight=False)
    kinds = [name for name in things["heads"][0]["mass"] if area[name]["value"]]
    each = _report.figure_table("mass, %", *kinds)
    for row in things["heads"]:
        cells = [f"{100 * row['mass'][name]['value']:.1f}" for name in kinds]
        each.add_row(f"head {row['head']}", *cells, style="bold" if row["head"] == best["head"] else None)
    console.print()
    console.print(each, highlight=False)
    console.print(
        f"mass thing by thing in all {things['frames']['value']:,} frames: where the target is not visible, "
        "the mass on it is 0",
        style="dim",
        highlight=False,
    )


def _number(figure: Any) -> str:
    return "-" if figure["value"] is None else f"{figure['value']:.1f}"
