"""Compare trained policies: score and localisation of each arm, with and without visual shifts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robot_attn_scripts import _loaded_run, _nuisance, _pool, _report
from robot_attn_scripts.options.compare import Options

if TYPE_CHECKING:
    from rich.console import Console

    from robot_attn_policies.evaluation.compare import Comparison
    from robot_attn_policies.evaluation.result_cache import Question, Result
    from robot_attn_policies.training.presets import TrainConfig

CELLS, NAME = "cells", "comparison"
"""Names in the output folder: the folder of the cells, and the stem of the other files."""
NUISANCE_PLOT = "nuisance.png"

COLUMNS = (
    ("return", "return", 1, 1),
    ("score", "normalised_score", 3, 1),
    ("interquartile mean", "normalised_score_iqm", 3, 1),
    ("success, %", "success", 0, 100),
    ("mass on target, %", "mass", 1, 100),
    ("x chance", "mass_over_chance", 1, 1),
    ("x centre bias", "mass_over_center_bias", 1, 1),
    ("pointing, %", "pointing_game", 0, 100),
    ("attended, %", "attended", 0, 100),
    ("mass on distractors, %", "mass_on_distractors", 1, 100),
    ("nuisance, %", "nuisance", 1, 100),
)
"""Columns of the table: heading, metric, digits, factor. The return is a column where it is the score."""
IN_TERMINAL = ("return", "normalised_score", "success", "mass_over_chance", "pointing_game")
"""The metrics that the terminal shows, so that the table fits in 80 columns."""


@dataclass(frozen=True)
class CellJob:
    """One cell of the comparison, to be measured in a worker process.

    Args:
        path: file of the cell.
        question: what is measured in it; a `NuisanceQuestion` for the nuisance of the policy.
        run: run folder of the policy; None for the baselines of the score (random policy and oracle).
        which: checkpoint to load.
        envs: number of parallel environments.
        modules: modules to import first.
    """

    path: Path
    question: Question
    run: Path | None
    which: Literal["best", "last"]
    envs: int
    modules: tuple[str, ...] = ()

    @property
    def frames(self) -> int | None:
        """Number of frames in which nuisance is measured; None in a cell of scores or baselines."""
        return getattr(self.question, "frames", None)

    def size(self, horizon: int) -> int:
        """Return the largest number of steps, with those of calibration or of both baselines; or frames."""
        question = self.question
        more = question.episodes if question.calibration is None else question.calibration["episodes"]
        return horizon * (question.episodes + more) if self.frames is None else self.frames

    def answer(self) -> Any:
        """Read the cell's result; None if it is not measured yet."""
        from robot_attn_policies.evaluation.result_cache import Baselines, NuisanceScores, Scores, read_cell

        kind = Baselines if self.run is None else Scores if self.frames is None else NuisanceScores
        return read_cell(self.path, self.question, kind)


