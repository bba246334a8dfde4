"""Train each perception family with supervision to find the target among distractors: the pointing game."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from torch import Tensor, nn

import robot_attn
from robot_attn.cores import usable_cores
from robot_attn.errors import unknown_name
from robot_attn.focus import Bools, FocusMeter, FocusTotals, PriorMap, RatioOfSums, grow, uniform_map
from robot_attn.frames import channels_to_front
from robot_attn_policies.evaluation.statistics import bootstrap_interval, ratio_of_sums
from robot_attn_scripts import _report
from robot_attn_scripts._pool import ReportProgress, run_jobs
from robot_attn_scripts.options.benchmarks.pointing import SEEDS, Options, Supervision

SIDE = 64
"""Height and width of the frames in pixels."""
MIN_PIXELS = 8
"""The smallest number of visible pixels of the target in a frame."""
DRIFT = (2.0, 3.0)
"""The largest error of the oracle's pan and tilt, with which two frames in three show the target."""
STEPS_A_FRAME = 6
"""Simulation steps between two frames, about as many as the camera needs to follow a new error."""
FRAMES_A_WORLD = 16
SPLITS: Mapping[str, int] = {"train": 0, "validation": SEEDS, "test": 2 * SEEDS}
"""Seed of the first world of each split."""

BATCH_SIZE = 64
LEARNING_RATE = 1e-3
CHECK_STEPS = 200
"""Training steps between two validations."""
PATIENCE = 10
"""Validations without an improvement after which training stops."""
MASS_FLOOR = 1e-3
"""Added to the mass before its logarithm, so that a map without any mass on the target has a finite loss. The
mass of a uniform map is ten times as large."""

TOLERANCES: Mapping[int, str] = {0: "", 1: "_within_1_pixel"}
"""Radii in pixels by which the target is dilated in the test frames, and the suffixes of their figures."""

Figure = dict[str, object]


class Frames(NamedTuple):
    """T frames that show the target.

    Attributes:
        images: uint8 [T, 3, H, W] RGB.
        masks: bool [T, H, W], True on the target.
        worlds: int64 [T], index of the world of each frame.
    """

    images: NDArray[np.uint8]
    masks: Bools
    worlds: NDArray[np.int64]

    def count_worlds(self) -> int:
        """Return the number of worlds."""
        return int(self.worlds.max()) + 1

    def positions(self) -> NDArray[np.float32]:
        """Return the centroid of the visible target, float32 [T, 2]: (x, y), edges at -1 and 1."""
        pixels = self.masks.sum(axis=(1, 2))
        centroids = [
            (self.masks.sum(axis=axis) * (np.arange(SIDE) * 2 + 1)).sum(axis=1) / (pixels * SIDE) - 1
            for axis in (1, 2)
        ]
        return np.stack(centroids, axis=1).astype(np.float32)


class TrainJob(NamedTuple):
    """One training: a family and a kind of supervision."""

    family: str
    supervise: Supervision


class TrainProgress(NamedTuple):
    """Progress of a training at a validation.

    Attributes:
        steps: training steps so far.
        seconds: time so far, in seconds of one core.
        hits: share of validation frames in which the best head hits the target, in [0, 1].
        error: mean error of the position in pixels.
    """

    steps: int
    seconds: float
    hits: float
    error: float


def run(options: Options) -> dict[str, object]:
    """Train, print the tables, write the JSON file of --json, and return the figures.

    Raises:
        ValueError: a family is unknown, or a training failed; the latter after all others are done.
    """
    jobs = _jobs(options)
    console = Console()
    worlds = {split: getattr(options, f"{split}_worlds") for split in SPLITS}
    table: dict[Supervision, dict[str, Figure]] = {supervise: {} for supervise in options.supervise}
    with tempfile.TemporaryDirectory(prefix="robot-attn-") as folder:
        with console.status("rendering the frames"):
            frames = {split: render_frames(count, SPLITS[split]) for split, count in worlds.items()}
        figures: dict[str, object] = {
            "benchmark": "pointing",
            "machine": _report.machine("robot-attn", "torch", "mujoco", "mujoco-warp"),
            "budget": _report.figure(options.seconds, "seconds of one core"),
            "frames": {
                split: {"value": len(frames[split].images), "unit": "frames", "worlds": worlds[split]}
                for split in SPLITS
            },
            "references": references(frames["train"], frames["test"]),
            "supervised": table,
        }
        for split, rendered in frames.items():
            _save(Path(folder), split, rendered)
        del frames, rendered  # the processes map the files, and share their memory

        def on_result(job: TrainJob, result: Figure) -> None:
            table[job.supervise][job.family] = result
            if options.json is not None:
                _report.write_json(options.json, figures)

        try:
            _train_all(jobs, Path(folder), options, console, on_result)
        finally:
            _show(figures, console)
    failed = [job for job in jobs if "not measured" in table[job.supervise][job.family]]
    if failed:
        names = ", ".join(f"{job.family} ({job.supervise})" for job in failed)
        raise ValueError(f"expected figures of every training, got none of {names}: see the reasons above")
    return figures


