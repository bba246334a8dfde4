"""Can each perception family learn, with supervision, to find the coloured target among distractors?"""

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
SEEN = 8
"""Pixels of the target that a frame shows at least."""
DRIFT = (2.0, 3.0)
"""The greatest error of the oracle's pan and tilt: with it the target is seen two times in three."""
STEPS_A_FRAME = 6
"""Steps of the simulator between two frames, about as long as the camera takes to follow a new error."""
FRAMES_A_WORLD = 16
SPLITS: Mapping[str, int] = {"train": 0, "validation": SEEDS, "test": 2 * SEEDS}
"""The seed of the first world of each."""

BATCH_SIZE = 64
LEARNING_RATE = 1e-3
CHECK_STEPS = 200
"""Steps between two looks at the validation frames."""
PATIENCE = 10
"""Looks without a better one, after which training stops."""
MASS_FLOOR = 1e-3
"""Added to the mass before its logarithm: a map that is hard and wrong, with no mass on the target, gives a
finite loss. The mass of a uniform map is ten times as much."""

TOLERANCES: Mapping[int, str] = {0: "", 1: "_within_1_pixel"}
"""The radii, in pixels, by which the target is grown on the test frames, and how the figures name them."""

Figure = dict[str, object]


class Frames(NamedTuple):
    """T frames in which the target is seen."""

    images: NDArray[np.uint8]
    """[T, 3, H, W]."""
    masks: Bools
    """[T, H, W], True on the target."""
    worlds: NDArray[np.int64]
    """[T], the world of each, from 0."""

    def count_worlds(self) -> int:
        """As many as `worlds` tells apart."""
        return int(self.worlds.max()) + 1

    def places(self) -> NDArray[np.float32]:
        """The middle of what is seen of the target, (x, y) with the frame's edges at -1 and 1, [T, 2]."""
        pixels = self.masks.sum(axis=(1, 2))
        middles = [
            (self.masks.sum(axis=axis) * (np.arange(SIDE) * 2 + 1)).sum(axis=1) / (pixels * SIDE) - 1
            for axis in (1, 2)
        ]
        return np.stack(middles, axis=1).astype(np.float32)


class TrainJob(NamedTuple):
    """One training."""

    family: str
    supervise: Supervision


class Progressed(NamedTuple):
    """Where a training is, at a look at the validation frames."""

    steps: int
    seconds: float
    hits: float
    error: float


def run(options: Options) -> dict[str, object]:
    """Train, print the tables, write the JSON if asked to, and return the figures.

    Raises:
        ValueError: an unknown family, nothing to train, or trainings that failed, once the others are done.
    """
    jobs = _jobs(options)
    console = Console()
    worlds = {split: getattr(options, f"{split}_worlds") for split in SPLITS}
    table: dict[Supervision, dict[str, Figure]] = {supervise: {} for supervise in options.supervise}
    with tempfile.TemporaryDirectory(prefix="robot-attn-") as folder:
        with console.status("drawing the frames"):
            frames = {split: draw(count, SPLITS[split]) for split, count in worlds.items()}
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
        for split, drawn in frames.items():
            _save(Path(folder), split, drawn)
        del frames, drawn  # the trainings share the files' pages

        def keep(job: TrainJob, result: Figure) -> None:
            table[job.supervise][job.family] = result
            if options.json is not None:
                _report.write_json(options.json, figures)

        try:
            _train_all(jobs, Path(folder), options, console, keep)
        finally:
            _show(figures, console)
    failed = [job for job in jobs if "not measured" in table[job.supervise][job.family]]
    if failed:
        names = ", ".join(f"{job.family} ({job.supervise})" for job in failed)
        raise ValueError(f"the training of {names} failed; the table says why")
    return figures


def _jobs(options: Options) -> list[TrainJob]:
    families = options.families or tuple(sorted(robot_attn.FAMILIES))
    for family in families:
        if family not in robot_attn.FAMILIES:
            raise unknown_name("perception family", family, robot_attn.FAMILIES)
    return [TrainJob(family, supervise) for family in families for supervise in options.supervise]


