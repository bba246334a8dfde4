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
from robot_attn_envs.image_size import MIN_SIZE
from robot_attn_envs.tasks.instructions import InstructionOption
from robot_attn_scripts._tasks import env_id
from robot_attn_scripts.options.gallery import Options

SHOWN = 256
"""Width of a view on a task's sheet in pixels. Smaller frames are enlarged by a whole factor, up to it."""
SCREEN = "screen"
"""Caption of the views with an occluder, some of which do not show the target."""
COMPACT = 112
"""Width of a view on the compact sheet in pixels."""
CROSSINGS = 3
"""Crossings of the screen in an episode: the first is then early, before the oracle has finished the task."""
TRIED = 8
"""Episodes to search, for each one shown, for a target that is visible, or hidden by the screen."""
AROUND = 5
"""Steps to show before and after the target is hidden."""


@dataclass(frozen=True)
class Scene:
    """The scene of one or several views.

    Args:
        caption: caption of the views.
        options: options of the environment.
        views: number of views: one for each episode, or with a screen all from one episode.
    """

    caption: str
    options: dict[str, Any] = field(default_factory=dict)
    views: int = 1


class Moment(NamedTuple):
    """A step of an episode.

    Attributes:
        frame: the policy's camera frame, uint8 [H, W, 3] RGB.
        target: mask of the visible target, bool [H, W].
        words: the instruction, or "".
        screened: whether the screen is in view and the target is not.
    """

    frame: NDArray[np.uint8]
    target: NDArray[np.bool_]
    words: str
    screened: bool


Cell = tuple[str, Moment]
"""Caption and view."""


def run(options: Options) -> list[Path]:
    """Draw the sheets and return their paths. Also print the paths and the views without a visible target.

    Raises:
        ValueError: a task is unknown.
        OSError: a sheet cannot be written.
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
    """List the scenes of a task's sheet, row by row."""
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
    """List the scenes of a task's row on the compact sheet."""
    from robot_attn_envs.shifts import SHIFTS

    shifts = [Scene(shift, {"shift": shift, "intensity": max(intensities)}) for shift in SHIFTS]
    return [Scene("no shift"), *shifts, Scene("hard", {"suite": "hard"})]


def draw_scene(name: str, scene: Scene, options: Options) -> list[Cell]:
    """Draw the views of a scene."""
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
    """Choose seeds whose episode without a shift shows the target at some step, as far as there are any.

    Episodes under a shift are not considered, so that a shift that hides the target shows up in the sheet.

    Args:
        name: id of the task.
        count: number of seeds to choose.
        first: first seed to consider.
        steps: steps of an episode to consider.
        instruction: whether the task has a language instruction.

    Returns:
        The seeds, those that show the target first.
    """
    seeds = range(first, first + TRIED * count)
    episodes = record_episodes(name, seeds, steps, MIN_SIZE, {"instruction": instruction})
    shown = [any(moment.target.any() for moment in episode) for episode in episodes]
    return tuple(sorted(seeds, key=lambda seed: not shown[seed - first])[:count])


def record_episodes(
    name: str, seeds: Sequence[int], steps: int | None, size: int, scene: dict[str, Any]
) -> list[list[Moment]]:
    """Run the oracle for one episode per seed; return the steps up to `steps`, or all of them for None."""
    batch: Any = gymnasium.make_vec(name, num_envs=len(seeds), masks=True, image_size=size, **scene)
    episodes: list[list[Moment]] = [[] for _ in seeds]
    running = np.ones(len(seeds), np.bool_)
    with closing(batch):
        observation, infos = batch.reset(seed=list(seeds))
        words = infos.get("instruction", [""] * len(seeds))
        worlds, screen = batch.worlds, -2  # neither a geom nor the background, which is -1
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
    """Choose the step with the median size of the target, among those that show it; else the first step."""
    visible = [moment for moment in episode if moment.target.any()]
    visible.sort(key=lambda moment: int(moment.target.sum()))
    return visible[len(visible) // 2] if visible else episode[0]


def hiding(episodes: Sequence[Sequence[Moment]], count: int) -> list[Moment]:
    """Choose evenly spaced steps from before to after the longest time for which the screen hides the target.

    Times after which the episode continues are preferred. If the target is never hidden, the steps are from
    the whole first episode.
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