def run(options: Options) -> dict[str, object]:
    """Measure the missing cells, print the tables, write the files, and return the figures.

    Raises:
        ValueError: the runs cannot be compared.
        KeyboardInterrupt: interrupted, after a message that says how to resume.
    """
    from rich.console import Console

    from robot_attn_policies.evaluation.compare import TRAINED, compare, group_runs
    from robot_attn_policies.evaluation.compare_plot import write_nuisance_plot, write_plot
    from robot_attn_policies.evaluation.shift_correlation import RunResult, shift_table
    from robot_attn_policies.training.run_folder import locked, write_file

    policies = load_policies(options)
    configs = {name: policy.config for name, policy in policies.items()}
    arms = group_runs(configs)
    out = options.out or Path("runs/compare") / next(iter(configs.values())).task
    if not options.force:
        check_same_runs(out / f"{NAME}.json", configs)
    table = plan(options, configs, out / CELLS)
    jobs = list({job.path: job for of_run in table.values() for job in of_run}.values())

    console = Console()
    missing = [job for job in jobs if job.answer() is None]
    horizons = check_scenes(missing)
    frames = [job.frames for job in missing if job.frames is not None]
    if frames:
        console.print(
            f"nuisance: {sum(frames):,} frames in {len(frames)} cells, with 96 to 480 passes of the policy "
            "for each frame",
            style="dim",
            highlight=False,
        )
    with locked(out / CELLS, "comparison"):
        try:
            for unit in ("steps", "frames"):
                some = [job for job in missing if (job.frames is None) == (unit == "steps")]
                measure(some, horizons, options.jobs, unit, Console(stderr=True))
        except KeyboardInterrupt:
            done = sum(job.answer() is not None for job in jobs)
            console.print(
                f"stopped: {done} of {len(jobs)} cells are measured and kept in {out / CELLS}; the same "
                "command resumes with the others",
                soft_wrap=True,
                highlight=False,
            )
            raise
    scenes = list(dict.fromkeys(scene for scene, _ in table))
    answers: Any = {place: [job.answer() for job in of_run] for place, of_run in table.items()}
    seeds = {arm: [configs[run].seed for run in runs] for arm, runs in arms.items()}
    uniform = frozenset(arm for arm, runs in arms.items() if policies[runs[0]].probe.uniform)

    def by_arm(part: slice | int) -> Any:
        return {
            scene: {arm: [answers[scene, run][part] for run in runs] for arm, runs in arms.items()}
            for scene in scenes
        }

    comparison = compare(by_arm(slice(2)), seeds, uniform, by_arm(2) if options.nuisance else None)

    figures = figures_of(comparison, options, {arm: {run: configs[run] for run in arms[arm]} for arm in arms})
    files = {ending: out / f"{NAME}.{ending}" for ending in ("md", "png", "json")}
    if options.nuisance:
        results = [
            RunResult(
                run,
                arm,
                arm in uniform,
                [tuple(answers[scene, run][:2]) for scene in scenes],
                [answers[scene, run][2] for scene in scenes],
            )
            for arm, runs in arms.items()
            for run in runs
        ]
        shifts = shift_table(results, [scene for scene in scenes if scene != TRAINED])
        figures["nuisance"] = _nuisance.correlation_figures(shifts)
        files["nuisance"] = out / NUISANCE_PLOT
        write_nuisance_plot(files["nuisance"], shifts, headline(figures))
    show(figures, console)
    write_file(files["md"], markdown(figures).encode())
    write_plot(files["png"], comparison, headline(figures))
    for path in (files["json"], options.json):
        if path is not None:
            _report.write_json(path, figures)
    for path in files.values():
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    return figures


def check_same_runs(path: Path, runs: Iterable[str]) -> None:
    """Check that an earlier comparison, which is about to be replaced, is one of the same runs.

    Args:
        path: `comparison.json` of the output folder, which need not exist.
        runs: run folders.

    Raises:
        FileExistsError: it is of other runs, or cannot be read.
    """
    if not path.exists():
        return
    try:
        arms = json.loads(path.read_bytes())["arms"].values()
        earlier = {run["folder"] for arm in arms for run in arm["runs"]}
    except (ValueError, LookupError, TypeError, AttributeError):
        earlier = set()
    if earlier != set(runs):
        raise FileExistsError(
            f"expected a comparison of the same runs, got {path}, which is of others: name another folder "
            "with --out, or add --force to replace it"
        )


def load_policies(options: Options) -> dict[str, _loaded_run.LoadedRun]:
    """Load the policies of the runs, by run folder.

    Raises:
        ValueError: a folder is not a run folder, is named twice or has no policy, or its training used an
            evaluation seed.
    """
    named: set[Path] = set()
    policies = {}
    for folder in options.runs:
        if folder.resolve() in named:
            raise ValueError(f"expected each run once, got {folder}, which is named twice: name it once")
        named.add(folder.resolve())
        policy = policies[str(folder)] = _loaded_run.load(folder, options.which, options.module)
        policy.check_one_camera()
        seeds_of(options, policy.held_out_from)
    return policies


def seeds_of(options: Options, used: set[int]) -> tuple[list[int], list[int]]:
    """Return the evaluation and the calibration seeds.

    Raises:
        ValueError: a seed is in `used`.
    """
    from robot_attn_policies.evaluation.evaluate import CALIBRATION_SEED

    calibration = _loaded_run.seeds_from(CALIBRATION_SEED, options.calibration_episodes, used, "calibration")
    return _loaded_run.seeds_from(
        options.seed, options.episodes, used | set(calibration), "evaluation"
    ), calibration


