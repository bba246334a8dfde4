"""Stored episodes drawn again, from the simulator's states in them: at any size, from any camera."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from robot_attn_policies.rollouts.protocols import HasState, HasView, ability
from robot_attn_scripts._tasks import explained, spec_steps_many

if TYPE_CHECKING:
    from robot_attn.episode import Episode

MOST_WORLDS = 32
MOST_PIXELS = 1 << 23  # of the frames that are drawn together
NOT_SCENE = ("num_envs", "masks", "threads", "device", "render_mode", "depth")
"""Options of an environment that say nothing of what a frame shows."""
CANNOT = "cannot go back to a state and be seen from elsewhere (`set_state` and `view`)"
SAME_SCENE = 1.0  # of 255, in the mean over a frame: how far apart two machines may draw it


class Redrawn(NamedTuple):
    """An episode's frames, drawn again."""

    images: NDArray[np.uint8]
    """[T, H, W, 3] RGB."""
    target_masks: NDArray[np.bool_]
    """[T, H, W], True on the target."""


def redraw(
    episode: Episode, *, image_size: int | Sequence[int] | None = None, camera: str | None = None
) -> Redrawn:
    """Put the environment of an episode back into every step, and draw it.

    With the episode's own size and camera these are the stored frames, bit for bit.

    Args:
        episode: of a task that can go back to a state, and show it from elsewhere, as ours can.
        image_size: side of the square frames in pixels, or (height, width), each from 32 to 2048; None for
            the episode's own.
        camera: its name in the model; None for the policy's own.

    Raises:
        ValueError: the episode's task is not known here, cannot do that, or shows other frames here than
            those recorded; no such camera, those that there are named; or a size out of its range.
    """
    name = episode.env_args.get("env_name")
    known = gymnasium.registry.get(name) if isinstance(name, str) else None
    # What a file names is looked up and never imported.
    if known is None:
        raise _only_stored(f"its environment, {name!r}, is not registered here")
    if not spec_steps_many(known):
        raise _only_stored(f"its environment, {name!r}, {CANNOT}")
    if not episode.simulator:
        raise _only_stored("it holds no states of the simulator")
    options = dict(episode.env_args.get("env_kwargs") or {})
    options = {option: value for option, value in options.items() if option not in NOT_SCENE}
    size = episode.image_size if image_size is None else image_size
    height, width = (size, size) if isinstance(size, int) else size
    steps = len(episode)
    worlds = max(1, min(MOST_WORLDS, steps, MOST_PIXELS // max(1, height * width)))
    try:
        with explained(known.id, options):
            env: Any = gymnasium.make_vec(known.id, num_envs=worlds, **options)
    except ValueError as error:
        raise _only_stored(f"its environment, {name}, cannot be made here: {error}") from error
    drawn = []
    with closing(env):
        simulator, eye = ability(env, HasState), ability(env, HasView)
        if simulator is None or eye is None:
            raise _only_stored(f"its environment, {name!r}, {CANNOT}")
        for first in range(0, steps, worlds):
            rows = np.minimum(np.arange(first, first + worlds), steps - 1)
            try:
                simulator.set_state({part: array[rows, 0] for part, array in episode.simulator.items()})
                seen, _ = eye.view()
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise _only_stored(f"its states are not those of {name} as it is here: {error}") from error
            if not _same_scene(seen, episode.images[rows]):
                raise _only_stored(f"{name} shows other frames here than those that were recorded")
            drawn.append(eye.view(camera, size))
    images, masks = (np.concatenate(parts)[:steps] for parts in zip(*drawn, strict=True))
    return Redrawn(images, masks)


def _same_scene(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two batches of frames are equal but for what another machine's arithmetic may change."""
    if one.shape != other.shape:
        return False
    return bool((np.abs(one.astype(np.int16) - other).mean(axis=(1, 2, 3)) <= SAME_SCENE).all())


def _only_stored(why: str) -> ValueError:
    return ValueError(
        f"the episode cannot be drawn again, since {why}: draw its stored frames, without a camera or size"
    )
