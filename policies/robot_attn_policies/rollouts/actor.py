"""Actors: what maps observations to actions in a rollout, and what an actor can do besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from robot_attn import Percept
from robot_attn_policies.sb3.context import NO_CONTEXT, Context

ObservationBatch: TypeAlias = NDArray[Any] | Mapping[str, NDArray[Any]]
"""Observations of N environments as the environment returns them: [N, ...], or a mapping of such arrays."""

Actor: TypeAlias = Callable[[ObservationBatch], tuple[NDArray[Any], Percept | None]]
"""Maps a batch of observations to actions [N, ...] and, for a policy with attention, its `Percept`."""


@runtime_checkable
class StartsSteps(Protocol):
    """An actor that prepares itself for each step of a rollout."""

    def start_step(self, env: Any, first: NDArray[np.bool_]) -> Context:
        """Prepare the next step in `env`; `first`, bool [N], marks the first observations of episodes."""


@runtime_checkable
class Peeks(Protocol):
    """An actor that can act on observations that belong to no step."""

    def peek(
        self, observation: ObservationBatch, context: Context | None = None
    ) -> tuple[NDArray[Any], Percept | None]:
        """Act without a trace, in the context of the step or in another one."""


@dataclass(frozen=True)
class ChangedActor:
    """An actor made of another one, whose steps it starts.

    Attributes:
        actor: the other one.
        function: maps observations to actions and a `Percept`, by calling `actor`.
    """

    actor: Actor
    function: Actor

    def __call__(self, observation: ObservationBatch) -> tuple[NDArray[Any], Percept | None]:
        """Call `function`."""
        return self.function(observation)

    def start_step(self, env: Any, first: NDArray[np.bool_]) -> Context:
        """Start a step of `actor`."""
        return start_step(self.actor, env, first)


def start_step(actor: Actor, env: Any, first: NDArray[np.bool_]) -> Context:
    """Prepare an actor for a step, and return the context in which it acts; see `StartsSteps`."""
    return actor.start_step(env, first) if isinstance(actor, StartsSteps) else NO_CONTEXT


def peek(
    actor: Actor, observation: ObservationBatch, context: Context | None = None
) -> tuple[NDArray[Any], Percept | None]:
    """Act on observations that belong to no step: an actor with a memory does not remember them.

    Args:
        actor: the actor.
        observation: the observations.
        context: their context; None for that of the step.
    """
    return actor.peek(observation, context) if isinstance(actor, Peeks) else actor(observation)
