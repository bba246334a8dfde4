"""Render a stored episode again from its simulator states, at any size and from any camera."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from robot_attn_policies.rollouts.protocols import HasState, HasView, ability
from robot_attn_scripts._tasks import creation_errors, spec_steps_many

if TYPE_CHECKING:
    from robot_attn.episode import Episode

MOST_WORLDS = 32
MOST_PIXELS = 1 << 23  # of the frames that are rendered in one batch
NOT_SCENE = ("num_envs", "masks", "threads", "device", "render_mode", "depth")
"""Options of an environment that do not affect what a frame shows."""
CANNOT = "cannot return to a state and render it from another camera (`set_state` and `view`)"
SAME_SCENE = 1.0  # largest mean difference of a frame, of 255: processors differ in rounding


class Redrawn(NamedTuple):
    """Frames of an episode, rendered again.

    Attributes:
        images: uint8 [T, H, W, 3] RGB.
        target_masks: bool [T, H, W], True on the target.
    """

    images: NDArray[np.uint8]
    target_masks: NDArray[np.bool_]


def redraw(
    episode: Episode, *, image_size: int | Sequence[int] | None = None, camera: str | None = None
) -> Redrawn:
    """Set the environment of an episode to the state of every step and render it.

    With the episode's own size and camera, the result equals the stored frames bit for bit.

    Args:
        episode: episode of a task that can return to a state and render it from any camera, as ours can.
        image_size: side of square frames in pixels, or (height, width), each from 32 to 2048. Default: the
            episode's size.
        camera: name of a camera in the model. Default: the policy's camera.

    Raises:
        ValueError: the episode's task is unknown, cannot do this, or does not reproduce the stored frames; or
            the camera is unknown; or the size is out of range.
    """
    name = episode.env_args.get("env_name")
    known = gymnasium.registry.get(name) if isinstance(name, str) else None
    # A name from a file is only looked up: importing a module would run its code.
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
        with creation_errors(known.id, options):
            env: Any = gymnasium.make_vec(known.id, num_envs=worlds, **options)
    except ValueError as error:
        raise _only_stored(f"its environment, {name}, cannot be made here: {error}") from error
    drawn = []
    with closing(env):
        simulator, camera_view = ability(env, HasState), ability(env, HasView)
        if simulator is None or camera_view is None:
            raise _only_stored(f"its environment, {name!r}, {CANNOT}")
        for first in range(0, steps, worlds):
            rows = np.minimum(np.arange(first, first + worlds), steps - 1)
            try:
                simulator.set_state({part: array[rows, 0] for part, array in episode.simulator.items()})
                frames, _ = camera_view.view()
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise _only_stored(f"its states are not those of {name} as it is here: {error}") from error
            if not _same_scene(frames, episode.images[rows]):
                raise _only_stored(f"{name} renders other frames here than those that were recorded")
            drawn.append(camera_view.view(camera, size))
    images, masks = (np.concatenate(parts)[:steps] for parts in zip(*drawn, strict=True))
    return Redrawn(images, masks)


def _same_scene(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Return whether two batches of frames, uint8 [B, H, W, 3], are equal up to rounding."""
    if one.shape != other.shape:
        return False
    return bool((np.abs(one.astype(np.int16) - other).mean(axis=(1, 2, 3)) <= SAME_SCENE).all())


def _only_stored(why: str) -> ValueError:
    return ValueError(
        f"the episode cannot be rendered again, since {why}: draw its stored frames, without --camera and "
        "--image-size"
    )
