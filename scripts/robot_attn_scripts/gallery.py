"""Draw every task under every visual shift and intensity, so that a person can judge what is recognisable.

Writes a sheet for each task: views without a shift, then a row for each shift with a column for each
intensity, all of the episode at the top left; then further episodes with each suite of shifts, with
instructions and their words, and one in which a screen hides the target. `index.png` shows all tasks without
shifts. The scripted oracle acts, and of each episode the step is shown at which most of the target is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs import TASKS
from robot_attn_scripts import _report
from robot_attn_scripts._tasks import env_id

SHOWN = 256
"""Width of a view on a task's sheet in pixels: smaller frames are enlarged, in whole steps, up to it."""
SCREEN = "screen"
"""The caption of views of which some are to hide the target."""
COMPACT = 128
"""Width of a view on the compact sheet in pixels."""
CROSSINGS = 3
"""How often the screen crosses: its first time is then early, before an oracle has done its task."""
AROUND = 5
"""Steps before the target is hidden, and after, that are shown too."""


@dataclass(frozen=True)
class Options:
    """What to draw, and where to."""

    tasks: tuple[str, ...] = ()
    """Tasks to draw, by default all."""
    out: Path = Path("gallery")
    """Folder for the sheets."""
    sheet: Path | None = None
    """Write one compact sheet here instead, a .png: a row a task, each shift at the greatest intensity."""
    intensities: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """Of each shift, from 0 to 1. Rows without an intensity show as many episodes instead."""
    size: int = 128
    """Side of the frames in pixels."""
    seed: int = 0
    """Seed of the first episode; the others have those that follow."""
    steps: int = 40
    """Control steps of an episode from which the one that is shown is taken."""
    outline: bool = False
    """Draw a thin outline around the target."""


@dataclass(frozen=True)
class Scene:
    """What one or several views show."""

    caption: str
    options: dict[str, Any] = field(default_factory=dict)
    """Of the environment."""
    views: int = 1
    """Episodes; where a screen crosses, moments of one."""


class Moment(NamedTuple):
    """A step of an episode."""

    frame: NDArray[np.uint8]
    """[H, W, 3], what the policy sees."""
    target: NDArray[np.bool_]
    """[H, W], where it sees the target."""
    words: str
    """The instruction, or ""."""


Cell = tuple[str, Moment]
"""A view with its caption."""


def run(options: Options) -> list[Path]:
    """Draw the sheets, print their paths and which views do not show the target; return the paths.

    Raises:
        ValueError: an unknown task, or an option out of its range.
        OSError: the sheets cannot be written.
    """
    from rich.console import Console
    from rich.progress import track

    if not options.intensities or options.steps < 0:
        raise ValueError("--intensities names one at least, and --steps is 0 or more")
    if options.sheet is not None and options.sheet.suffix.lower() != ".png":
        raise ValueError(f"--sheet is a picture whose name ends in .png, got {options.sheet}")
    ids = [env_id(task) for task in options.tasks] or list(TASKS)
    _report.check_writable(options.sheet or options.out / "index.png")

    scenes = everything(options.intensities) if options.sheet is None else strongest(options.intensities)
    drawn: dict[str, list[Cell]] = {gymnasium.spec(name).name.lower(): [] for name in ids}
    work = [(name, cells, scene) for name, cells in zip(ids, drawn.values(), strict=True) for scene in scenes]
    for name, cells, scene in track(work, "drawing", console=Console(stderr=True), transient=True):
        cells += draw_scene(name, scene, options)

    if options.sheet is None:
        columns = len(options.intensities)
        sheets = {options.out / f"{task}.png": cells for task, cells in drawn.items()}
        sheets[options.out / "index.png"] = [
            (task, moment) for task, cells in drawn.items() for _, moment in cells[:columns]
        ]
    else:
        columns = len(scenes)
        rows = [[(task, cells[0][1]), *cells[1:]] for task, cells in drawn.items()]
        sheets = {options.sheet: [cell for row in rows for cell in row]}
    console = Console()
    for path, cells in sheets.items():
        _write(path, cells, columns, options)
        console.print(str(path), highlight=False, soft_wrap=True)
    for task, cells in drawn.items():
        for caption, moment in cells:
            if not moment.target.any() and caption != SCREEN:
                console.print(f"{task}, {caption}: the target is out of sight", highlight=False)
    return list(sheets)


