"""A policy as the actor of rollouts: it carries its memory from step to step and obeys action masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy

from robot_attn import Percept
from robot_attn_policies.rollouts.action_masks import action_masks
from robot_attn_policies.rollouts.actor import ObservationBatch
from robot_attn_policies.sb3.act import act
from robot_attn_policies.sb3.context import (
    NO_CONTEXT,
    Context,
    Memory,
    empty_memory,
    is_recurrent,
    takes_masks,
)
from robot_attn_policies.sb3.extractor import find_extractor

Acting: TypeAlias = Callable[[ObservationBatch, Context], "tuple[NDArray[Any], Percept, Memory | None]"]
"""Maps observations and their context to actions [N, ...], a `Percept`, and the memory after them."""


class PolicyActor:
    """Deterministic actions of a policy, as `rollout_episodes` takes them.

    Before each step, `rollout_episodes` calls `start_step`: the memory of a recurrent policy moves on to what
    the last call left, and the action masks of MaskablePPO are taken from the environment. Calls that belong
    to no step, such as on counterfactual frames, use `peek`, which leaves no trace.

    Called outside of a rollout, it treats every observation as the first of an episode and every action as
    allowed.

    Args:
        policy: the policy.
        acting: computes its actions.

    Attributes:
        policy: as given.
        context: the context of the step.
    """

    def __init__(self, policy: BasePolicy, acting: Acting) -> None:
        self.policy, self.context = policy, NO_CONTEXT
        self._acting = acting
        self._memory: Memory | None = None

    def __call__(self, observation: ObservationBatch) -> tuple[NDArray[Any], Percept]:
        """Act on the observations of the step."""
        actions, percept, self._memory = self._acting(observation, self.context)
        return actions, percept

    def peek(
        self, observation: ObservationBatch, context: Context | None = None
    ) -> tuple[NDArray[Any], Percept]:
        """Act without a trace, in the context of the step or in another one."""
        actions, percept, _ = self._acting(observation, self.context if context is None else context)
        return actions, percept

    def start_step(self, env: Any, first: NDArray[np.bool_]) -> Context:
        """Prepare the next step.

        Args:
            env: the batch of N environments.
            first: bool [N], whether the observations are the first of an episode.

        Returns:
            The context of the step.

        Raises:
            ValueError: the policy takes action masks and the environment has none.
        """
        memory = None
        if is_recurrent(self.policy):
            memory = empty_memory(self.policy, len(first))
            if self._memory is not None and not first.all():
                for part, last in zip(memory, self._memory, strict=True):
                    part[:, ~first] = last[:, ~first]
        masks = None
        if takes_masks(self.policy):
            masks = action_masks(env)
            if masks is None:
                raise ValueError(
                    f"expected an environment with action masks for {type(self.policy).__name__}, got one "
                    "without `action_masks`: wrap it in sb3_contrib.common.wrappers.ActionMasker, as in "
                    "training, or let it allow all actions if the policy was trained without masks"
                )
        self.context = Context(memory, masks)
        return self.context


def policy_actor(policy: BasePolicy, *, image: str | None = None) -> PolicyActor:
    """Return deterministic actions and attention of a policy, from one forward pass.

    Args:
        policy: a Stable-Baselines3 or sb3-contrib policy with a `PerceptionExtractor`.
        image: key of the camera whose attention to return; None for a policy with one camera.

    Returns:
        A function that maps observations to actions and a `Percept`. In a rollout it carries the memory of a
        recurrent policy from step to step and applies the action masks of MaskablePPO.

    Raises:
        ValueError: an error of `find_extractor`, or no `image` for a policy with several cameras.
    """
    find_extractor(policy).camera(image)  # raises here rather than in the middle of an episode
    return PolicyActor(
        policy,
        lambda observation, context: act(
            policy, observation, context.memory, image=image, action_masks=context.action_masks
        ),
    )
