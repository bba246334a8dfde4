"""What an environment can do beyond Gymnasium's interface. Who offers it gets it used, whoever wrote it.

Environments are told apart by these abilities and by nothing else: no name, no namespace, no class. Each is a
method or two of a batch of environments (a Gymnasium `VectorEnv`), or of something below its wrappers. What
else is asked of it follows from what it gives: `target_mask`, bool (num_envs, H, W), among the infos of
`reset` and `step` is where the target is in the frames, and makes it possible to score attention.

| ability           | what it is used for                                                               |
|-------------------|-----------------------------------------------------------------------------------|
| `HasOracle`       | scores on a scale from 0, the random policy, to 1, the oracle                     |
| `HasState`        | a training that is resumed to the same bits; episodes that can be drawn again     |
| `HasView`         | with `HasState`: recorded episodes drawn again, larger or from another camera     |
| `HasInterventions`| whether actions and attention respond to the target alone                         |
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
    """Knows what to do."""

    def oracle_actions(self) -> NDArray[Any]:
        """A scripted expert's actions for the present states, [num_envs, ...]."""


@runtime_checkable
class HasState(Protocol):
    """Can be put back to where it was."""

    def get_state(self) -> State:
        """Everything that decides what happens next, as plain numeric arrays, [num_envs, ...] each."""

    def set_state(self, state: Any) -> None:
        """Return to a state that `get_state` gave; what follows is bit-identical."""


@runtime_checkable
class HasView(Protocol):
    """Can show the present from elsewhere."""

    def view(
        self, camera: str | None = None, image_size: int | Sequence[int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The present scene from a named camera, at a size in pixels; None for the policy's.

        Returns:
            rgb uint8 [num_envs, H, W, 3], and where the target is seen, bool [num_envs, H, W].
        """


@runtime_checkable
class HasInterventions(Protocol):
    """Can show what would be seen if one thing were otherwise."""

    def render_counterfactual(self, what: Thing, **edit: Any) -> Mapping[str, NDArray[Any]]:
        """The present frames with one thing changed, and nothing else, now or later.

        Args:
            what: the target, or a distractor of the environment's choice.
            **edit: one of `shift=(right, up)` in heights of the frame, `rgba=(r, g, b, a)` in [0, 1], and
                `removed=True`.

        Returns:
            `image` [num_envs, H, W, C]; and where things are seen, bool [num_envs, H, W]: `before` the thing
            as it is (nowhere in a world that has none), `after` the thing changed, `target` the target as it
            is, `target_after` the target in `image`.
        """


T = TypeVar("T")


def ability(env: Any, protocol: Callable[..., T]) -> T | None:
    """What offers an ability among an environment and all that its wrappers wrap, outermost first.

    Args:
        env: a batch of environments, wrapped or not. Below one of Stable-Baselines3 nothing is looked for:
            its frames are not those that the environment gives.
        protocol: one of the abilities.

    Returns:
        What has the ability's methods; None where nothing has.
    """
    methods = [name for name in vars(protocol) if not name.startswith("_")]
    layer = env
    while not all(callable(getattr(layer, name, None)) for name in methods):
        below = layer.env if isinstance(layer, (gymnasium.Wrapper, VectorWrapper)) else layer.unwrapped
        if below is layer:
            return None
        layer = below
    return cast("T", layer)
