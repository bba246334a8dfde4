"""Optional capabilities of environments beyond Gymnasium's interface.

An environment that has the methods of a protocol gets the corresponding features; names,
namespaces and classes do not matter. The methods belong to a batch of environments (a Gymnasium `VectorEnv`)
or to a layer below its wrappers. One more capability needs no protocol: `target_mask`, bool [num_envs, H, W],
in the infos of `reset` and `step` marks the target in the frames, so that attention can be scored.

| protocol           | used for                                                                        |
|--------------------|---------------------------------------------------------------------------------|
| `HasOracle`        | scores from 0 (random policy) to 1 (oracle)                                     |
| `HasState`         | bit-identical resuming of training; re-rendering of recorded episodes           |
| `HasView`          | with `HasState`: re-rendering at another size or from another camera            |
| `HasInterventions` | testing whether actions and attention respond to the target alone               |
| `HasActionMasks`   | playing policies of MaskablePPO                                                 |
| `HasThings`        | with `things` in the infos: attention mass on each object, the robot, the rest  |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

import gymnasium
import numpy as np
from gymnasium.vector import VectorWrapper
from numpy.typing import NDArray

Thing: TypeAlias = Literal["target", "distractor"]
State: TypeAlias = Mapping[str, NDArray[Any]]


@runtime_checkable
class HasOracle(Protocol):
    """Has a scripted expert."""

    def oracle_actions(self) -> NDArray[Any]:
        """Return the expert's actions for the current states, [num_envs, ...]."""


@runtime_checkable
class HasState(Protocol):
    """Can save and restore its state."""

    def get_state(self) -> State:
        """Return the complete state as numeric arrays, each [num_envs, ...]."""

    def set_state(self, state: Any) -> None:
        """Restore a state of `get_state`, so that everything after it is bit-identical."""


@runtime_checkable
class HasView(Protocol):
    """Can render the current scene at any size and from any camera."""

    def view(
        self, camera: str | None = None, image_size: int | Sequence[int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Render the current scene.

        Args:
            camera: name of the camera; None for the policy's.
            image_size: size in pixels, one number or (H, W); None for the policy's.

        Returns:
            RGB frames, uint8 [num_envs, H, W, 3], and target masks, bool [num_envs, H, W].
        """


@runtime_checkable
class HasInterventions(Protocol):
    """Can render counterfactual frames."""

    def render_counterfactual(self, what: Thing, **edit: Any) -> Mapping[str, NDArray[Any]]:
        """Render the current scene with one object changed; the simulation itself is not changed.

        Args:
            what: the target, or a distractor that the environment chooses.
            **edit: one of `shift=(right, up)` in frame heights, `rgba=(r, g, b, a)` in [0, 1], and
                `removed=True`.

        Returns:
            `image` [num_envs, H, W, C], and masks, bool [num_envs, H, W]: `before`, the object in the
            unchanged frame (empty in a world without it); `after`, the object in `image`; `target`, the
            target in the unchanged frame; `target_after`, the target in `image`. With several cameras, these
            are of the first one, and the frames of each follow by its key in observations, the first's first.
        """


@runtime_checkable
class HasActionMasks(Protocol):
    """Knows which actions are allowed."""

    def action_masks(self) -> NDArray[np.bool_]:
        """Return bool [num_envs, A], True for the actions that are allowed now.

        A is the number of choices of a discrete action; for several, the sum of the numbers of choices.
        """


@runtime_checkable
class HasThings(Protocol):
    """Labels what every pixel shows: its infos have `things`, uint8 [num_envs, H, W].

    Attributes:
        thing_names: what each label stands for: "backdrop", "target", "robot", "occluder", "distractor 1" and
            so on; the same in all episodes.
    """

    thing_names: tuple[str, ...]

    def describe_things(self) -> list[tuple[str, ...]]:
        """Describe each label in each environment's running episode, such as "red sphere"; "" if absent."""


T = TypeVar("T")


def ability(env: Any, protocol: Callable[..., T]) -> T | None:
    """Find the outermost layer of a wrapped environment that has the methods of a protocol.

    Args:
        env: a batch of environments, wrapped or not. Layers below an environment of Stable-Baselines3 are
            ignored, since its frames differ from theirs.
        protocol: one of the protocols.

    Returns:
        The layer; None if no layer has the methods.
    """
    methods = [name for name in vars(protocol) if not name.startswith("_")]
    layer = env
    while not all(callable(getattr(layer, name, None)) for name in methods):
        below = layer.env if isinstance(layer, (gymnasium.Wrapper, VectorWrapper)) else layer.unwrapped
        if below is layer:
            return None
        layer = below
    return cast("T", layer)