def plan(
    options: Options, configs: Mapping[str, TrainConfig], folder: Path
) -> dict[tuple[str, str], tuple[CellJob, ...]]:
    """List the cells of the comparison.

    A cell's file is named after arm, seed and scene, so that a retrained run replaces its own cells and other
    comparisons in the folder are kept.

    Args:
        options: options of the command.
        configs: configuration of each run, by run folder.
        folder: folder of the cells.

    Returns:
        For each scene and run, the cell of its scores, the cell of the baselines, and that of its nuisance if
        it is measured. Runs with the same environment share the baselines.
    """
    from robot_attn_policies.evaluation.compare import TRAINED, arm_config
    from robot_attn_policies.evaluation.nuisance import EPISODES
    from robot_attn_policies.evaluation.result_cache import NuisanceQuestion, Question, policy_identity
    from robot_attn_policies.training.run_folder import json_hash, library_versions

    versions = library_versions()
    evaluation, calibration = seeds_of(options, set())
    table = {}
    for scene in dict.fromkeys((TRAINED, *options.suite)):
        for run, config in configs.items():
            env = _loaded_run.scene(config.env, suite=None if scene == TRAINED else scene)
            baselines = Question(config.task, scene, env, evaluation[0], len(evaluation), versions)
            scores = replace(
                baselines,
                policy=policy_identity(Path(run), options.which),
                trained_env=config.env,
                calibration={"first_seed": calibration[0], "episodes": len(calibration)},
            )
            arm = json_hash(asdict(arm_config(config)))[:8]
            name = f"{config.perception}-{arm}-{config.seed}-{scene}.json"
            cells: list[tuple[str, Question, Path | None]] = [
                (name, scores, Path(run)),
                (f"ends-{json_hash(dict(config.env))[:8]}-{scene}.json", baselines, None),
            ]
            if options.nuisance:
                question = NuisanceQuestion(
                    config.task,
                    scene,
                    env,
                    evaluation[0],
                    min(len(evaluation), EPISODES),
                    versions,
                    scores.policy,
                    frames=options.nuisance_frames,
                )
                cells.append((f"nuisance-{name}", question, Path(run)))
            table[scene, run] = tuple(
                CellJob(folder / file, question, path, options.which, options.envs, options.module)
                for file, question, path in cells
            )
    return table


def check_scenes(jobs: Iterable[CellJob]) -> dict[Path, int]:
    """Create each environment once, so that a wrong name or option is reported before any work.

    Returns:
        The largest number of steps of an episode, by the path of the cell.
    """
    from robot_attn_policies.training.run_folder import json_hash

    horizons: dict[str, int] = {}
    by_path = {}
    for job in jobs:
        key = json_hash(dict(job.question.env))
        if key not in horizons:
            with closing(_loaded_run.make_env(job.question.task, job.question.env, 1)) as env:
                horizons[key] = int(env.horizon)
        by_path[job.path] = horizons[key]
    return by_path


def measure(
    jobs: Sequence[CellJob], horizons: Mapping[Path, int], processes: int, unit: str, console: Console
) -> None:
    """Measure the cells in several processes with a progress bar, and write each as soon as it is done."""
    from rich.progress import BarColumn, Progress, TextColumn

    from robot_attn.cores import usable_cores
    from robot_attn_policies.evaluation.result_cache import write_cell
    from robot_attn_policies.training.progress_bar import pace

    # Longest first, so that no core idles for long at the end.
    left = {job.path: job.size(horizons[job.path]) for job in jobs}
    jobs = sorted(jobs, key=lambda job: -left[job.path])
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[pace]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"0 of {len(jobs)} cells", total=sum(left.values()), pace="starting")
        started, finished, done = time.monotonic(), 0, 0

        def on_progress(index: int, more: int) -> None:
            nonlocal finished
            finished += more
            left[jobs[index].path] -= more
            rate = finished / (time.monotonic() - started)
            progress.update(task, advance=more, pace=pace(rate, sum(left.values()), unit))

        def on_result(index: int, answer: Result) -> None:
            nonlocal done
            done += 1
            write_cell(jobs[index].path, jobs[index].question, answer)
            # The remaining steps or frames of episodes that ended early.
            progress.update(
                task, advance=left.pop(jobs[index].path), description=f"{done} of {len(jobs)} cells"
            )

        _pool.run_jobs(
            measure_cell, jobs, processes or usable_cores(), on_progress=on_progress, on_result=on_result
        )


