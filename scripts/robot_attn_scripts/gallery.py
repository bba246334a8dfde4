"""Draw every task under every visual shift and intensity."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs import TASKS
from robot_attn_envs.tasks.instructions import InstructionOption
from robot_attn_envs.worlds import MIN_SIZE
from robot_attn_scripts._tasks import env_id
from robot_attn_scripts.options.gallery import Options

SHOWN = 256
"""Width of a view on a task's sheet in pixels: smaller frames are enlarged, in whole steps, up to it."""
SCREEN = "screen"
"""The caption of views of which some are to hide the target."""
COMPACT = 112
"""Width of a view on the compact sheet in pixels."""
CROSSINGS = 3
"""How often the screen crosses: its first time is then early, before an oracle has done its task."""
TRIED = 8
"""Episodes that are tried for each that is shown, to find those that show the target, or hide it."""
AROUND = 5
"""Steps before the target is hidden, and after, that are shown too."""


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
    screened: bool
    """Whether the screen is in view and the target is not."""


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

    chosen = map(env_id, options.tasks) if options.tasks else TASKS
    ids = {gymnasium.spec(name).name.lower(): name for name in chosen}

    scenes = everything(options.intensities) if options.sheet is None else strongest(options.intensities)
    drawn: dict[str, list[Cell]] = {task: [] for task in ids}
    work = [(task, scene) for task in ids for scene in scenes]
    for task, scene in track(work, "drawing", console=Console(stderr=True), transient=True):
        drawn[task] += draw_scene(ids[task], scene, options)

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
        path.parent.mkdir(parents=True, exist_ok=True)
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
    instruction = scene.options.get("instruction", False)
    seeds: Sequence[int]
    seeds = in_sight(name, len(options.intensities), options.seed, options.steps, instruction)[: scene.views]
    if "occluders" in scene.options:
        seeds = range(options.seed, options.seed + TRIED)
        episodes = record_episodes(name, seeds, None, options.size, scene.options)
        return [(scene.caption, moment) for moment in hiding(episodes, scene.views)]
    episodes = record_episodes(name, seeds, options.steps, options.size, scene.options)
    return [(scene.caption + moment.words, moment) for moment in map(typical, episodes)]


@cache
def in_sight(
    name: str, count: int, first: int, steps: int, instruction: InstructionOption
) -> tuple[int, ...]:
    """`count` seeds from `first` on, those first whose episode without a shift shows the target at some time.

    A shift has no say in it: one under which the target is never seen is to be found out.
    """
    seeds = range(first, first + TRIED * count)
    episodes = record_episodes(name, seeds, steps, MIN_SIZE, {"instruction": instruction})
    shown = [any(moment.target.any() for moment in episode) for episode in episodes]
    return tuple(sorted(seeds, key=lambda seed: not shown[seed - first])[:count])


def record_episodes(
    name: str, seeds: Sequence[int], steps: int | None, size: int, scene: dict[str, Any]
) -> list[list[Moment]]:
    """An episode of each seed, in which the oracle acts: the first of its moments, or all for None."""
    batch: Any = gymnasium.make_vec(name, num_envs=len(seeds), masks=True, image_size=size, **scene)
    episodes: list[list[Moment]] = [[] for _ in seeds]
    running = np.ones(len(seeds), np.bool_)
    with closing(batch):
        observation, infos = batch.reset(seed=list(seeds))
        words = infos.get("instruction", [""] * len(seeds))
        worlds, screen = batch.worlds, -2  # no geom, and not the -1 of none
        if "occluders" in scene:
            screen = worlds.model.geom("screen").id
        for _ in range(1 + (batch.horizon if steps is None else steps)):
            screened = (worlds.camera.geom_id == screen).any(axis=(1, 2)) & ~infos["target_visible"]
            for world in np.flatnonzero(running).tolist():
                frame, target = observation["image"][world], infos["target_mask"][world]
                episodes[world].append(Moment(frame, target, words[world], bool(screened[world])))
            observation, _, terminated, truncated, infos = batch.step(batch.oracle_actions())
            running &= ~(terminated | truncated)
            if not running.any():
                break
    return episodes


def typical(episode: Sequence[Moment]) -> Moment:
    """The moment at which the target is of middling size among those that show it; the first if none does."""
    seen = [moment for moment in episode if moment.target.any()]
    seen.sort(key=lambda moment: int(moment.target.sum()))
    return seen[len(seen) // 2] if seen else episode[0]


def hiding(episodes: Sequence[Sequence[Moment]], count: int) -> list[Moment]:
    """`count` moments evenly from before to after the screen hides the target for the longest time.

    One after which the episode goes on is preferred. Where there is none they are from all of the first.
    """
    from robot_attn.stretches import stretches_of

    stretches = []
    for episode in episodes:
        for start, stop in stretches_of(np.array([moment.screened for moment in episode])):
            stretches.append(((stop < len(episode), stop - start), start, stop, episode))
    whole = (False, 0), 0, len(episodes[0]), episodes[0]
    _, start, stop, episode = max(stretches, default=whole, key=lambda stretch: stretch[0])
    shown = np.linspace(max(0, start - AROUND), min(len(episode), stop + AROUND) - 1, count)
    return [episode[round(step)] for step in shown]


def _write(path: Path, cells: Sequence[Cell], columns: int, options: Options) -> None:
    from robot_attn.drawing import contact_sheet, draw_outline, find_outline, scale_frame, write_png

    side = COMPACT if options.sheet is not None else options.size * max(1, SHOWN // options.size)
    pictures = []
    for _, moment in cells:
        picture = scale_frame(moment.frame, (side, side))
        if options.outline:
            draw_outline(picture, find_outline(moment.target, (side, side)), 1)
        pictures.append(picture)
    captions = [caption for caption, _ in cells]
    title = f"{path.stem}   seed {options.seed}"
    write_png(path, contact_sheet(pictures, captions, columns=columns, title=title))
