"""Show what each camera of a MuJoCo environment sees, and what in it can be named."""

from __future__ import annotations

from contextlib import closing
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from robot_attn.drawing import Image, contact_sheet, draw_text, write_png
from robot_attn_envs import TASKS
from robot_attn_envs.anymujoco.cameras import camera_names
from robot_attn_envs.anymujoco.frames import SceneFrames
from robot_attn_envs.anymujoco.simulation import simulation
from robot_attn_envs.anymujoco.things import Thing, find_thing, nameable
from robot_attn_scripts import _loaded_run, _report
from robot_attn_scripts._mujoco_cameras import split_options
from robot_attn_scripts._name_value import parse_pairs
from robot_attn_scripts._tasks import creation_errors, creator_of, env_id
from robot_attn_scripts.options.cameras import Options

MAX_LABELS = 14
"""Names on a picture, those of the largest."""
LABEL = 0.42
"""Scale of the font of the names."""


class Look(NamedTuple):
    """A camera's first frame of an episode.

    Attributes:
        frame: uint8 [H, W, 3] RGB.
        geom_id: what is in each pixel, int32 [H, W], as in `SceneFrames`.
    """

    frame: Image
    geom_id: NDArray[np.int32]


def run(options: Options) -> dict[str, object]:
    """Draw the sheet, print the table, write the JSON file of --json, and return the figures.

    Raises:
        ValueError: the environment is unknown, cannot be made, has no MuJoCo model or cannot be drawn.
    """
    _loaded_run.import_modules(options.module)
    name = env_id(options.task)
    if name in TASKS:
        raise ValueError(
            f"expected an environment that is not one of robot-attn's tasks, got {name}: its target is "
            "chosen by the task, and `robot-attn gallery` draws it"
        )
    own = split_options(creator_of(name), parse_pairs(options.env)).own
    with creation_errors(name, own):
        env: gymnasium.Env[Any, Any] = gymnasium.make(name, **own)
    with closing(env):
        model, _ = simulation(env)
        things = {pair: find_thing(model, ":".join(pair)) for pair in nameable(model)}
        cameras = {camera: _look(env, camera, options) for camera in camera_names(model)}
    covers = {
        pair: {camera: _cover(thing, look) for camera, look in cameras.items()}
        for pair, thing in things.items()
    }
    pictures = [_labelled(look, things) for look in cameras.values()]
    sheet = contact_sheet(
        pictures,
        list(cameras),
        columns=2,
        most_width=options.size,
        title=f"{name}   seed {options.seed}",
    )
    write_png(options.out, sheet)
    figures: dict[str, object] = {
        "environment": name,
        "seed": options.seed,
        "cameras": list(cameras),
        "things": [
            {
                "kind": kind,
                "name": thing,
                "cover": {
                    camera: _report.figure(share, "fraction of the frame") for camera, share in row.items()
                },
            }
            for (kind, thing), row in covers.items()
        ],
    }
    _show(name, covers, list(cameras), Console())
    Console().print(f"  {options.out}", highlight=False, soft_wrap=True)
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures


def _look(env: gymnasium.Env[Any, Any], camera: str, options: Options) -> Look:
    """Draw the first frame of an episode from a camera."""
    env.reset(seed=0)  # places the free camera, as in training
    sites = [f"site:{name}" for kind, name in nameable(simulation(env)[0]) if kind == "site"]
    frames = SceneFrames([env], camera=camera, image_size=options.size, backdrop=sites)  # faint ones too
    env.reset(seed=options.seed)
    frames.begin_episodes(np.arange(1), [[0]])
    frames.draw(np.zeros(1, np.int64))
    frames.close()
    return Look(frames.rgb[0, 0].copy(), frames.geom_id[0, 0].copy())


def _cover(thing: Thing, look: Look) -> float:
    return float(np.isin(look.geom_id, thing.geoms).mean())


def _labelled(look: Look, things: dict[tuple[str, str], Thing]) -> Image:
    """Write the names of bodies and sites where they can be read, the largest first, where there is room."""
    picture = look.frame.copy()
    masks = {
        name: np.isin(look.geom_id, thing.geoms) for (kind, name), thing in things.items() if kind != "geom"
    }
    taken: list[tuple[float, float, float]] = []
    for name in sorted(masks, key=lambda name: -masks[name].sum()):
        if not masks[name].any() or len(taken) == MAX_LABELS:
            break
        y, x = np.argwhere(masks[name]).mean(axis=0)
        half = 4.0 * len(name)
        if any(abs(y - row) < 14 and abs(x - column) < half + other for row, column, other in taken):
            continue
        taken.append((y, x, half))
        draw_text(picture, name, x + 1, y + 1, LABEL, (0, 0, 0), anchor="middle")
        draw_text(picture, name, x, y, LABEL, (255, 255, 255), anchor="middle")
    return picture


def _show(
    name: str, covers: dict[tuple[str, str], dict[str, float]], cameras: list[str], console: Console
) -> None:
    """Print how much of each frame everything that has a name covers, the largest first."""
    table = _report.figure_table("kind", "name", *cameras, title=f"{name}: % of the frame", left=2)
    for (kind, thing), row in sorted(covers.items(), key=lambda item: -max(item[1].values())):
        cells = [f"{100 * share:.2f}" if share else "-" for share in row.values()]
        table.add_row(kind, thing, *cells)
    console.print(table, highlight=False)
    if not covers:
        console.print("Nothing in this model has a name, so there is no target to choose.", style="yellow")