def measure_cell(job: CellJob, report_progress: _pool.ReportProgress) -> Result:
    """Measure a cell in this process."""
    from robot_attn_policies.evaluation.result_cache import baselines_of, nuisance_scores_of, scores_of
    from robot_attn_policies.rollouts.rollout import Step

    def start_progress(name: str, steps: int) -> Any:
        def on_step(step: Step) -> None:
            report_progress(int(step.running.sum()))

        return on_step

    _loaded_run.import_modules(job.modules)
    question = job.question
    seeds = range(question.first_seed, question.first_seed + question.episodes)
    with closing(_loaded_run.make_env(question.task, question.env, min(job.envs, len(seeds)))) as env:
        if job.run is None:
            return baselines_of(*_loaded_run.baselines(env, seeds, start_progress))
        policy = _loaded_run.load(job.run, job.which, job.modules)
        if job.frames is not None:
            return nuisance_scores_of(
                _nuisance.measure(policy.probe, env, seeds, job.frames, report_progress)
            )
        assert question.calibration is not None
        first, count = question.calibration["first_seed"], question.calibration["episodes"]
        calibration = range(first, first + count)
        return scores_of(*_loaded_run.score(policy, policy.probe, env, seeds, calibration, start_progress))


def figures_of(
    comparison: Comparison, options: Options, arms: Mapping[str, Mapping[str, TrainConfig]]
) -> dict[str, object]:
    """Make the JSON of the figures, with their units, and of the configurations."""
    from robot_attn_policies.evaluation.compare import UNITS
    from robot_attn_policies.evaluation.result_cache import policy_identity
    from robot_attn_policies.training.run_folder import library_versions

    evaluation, calibration = seeds_of(options, set())

    def figure(name: str, scene: str, arm: str) -> dict[str, object]:
        measured = comparison.figures[scene][arm][name]
        runs = [value if value == value else None for value in measured.runs]
        return {**_report.interval(measured.interval, UNITS[name]), "runs": runs}

    return {
        "task": next(config.task for runs in arms.values() for config in runs.values()),
        "policy": options.which,
        "episodes": _report.figure(len(evaluation), "episodes a cell"),
        "seeds": {"first": evaluation[0], "last": evaluation[-1]},
        "calibration": {"episodes": len(calibration), "first_seed": calibration[0]},
        "interval": "95 % bootstrap: runs are resampled first, then episodes, the same ones for all runs",
        "versions": library_versions(),
        "score": comparison.score,
        "arms": {
            arm: {
                "uniform_attention": arm in comparison.uniform,
                "runs": [
                    {
                        "folder": run,
                        "seed": config.seed,
                        "sha256": policy_identity(Path(run), options.which),
                        "config": asdict(config),
                    }
                    for run, config in runs.items()
                ],
            }
            for arm, runs in arms.items()
        },
        "scenes": {
            scene: {arm: {name: figure(name, scene, arm) for name in by_arm[arm]} for arm in arms}
            for scene, by_arm in comparison.figures.items()
        },
        "differences": {
            scene: [
                {"arms": list(pair), **_report.interval(difference, UNITS[comparison.score])}
                for pair, difference in pairs.items()
            ]
            for scene, pairs in comparison.differences.items()
        },
    }


def headline(figures: Any) -> str:
    """Make the title: task and number of episodes."""
    return f"{figures['task'].capitalize()}, {figures['episodes']['value']} episodes a cell"