def everything(intensities: Sequence[float]) -> list[Scene]:
    """All that a task can look like, row by row."""
    from robot_attn_envs.shifts import SHIFTS, SUITES

    views = len(intensities)
    return [
        Scene("no shift", views=views),
        *(
            Scene(f"{shift} {intensity:g}", {"shift": shift, "intensity": intensity})
            for shift in SHIFTS
            for intensity in intensities
        ),
        *(Scene(suite, {"suite": suite}, views) for suite in SUITES),
        Scene("", {"instruction": True}, views),
        Scene("held out: ", {"instruction": "held_out"}, views),
        Scene(SCREEN, {"occluders": CROSSINGS}, views),
    ]


def strongest(intensities: Sequence[float]) -> list[Scene]:
    """The row of a task on the compact sheet."""
    from robot_attn_envs.shifts import SHIFTS

    shifts = [Scene(shift, {"shift": shift, "intensity": max(intensities)}) for shift in SHIFTS]
    return [Scene("no shift"), *shifts, Scene("hard", {"suite": "hard"})]


def draw_scene(name: str, scene: Scene, options: Options) -> list[Cell]:
    """The scene's views."""
    seeds = range(options.seed, options.seed + scene.views)
    if "occluders" in scene.options:
        episodes = record(name, seeds, None, options.size, scene.options)
        return [(scene.caption, moment) for moment in hiding(episodes, scene.views)]
    episodes = record(name, seeds, options.steps, options.size, scene.options)
    clearest = [max(episode, key=lambda moment: int(moment.target.sum())) for episode in episodes]
    return [(scene.caption + moment.words, moment) for moment in clearest]


def record(
    name: str, seeds: Sequence[int], steps: int | None, size: int, scene: dict[str, Any]
) -> list[list[Moment]]:
    """An episode of each seed, in which the oracle acts: the first of its moments, or all for None."""
    batch: Any = gymnasium.make_vec(name, num_envs=len(seeds), masks=True, image_size=size, **scene)
    episodes: list[list[Moment]] = [[] for _ in seeds]
    running = np.ones(len(seeds), np.bool_)
    with closing(batch):
        observation, infos = batch.reset(seed=list(seeds))
        words = infos.get("instruction", [""] * len(seeds))
        for _ in range(1 + (batch.horizon if steps is None else steps)):
            for world in np.flatnonzero(running).tolist():
                moment = Moment(observation["image"][world], infos["target_mask"][world], words[world])
                episodes[world].append(moment)
            observation, _, terminated, truncated, infos = batch.step(batch.oracle_actions())
            running &= ~(terminated | truncated)
    return episodes


def hiding(episodes: Sequence[Sequence[Moment]], count: int) -> list[Moment]:
    """`count` moments evenly from before to after the longest time for which a target is hidden."""
    stretches = [(0, len(episode), episode) for episode in episodes[:1]]
    for episode in episodes:
        hidden = np.array([False, *(not moment.target.any() for moment in episode), False])
        edges = np.flatnonzero(np.diff(hidden)).reshape(-1, 2)
        stretches += [(int(start), int(stop), episode) for start, stop in edges]
    start, stop, episode = max(stretches[1:], default=stretches[0], key=lambda each: each[1] - each[0])
    shown = np.linspace(max(0, start - AROUND), min(len(episode), stop + AROUND) - 1, count)
    return [episode[round(step)] for step in shown]


def _write(path: Path, cells: Sequence[Cell], columns: int, options: Options) -> None:
    from robot_attn.overlay import contact_sheet, draw_outline, find_outline, scale_frame, write_png

    side = COMPACT if options.sheet is not None else options.size * max(1, SHOWN // options.size)
    pictures = []
    for _, moment in cells:
        picture = scale_frame(moment.frame, (side, side))
        if options.outline:
            draw_outline(picture, find_outline(moment.target, (side, side)), 1)
        pictures.append(picture)
    captions = [caption for caption, _ in cells]
    write_png(path, contact_sheet(pictures, captions, columns=columns))