def draw(worlds: int, first_seed: int, batch: int = 64) -> Frames:
    """Draw frames of `worlds` worlds, whose seeds begin at `first_seed`, `batch` worlds at a time."""
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
                kept = (masks.sum(axis=(1, 2)) >= SEEN) & (world < worlds)
                images = channels_to_front(simulator.observe()["image"][kept])
                parts.append(Frames(images, masks[kept], world[kept]))
    finally:
        simulator.close()
    return Frames(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _save(folder: Path, split: str, frames: Frames) -> None:
    for name, array in frames._asdict().items():
        np.save(folder / f"{split}-{name}.npy", array)


def _load(folder: Path, split: str) -> Frames:
    """Frames that the processes share: their pages of the files' cache."""
    return Frames(*(np.load(folder / f"{split}-{name}.npy", mmap_mode="r") for name in Frames._fields))


def references(train: Frames, test: Frames) -> dict[str, Figure]:
    """What is hit without looking: by a uniform map, and by the pixel that most often is the target's."""
    often = PriorMap((SIDE, SIDE))
    often.add(train.masks)
    maps = np.stack([uniform_map((SIDE, SIDE)), often.map()])
    found: dict[str, Figure] = {"uniform": {}, "fixed": {}}
    for tolerance, suffix in TOLERANCES.items():
        meter = FocusMeter(test.count_worlds(), len(maps), tolerance)
        for part in _parts(len(test.masks)):
            masks = test.masks[part]
            meter.add(test.worlds[part], np.broadcast_to(maps, (len(masks), *maps.shape)), masks)
        totals = meter.totals()
        for index, figures in enumerate(found.values()):
            figures[f"hits{suffix}"] = _interval(totals.pointing(index), "fraction of frames")
            figures["mass"] = _interval(totals.mean_mass(index), "fraction of the attention")
    return found


# -------------------------------------------------------------------------------------------- one training


class Pointer(nn.Module):
    """A family's module, and a linear layer from its features to the target's place."""

    def __init__(self, family: str) -> None:
        super().__init__()
        self.perception = robot_attn.build(family, (3, SIDE, SIDE))
        self.place = nn.Linear(self.perception.features_dim, 2)
        for axis, share in zip("yx", self.perception.grid.box_shares, strict=True):
            self.register_buffer(f"share_{axis}", torch.tensor(share, dtype=torch.float32), persistent=False)
        self.share_y: Tensor
        self.share_x: Tensor

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images uint8 [B, 3, H, W] -> attention [B, heads, rows, cols] and the target's (x, y) [B, 2]."""
        percept = self.perception(images)
        return percept.attention, self.place(percept.features)

    def maps(self, attention: Tensor) -> Tensor:
        """The attention over the frame's pixels, [B, heads, H, W]."""
        return robot_attn.upsample_attention(attention, self.perception.grid)

    def mass(self, attention: Tensor, masks: Tensor) -> Tensor:
        """The mass of `maps` on the target, [B, heads], for masks [B, H, W].

        Spreading a map is linear, so the masks are gathered to its cells instead, which are fewer.
        """
        return torch.einsum("bhyx,byx->bh", attention, self.covered(masks))

    def covered(self, masks: Tensor) -> Tensor:
        """The share of each cell's box that is the target's, [B, rows, cols], for masks [B, H, W]."""
        return self.share_y @ masks.to(self.share_y.dtype) @ self.share_x.T


class Score(NamedTuple):
    """How well frames of E worlds were pointed at."""

    totals: FocusTotals
    ceiling: RatioOfSums
    """The hits of a map that always chooses the cell of which the target covers the largest share."""
    error: RatioOfSums
    """Distance between the place and the target's, in pixels."""

    def best_head(self) -> int:
        return int(self.totals.hits.sum(axis=0).argmax())


def score(pointer: Pointer, frames: Frames, tolerance: int = 0) -> Score:
    """Point in every frame, with every head; pixels within `tolerance` of the target are hits too."""
    worlds = frames.count_worlds()
    meter = FocusMeter(worlds, pointer.perception.num_heads, tolerance)
    best, distance = np.zeros(worlds), np.zeros(worlds)
    wanted = frames.places()
    pointer.eval()
    for part in _parts(len(frames.images)):
        world, masks = frames.worlds[part], np.asarray(frames.masks[part])
        with torch.no_grad():
            attention, places = pointer(torch.from_numpy(frames.images[part].copy()))
            covered = pointer.covered(torch.from_numpy(grow(masks, tolerance).copy()))
            meter.add(world, pointer.maps(attention).numpy(), masks)
        np.add.at(best, world, covered.flatten(1).amax(dim=1).numpy())
        np.add.at(distance, world, np.linalg.norm(places.numpy() - wanted[part], axis=1) * SIDE / 2)
    pointer.train()
    totals = meter.totals()
    frames_seen = totals.visible.astype(np.float64)
    return Score(totals, RatioOfSums(best, frames_seen), RatioOfSums(distance, frames_seen))


def loss_of(
    pointer: Pointer, images: Tensor, masks: Tensor, places: Tensor, supervise: Supervision
) -> Tensor:
    """The loss of a minibatch: images [B, 3, H, W], masks [B, H, W] and places [B, 2] of the target."""
    attention, found = pointer(images)
    loss: Tensor = (found - places).square().sum(dim=1).mean()
    if supervise == "map":
        # The head that has the most of it already: which one learns to point is left to the family.
        loss = loss - (pointer.mass(attention, masks) + MASS_FLOOR).log().mean(dim=0).max()
    return loss


class Trained(NamedTuple):
    """What a training ended with: the weights, and the head, that were best on the validation frames."""

    pointer: Pointer
    head: int
    steps: int
    seconds: float
    """Of one core."""
    best_steps: int
    """Steps after which the weights were best."""


def untrained(job: TrainJob, validation: Frames, seed: int = 0) -> Trained:
    """What `learn` begins with; validation chooses the head here too."""
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
    report: Callable[[Progressed], object] = lambda _: None,
) -> Trained:
    """Train until validation has not improved for `PATIENCE` looks at it, or the time is over."""
    torch.manual_seed(seed)
    pointer = Pointer(job.family)
    optimizer = torch.optim.Adam(pointer.parameters(), LEARNING_RATE)
    places = train.places()
    started, looked = time.process_time(), 0.0
    best: tuple[float, float] | None = None
    best_steps = head = steps = stale = 0
    weights: dict[str, Tensor] = {}
    for batch in _minibatches(len(train.images), np.random.default_rng(seed)):
        images, masks, wanted = (torch.from_numpy(a[batch]) for a in (train.images, train.masks, places))
        optimizer.zero_grad()
        loss_of(pointer, images, masks, wanted, job.supervise).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(pointer.parameters(), 1.0)
        optimizer.step()
        steps += 1
        over = time.process_time() - started + looked >= seconds
        if steps % CHECK_STEPS and not over:
            continue
        before = time.process_time()
        seen = score(pointer, validation)
        looked = time.process_time() - before
        index = seen.best_head()
        hits, error = seen.totals.pointing(index).value, seen.error.value
        # A uniform map's hits are always the same: there the place decides under both supervisions.
        merit = (hits if job.supervise == "map" else 0.0, -error)
        stale += 1
        if best is None or merit > best:
            best, best_steps, head, stale = merit, steps, index, 0
            weights = copy.deepcopy(pointer.state_dict())
        report(Progressed(steps, time.process_time() - started, hits, error))
        if over or stale == PATIENCE:
            break
    pointer.load_state_dict(weights)
    return Trained(pointer, head, steps, time.process_time() - started, best_steps)