def _notes(figures: Any) -> list[str]:
    """List the notes that a reader needs to interpret the tables."""
    counts = {arm: len(entry["runs"]) for arm, entry in figures["arms"].items()}
    uniform = [arm for arm, entry in figures["arms"].items() if entry["uniform_attention"]]
    single = [arm for arm, count in counts.items() if count == 1]
    several = [count for count in counts.values() if count > 1]
    notes = ["In brackets: 95 % bootstrap interval over runs and episodes."]
    if single:
        notes.append(f"One seed: the interval of {', '.join(single)} is over episodes only.")
    if several and min(several) < 10:
        notes.append(f"With {min(several)} runs the interval is approximate.")
    if figures["score"] == "return":
        notes.append("The environment has no oracle, so scores are returns and are not normalised.")
    if uniform:
        notes.append(f"The map of {', '.join(uniform)} is uniform by construction: it scores chance.")
    return notes


def _rows(figures: Any, scene: str, columns: Iterable[tuple[str, str, int, int]]) -> list[list[str]]:
    missing = {"value": None}
    return [
        [
            f"{arm} ({len(figures['arms'][arm]['runs'])})",
            *(
                _report.interval_text(by_metric.get(metric, missing), digits, factor=factor)
                for _, metric, digits, factor in columns
            ),
        ]
        for arm, by_metric in figures["scenes"][scene].items()
    ]


def _columns(figures: Any) -> list[tuple[str, str, int, int]]:
    """List the columns of the table: the return or the normalised scores, whichever the score is."""
    unknown = ["normalised_score" if figures["score"] == "return" else "return"]
    if "nuisance" not in figures:
        unknown.append("nuisance")
    return [column for column in COLUMNS if not column[1].startswith(tuple(unknown))]


def _digits(figures: Any) -> int:
    return next(digits for _, metric, digits, _ in COLUMNS if metric == figures["score"])


def _differences(figures: Any, scene: str) -> list[list[str]]:
    return [
        [" - ".join(entry["arms"]), _report.interval_text(entry, _digits(figures), sign="+")]
        for entry in figures["differences"][scene]
    ]


def show(figures: Any, console: Console) -> None:
    """Print the figures as tables."""
    from rich.text import Text

    columns = [column for column in _columns(figures) if column[1] in IN_TERMINAL]
    nuisance = [column for column in COLUMNS if column[1] == "nuisance"]
    scores = _report.figure_table("arm (runs)", *(heading for heading, *_ in columns))
    differences = _report.figure_table("arms", "difference in score")
    shares = _report.figure_table("arm (runs)", *(heading for heading, *_ in nuisance))
    for scene in figures["scenes"]:
        for table, rows in (
            (scores, _rows(figures, scene, columns)),
            (differences, _differences(figures, scene)),
            (shares, _rows(figures, scene, nuisance)),
        ):
            table.add_row(Text(scene, style="bold"))
            for row in rows:
                table.add_row(*row)
    console.print()
    console.print(Text(headline(figures), style="bold"))
    console.print()
    console.print(scores, highlight=False)
    console.print()
    if len(figures["arms"]) > 1:
        console.print(differences, highlight=False)
        console.print()
    console.print(" ".join(_notes(figures)), style="dim", highlight=False)
    console.print()
    if "nuisance" in figures:
        console.print(shares, highlight=False)
        console.print()
        _nuisance.show_correlations(figures["nuisance"], console)


def markdown(figures: Any) -> str:
    """Format the figures as Markdown tables."""
    columns = _columns(figures)
    headings = ["scene", "arm (runs)", *(heading for heading, *_ in columns)]
    scores = [[scene, *row] for scene in figures["scenes"] for row in _rows(figures, scene, columns)]
    differences = [[scene, *row] for scene in figures["scenes"] for row in _differences(figures, scene)]
    parts = [f"{headline(figures)}. {' '.join(_notes(figures))}", _markdown_table(headings, scores)]
    if differences:
        parts.append(_markdown_table(["scene", "arms", "difference in score"], differences))
    if "nuisance" in figures:
        parts.append(" ".join(_nuisance.correlation_notes(figures["nuisance"])))
        parts.append(
            _markdown_table(_nuisance.correlation_headings(), _nuisance.correlation_rows(figures["nuisance"]))
        )
    return "\n\n".join(parts) + "\n"


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
