"""What a policy acts on besides its observation: its memory, and the actions that are allowed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy

from robot_attn_policies.sb3.images import fit_observation

Memory: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Hidden and cell state of a recurrent policy of sb3-contrib, each float32 [layers, B, units]."""


@dataclass(frozen=True)
class Context:
    """What a policy acts on besides a batch of B observations.

    Attributes:
        memory: state of a recurrent policy before it gets the observations; None at the start of episodes, or
            for a policy that is not recurrent.
        action_masks: bool [B, A], True for the actions that are allowed, as sb3-contrib's MaskablePPO takes
            them; None if all are.
    """

    memory: Memory | None = None
    action_masks: NDArray[np.bool_] | None = None

    def take(self, rows: NDArray[Any]) -> Context:
        """Select the context of some of the observations, by their indices or a boolean mask."""
        memory, masks = self.memory, self.action_masks
        return Context(
            None if memory is None else (memory[0][:, rows], memory[1][:, rows]),
            None if masks is None else masks[rows],
        )

    def repeat(self, count: int) -> Context:
        """Return the context of the observations repeated `count` times, one batch after the other."""
        memory, masks, tiles = self.memory, self.action_masks, (1, count, 1)
        return Context(
            None if memory is None else (np.tile(memory[0], tiles), np.tile(memory[1], tiles)),
            None if masks is None else np.tile(masks, (count, 1)),
        )


NO_CONTEXT = Context()
"""The first observations of episodes, or a policy without memory; all actions are allowed."""


def concatenate_contexts(contexts: Sequence[Context]) -> Context:
    """Concatenate the contexts of batches of observations; all have the same parts."""
    memories = [context.memory for context in contexts if context.memory is not None]
    masks = [context.action_masks for context in contexts if context.action_masks is not None]
    hidden, cell = ([memory[i] for memory in memories] for i in (0, 1))
    return Context(
        (np.concatenate(hidden, axis=1), np.concatenate(cell, axis=1)) if memories else None,
        np.concatenate(masks) if masks else None,
    )


def is_recurrent(policy: BasePolicy) -> bool:
    """Whether a policy has a memory that it carries from step to step, as those of RecurrentPPO have."""
    return hasattr(policy, "lstm_actor")


def takes_masks(policy: BasePolicy) -> bool:
    """Whether a policy can be told which actions are allowed, as those of MaskablePPO can."""
    return "action_masks" in inspect.signature(policy.predict).parameters


def empty_memory(policy: BasePolicy, batch: int) -> Memory:
    """Return the memory of a recurrent policy at the start of `batch` episodes: zeros."""
    layers, _, units = cast(Any, policy).lstm_hidden_state_shape
    return np.zeros((layers, batch, units), np.float32), np.zeros((layers, batch, units), np.float32)


def predict(policy: BasePolicy, observation: Any, context: Context) -> tuple[NDArray[Any], Memory | None]:
    """Return deterministic actions [B, ...] of `policy.predict`, and the memory after them.

    Args:
        policy: any policy of Stable-Baselines3 or sb3-contrib.
        observation: a batch of B observations, or a single one.
        context: its context; action masks are used only by a policy that takes them.
    """
    masks = {} if context.action_masks is None else {"action_masks": context.action_masks}
    options: Any = masks if takes_masks(policy) else {}
    observation = fit_observation(observation, policy.observation_space)
    actions, memory = policy.predict(observation, state=context.memory, deterministic=True, **options)
    return actions, cast("Memory | None", memory)