def _minibatches(count: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Without end: pass after pass over `count` frames, each in a new order."""
    size = min(BATCH_SIZE, count)
    while True:
        order = rng.permutation(count)
        for first in range(0, count - size + 1, size):
            yield np.sort(order[first : first + size])


def _parts(count: int) -> Iterator[slice]:
    for first in range(0, count, BATCH_SIZE):
        yield slice(first, first + BATCH_SIZE)


def figures_of(trained: Trained, before: Trained, test: Frames) -> Figure:
    """The figures of a training, on the test frames; `before` is what it began with."""
    first = score(before.pointer, test).totals.pointing(before.head)
    figures: Figure = {"hits_untrained": _interval(first, "fraction of frames")}
    for tolerance, suffix in TOLERANCES.items():
        seen = score(trained.pointer, test, tolerance)
        figures[f"hits{suffix}"] = _interval(seen.totals.pointing(trained.head), "fraction of frames")
        figures[f"ceiling{suffix}"] = _report.figure(seen.ceiling.value, "fraction of frames")
    return figures | {
        "mass": _interval(seen.totals.mean_mass(trained.head), "fraction of the attention"),
        "position_error": _interval(seen.error, "pixels"),
        "seconds": _report.figure(trained.seconds, "seconds of one core"),
        "steps": _report.figure(trained.steps, "minibatches"),
        "best_steps": _report.figure(trained.best_steps, "minibatches"),
        "head": trained.head,
        "heads": trained.pointer.perception.num_heads,
        "uniform": trained.pointer.perception.uniform,
    }


def _interval(means: RatioOfSums, unit: str) -> Figure:
    """A figure with its 95 % interval: a bootstrap over worlds, whose frames resemble each other."""
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
    """Give the figures of each training as it ends: one process, with one thread, for each core."""
    columns = (
        TextColumn("[bold]{task.description:<22}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bars: dict[int, TaskID] = {}

        def show(place: int, state: Progressed | None) -> None:
            if state is None:  # it begins
                job = jobs[place]
                bars[place] = progress.add_task(
                    f"{job.family}, {job.supervise}", total=options.seconds, status=""
                )
            else:
                status = f"{state.steps:,} steps · {state.hits:.1%} hits · {state.error:.2f} px"
                progress.update(bars[place], completed=state.seconds, status=status)

        def end(place: int, result: Figure) -> None:
            if place in bars:
                progress.remove_task(bars[place])
            job = jobs[place]
            console.print(f"{job.family}, {job.supervise}: {_status(result)}", highlight=False)
            on_result(job, result)

        run_jobs(
            partial(_train_job, folder, options),
            jobs,
            usable_cores(),
            on_progress=show,
            on_result=end,
            on_error=lambda place, message: end(place, {"not measured": message}),
        )


def _train_job(folder: Path, options: Options, job: TrainJob, report_progress: ReportProgress) -> Figure:
    """Train in a separate process; report progress, and return its figures, or why there are none."""
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
        raise  # the other end was stopped
    except Exception as error:  # whatever keeps a family from learning is what the table says of it
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
    supervised, known = figures["supervised"], figures["references"]
    assert isinstance(supervised, dict) and isinstance(known, dict)
    for supervise, results in supervised.items():
        columns = ("hits, %", "95 %", "ceiling", "within 1 px", "before", "mass", "px off")
        title = f"supervised by {supervise}: the pointing game on the test frames"
        table = _report.figure_table("", *columns, title=title)
        measured = {name: result for name, result in sorted(results.items()) if "hits" in result}
        for name, result in measured.items():
            table.add_row(name, *_cells(result))
        table.add_row()
        for name, result in known.items():
            table.add_row(f"({name})", *_cells(result))
        console.print(table)
        for name, result in sorted(results.items()):
            if name not in measured:
                console.print(f"{name}: {_status(result)}", highlight=False, soft_wrap=True)
            elif result["uniform"]:
                console.print(f"{name}: its attention is uniform, so its hits are chance", highlight=False)


def _cells(result: Figure) -> list[str]:
    """A row of the table; empty where the result, such as a reference, has no such figure."""
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