def _jobs(options: Options) -> list[TrainJob]:
    families = options.families or tuple(sorted(robot_attn.FAMILIES))
    for family in families:
        if family not in robot_attn.FAMILIES:
            raise unknown_name("perception family", family, robot_attn.FAMILIES)
    return [TrainJob(family, supervise) for family in families for supervise in options.supervise]


def render_frames(worlds: int, first_seed: int, batch: int = 64) -> Frames:
    """Render frames of consecutive worlds.

    Args:
        worlds: number of worlds.
        first_seed: seed of the first world; the others follow it.
        batch: number of worlds to simulate at a time.
    """
    from robot_attn_envs.tasks.track import Track
    from robot_attn_envs.worlds import Worlds

    batch = min(batch, worlds)
    parts: list[Frames] = []
    simulator = Worlds(Track, batch, image_size=SIDE)
    try:
        for first in range(0, worlds, batch):
            seeds = range(first_seed + first, first_seed + first + batch)
            rng = np.random.default_rng(seeds.start)
            simulator.seed(seeds)
            simulator.reset(np.arange(batch))
            for _ in range(FRAMES_A_WORLD):
                error = rng.uniform(-1.0, 1.0, (batch, 2)) * DRIFT
                for _ in range(STEPS_A_FRAME):
                    simulator.step(np.clip(simulator.oracle() + error, -1.0, 1.0))
                masks = simulator.target_mask()
                world = first + np.arange(batch)
                kept = (masks.sum(axis=(1, 2)) >= MIN_PIXELS) & (world < worlds)
                images = channels_to_front(simulator.observe()["image"][kept])
                parts.append(Frames(images, masks[kept], world[kept]))
    finally:
        simulator.close()
    return Frames(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _save(folder: Path, split: str, frames: Frames) -> None:
    for name, array in frames._asdict().items():
        np.save(folder / f"{split}-{name}.npy", array)


def _load(folder: Path, split: str) -> Frames:
    """Map the frames of a split from its files, so that the processes share their memory."""
    return Frames(*(np.load(folder / f"{split}-{name}.npy", mmap_mode="r") for name in Frames._fields))


def references(train: Frames, test: Frames) -> dict[str, Figure]:
    """Score maps that ignore the frame: uniform, and the target's average place in the training frames."""
    prior = PriorMap((SIDE, SIDE))
    prior.add(train.masks)
    maps = np.stack([uniform_map((SIDE, SIDE)), prior.map()])
    scores: dict[str, Figure] = {"uniform": {}, "fixed": {}}
    for tolerance, suffix in TOLERANCES.items():
        meter = FocusMeter(test.count_worlds(), len(maps), tolerance)
        for part in _parts(len(test.masks)):
            masks = test.masks[part]
            meter.add(test.worlds[part], np.broadcast_to(maps, (len(masks), *maps.shape)), masks)
        totals = meter.totals()
        for index, figures in enumerate(scores.values()):
            figures[f"hits{suffix}"] = _interval(totals.pointing(index), "fraction of frames")
            figures["mass"] = _interval(totals.mean_mass(index), "fraction of the attention")
    return scores


# -------------------------------------------------------------------------------------------- one training


class Pointer(nn.Module):
    """A perception family, and a linear layer from its features to the target's position.

    Args:
        family: name of the family.
    """

    def __init__(self, family: str) -> None:
        super().__init__()
        self.perception = robot_attn.build(family, (3, SIDE, SIDE))
        self.position = nn.Linear(self.perception.features_dim, 2)
        for axis, share in zip("yx", self.perception.grid.box_shares, strict=True):
            self.register_buffer(f"share_{axis}", torch.tensor(share, dtype=torch.float32), persistent=False)
        self.share_y: Tensor
        self.share_x: Tensor

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Attend to frames and predict the target's position.

        Args:
            images: uint8 [B, 3, H, W] RGB.

        Returns:
            Attention [B, heads, rows, cols], and (x, y) [B, 2] with the frame's edges at -1 and 1.
        """
        percept = self.perception(images)
        return percept.attention, self.position(percept.features)

    def maps(self, attention: Tensor) -> Tensor:
        """Upsample attention [B, heads, rows, cols] to the frame, [B, heads, H, W]."""
        return robot_attn.upsample_attention(attention, self.perception.grid)

    def mass(self, attention: Tensor, masks: Tensor) -> Tensor:
        """Compute the mass of the upsampled attention on the target.

        Upsampling is linear, so the masks are pooled to the cells instead, which are fewer.

        Args:
            attention: [B, heads, rows, cols].
            masks: [B, H, W], True on the target.

        Returns:
            [B, heads] in [0, 1].
        """
        return torch.einsum("bhyx,byx->bh", attention, self.coverage(masks))

    def coverage(self, masks: Tensor) -> Tensor:
        """Compute the target's share of each cell, [B, rows, cols] in [0, 1], from masks [B, H, W]."""
        return self.share_y @ masks.to(self.share_y.dtype) @ self.share_x.T


class Score(NamedTuple):
    """Scores on the frames of E worlds.

    Attributes:
        totals: localisation of each head.
        ceiling: hits of a map that always chooses the cell of which the target covers the largest share.
        error: distance from the predicted to the true position, in pixels.
    """

    totals: FocusTotals
    ceiling: RatioOfSums
    error: RatioOfSums

    def best_head(self) -> int:
        """Return the head with the most hits."""
        return int(self.totals.hits.sum(axis=0).argmax())


def score(pointer: Pointer, frames: Frames, tolerance: int = 0) -> Score:
    """Score every head and the position on frames.

    Args:
        pointer: the module to score.
        frames: the frames.
        tolerance: radius in pixels around the target that counts as a hit too.
    """
    worlds = frames.count_worlds()
    meter = FocusMeter(worlds, pointer.perception.num_heads, tolerance)
    best, distance = np.zeros(worlds), np.zeros(worlds)
    positions = frames.positions()
    pointer.eval()
    for part in _parts(len(frames.images)):
        world, masks = frames.worlds[part], np.asarray(frames.masks[part])
        with torch.no_grad():
            attention, predicted = pointer(torch.from_numpy(frames.images[part].copy()))
            coverage = pointer.coverage(torch.from_numpy(grow(masks, tolerance).copy()))
            meter.add(world, pointer.maps(attention).numpy(), masks)
        np.add.at(best, world, coverage.flatten(1).amax(dim=1).numpy())
        np.add.at(distance, world, np.linalg.norm(predicted.numpy() - positions[part], axis=1) * SIDE / 2)
    pointer.train()
    totals = meter.totals()
    visible = totals.visible.astype(np.float64)
    return Score(totals, RatioOfSums(best, visible), RatioOfSums(distance, visible))


def loss_of(
    pointer: Pointer, images: Tensor, masks: Tensor, positions: Tensor, supervise: Supervision
) -> Tensor:
    """Compute the loss of a minibatch.

    Args:
        pointer: the module.
        images: uint8 [B, 3, H, W] RGB.
        masks: bool [B, H, W], True on the target.
        positions: float32 [B, 2], the target's (x, y) with the frame's edges at -1 and 1.
        supervise: kind of supervision.
    """
    attention, predicted = pointer(images)
    loss: Tensor = (predicted - positions).square().sum(dim=1).mean()
    if supervise == "map":
        # The head with the largest mass: any head of the family may learn to point.
        loss = loss - (pointer.mass(attention, masks) + MASS_FLOOR).log().mean(dim=0).max()
    return loss


class Trained(NamedTuple):
    """Result of a training.

    Attributes:
        pointer: the module with the weights that were best on the validation frames.
        head: the head that was best on them.
        steps: training steps.
        seconds: time in seconds of one core.
        best_steps: training steps after which the weights were best.
    """

    pointer: Pointer
    head: int
    steps: int
    seconds: float
    best_steps: int


def untrained(job: TrainJob, validation: Frames, seed: int = 0) -> Trained:
    """Return the initial state of `learn`; its head is chosen by validation too."""
    torch.manual_seed(seed)
    pointer = Pointer(job.family)
    return Trained(pointer, score(pointer, validation).best_head(), steps=0, seconds=0.0, best_steps=0)


def learn(
    job: TrainJob,
    train: Frames,
    validation: Frames,
    *,
    seconds: float,
    seed: int = 0,
    report: Callable[[TrainProgress], object] = lambda _: None,
) -> Trained:
    """Train until `PATIENCE` validations have not improved, or the time is over.

    Args:
        job: family and kind of supervision.
        train: training frames.
        validation: validation frames.
        seconds: largest time, in seconds of one core.
        seed: random seed of the weights and the minibatches.
        report: called after each validation.
    """
    torch.manual_seed(seed)
    pointer = Pointer(job.family)
    optimizer = torch.optim.Adam(pointer.parameters(), LEARNING_RATE)
    positions = train.positions()
    started, validation_time = time.process_time(), 0.0
    best: tuple[float, float] | None = None
    best_steps = head = steps = stale = 0
    weights: dict[str, Tensor] = {}
    for batch in _minibatches(len(train.images), np.random.default_rng(seed)):
        images, masks, targets = (torch.from_numpy(a[batch]) for a in (train.images, train.masks, positions))
        optimizer.zero_grad()
        loss_of(pointer, images, masks, targets, job.supervise).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(pointer.parameters(), 1.0)
        optimizer.step()
        steps += 1
        over = time.process_time() - started + validation_time >= seconds
        if steps % CHECK_STEPS and not over:
            continue
        before = time.process_time()
        scores = score(pointer, validation)
        validation_time = time.process_time() - before
        index = scores.best_head()
        hits, error = scores.totals.pointing(index).value, scores.error.value
        # The hits of a uniform map never change, so the position decides under both kinds of supervision.
        merit = (hits if job.supervise == "map" else 0.0, -error)
        stale += 1
        if best is None or merit > best:
            best, best_steps, head, stale = merit, steps, index, 0
            weights = copy.deepcopy(pointer.state_dict())
        report(TrainProgress(steps, time.process_time() - started, hits, error))
        if over or stale == PATIENCE:
            break
    pointer.load_state_dict(weights)
    return Trained(pointer, head, steps, time.process_time() - started, best_steps)


def _minibatches(count: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield indices of minibatches without end; every pass over the frames has a new random order."""
    size = min(BATCH_SIZE, count)
    while True:
        order = rng.permutation(count)
        for first in range(0, count - size + 1, size):
            yield np.sort(order[first : first + size])


def _parts(count: int) -> Iterator[slice]:
    for first in range(0, count, BATCH_SIZE):
        yield slice(first, first + BATCH_SIZE)


def figures_of(trained: Trained, before: Trained, test: Frames) -> Figure:
    """Compute the figures of a training on the test frames; `before` is its initial state."""
    first = score(before.pointer, test).totals.pointing(before.head)
    figures: Figure = {"hits_untrained": _interval(first, "fraction of frames")}
    for tolerance, suffix in TOLERANCES.items():
        scores = score(trained.pointer, test, tolerance)
        figures[f"hits{suffix}"] = _interval(scores.totals.pointing(trained.head), "fraction of frames")
        figures[f"ceiling{suffix}"] = _report.figure(scores.ceiling.value, "fraction of frames")
    return figures | {
        "mass": _interval(scores.totals.mean_mass(trained.head), "fraction of the attention"),
        "position_error": _interval(scores.error, "pixels"),
        "seconds": _report.figure(trained.seconds, "seconds of one core"),
        "steps": _report.figure(trained.steps, "minibatches"),
        "best_steps": _report.figure(trained.best_steps, "minibatches"),
        "head": trained.head,
        "heads": trained.pointer.perception.num_heads,
        "uniform": trained.pointer.perception.uniform,
    }


def _interval(means: RatioOfSums, unit: str) -> Figure:
    """Make the JSON of a figure with its 95 % bootstrap interval over worlds, whose frames are similar."""
    interval = bootstrap_interval(np.stack(means, axis=1), ratio_of_sums)
    return {**interval._asdict(), "unit": unit}


# --------------------------------------------------------------------------------------- all the trainings


def _train_all(
    jobs: Sequence[TrainJob],
    folder: Path,
    options: Options,
    console: Console,
    on_result: Callable[[TrainJob, Figure], None],
) -> None:
    """Run the trainings in one process with one thread for each core, and report each result at once."""
    columns = (
        TextColumn("[bold]{task.description:<22}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bars: dict[int, TaskID] = {}

        def on_progress(index: int, state: TrainProgress | None) -> None:
            if state is None:  # the training starts
                job = jobs[index]
                bars[index] = progress.add_task(
                    f"{job.family}, {job.supervise}", total=options.seconds, status=""
                )
            else:
                status = f"{state.steps:,} steps · {state.hits:.1%} hits · {state.error:.2f} px"
                progress.update(bars[index], completed=state.seconds, status=status)

        def on_end(index: int, result: Figure) -> None:
            if index in bars:
                progress.remove_task(bars[index])
            job = jobs[index]
            console.print(f"{job.family}, {job.supervise}: {_status(result)}", highlight=False)
            on_result(job, result)

        run_jobs(
            partial(_train_job, folder, options),
            jobs,
            usable_cores(),
            on_progress=on_progress,
            on_result=on_end,
            on_error=lambda index, message: on_end(index, {"not measured": message}),
        )


def _train_job(folder: Path, options: Options, job: TrainJob, report_progress: ReportProgress) -> Figure:
    """Train in a worker process; return the figures, or the reason why there are none."""
    from robot_attn_policies.training.process_settings import keep_memory

    report_progress(None)
    torch.set_num_threads(1)
    keep_memory()
    try:
        train, validation, test = (_load(folder, split) for split in SPLITS)
        trained = learn(
            job, train, validation, seconds=options.seconds, seed=options.seed, report=report_progress
        )
        return figures_of(trained, untrained(job, validation, options.seed), test)
    except BrokenPipeError:
        raise  # the main process was stopped
    except Exception as error:  # a family of another package may raise anything: print it in the table
        return {"not measured": " ".join(str(error).split()) or type(error).__name__}


def _status(result: Figure) -> str:
    if "not measured" in result:
        return f"not measured: {result['not measured']}"
    hits, error, steps, seconds = (
        _value(result, name) for name in ("hits", "position_error", "steps", "seconds")
    )
    return f"{hits:.1%} hits, {error:.2f} px, {steps:,.0f} steps in {seconds:.0f} s"


def _value(result: Figure, name: str, field: str = "value") -> float:
    figure = result[name]
    assert isinstance(figure, dict)
    return float(figure[field])


def _show(figures: Mapping[str, object], console: Console) -> None:
    supervised, baselines = figures["supervised"], figures["references"]
    assert isinstance(supervised, dict) and isinstance(baselines, dict)
    for supervise, results in supervised.items():
        columns = ("hits, %", "95 %", "ceiling", "within 1 px", "before", "mass", "px off")
        title = f"supervised by {supervise}: the pointing game on the test frames"
        table = _report.figure_table("", *columns, title=title)
        measured = {name: result for name, result in sorted(results.items()) if "hits" in result}
        for name, result in measured.items():
            table.add_row(name, *_cells(result))
        table.add_row()
        for name, result in baselines.items():
            table.add_row(f"({name})", *_cells(result))
        console.print(table)
        for name, result in sorted(results.items()):
            if name not in measured:
                console.print(f"{name}: {_status(result)}", highlight=False, soft_wrap=True)
            elif result["uniform"]:
                console.print(f"{name}: its attention is uniform, so its hits are chance", highlight=False)


def _cells(result: Figure) -> list[str]:
    """Format a row of the table; figures that a result does not have, such as a reference, are empty."""
    low, high = (100 * _value(result, "hits", end) for end in ("low", "high"))
    scales = {
        "ceiling": 100,
        "hits_within_1_pixel": 100,
        "hits_untrained": 100,
        "mass": 1,
        "position_error": 1,
    }
    rest = [
        f"{scale * _value(result, name):.{1 if scale > 1 else 2}f}" if name in result else ""
        for name, scale in scales.items()
    ]
    return [f"{100 * _value(result, 'hits'):.1f}", f"{low:.1f}–{high:.1f}", *rest]
