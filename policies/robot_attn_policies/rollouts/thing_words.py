"""What the labels of an environment stand for, in the words of each episode."""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_attn.things import allowed_labels
from robot_attn_policies.rollouts.rollout import Step
from robot_attn_policies.rollouts.things import describe_things, thing_names


class ThingWords:
    """Callback for `rollout_episodes` that keeps what each episode's labels stand for.

    Args:
        env: a batch of environments, as `rollout_episodes` takes it.
        episodes: number of episodes.

    Attributes:
        allowed: labels of things besides the target on which a decision may depend, such as the robot.
        descriptions: for each episode, the description of each label, such as "green cylinder"; the names of
            the labels for an episode of one step.
    """

    def __init__(self, env: Any, episodes: int) -> None:
        self._env, names = env, thing_names(env)
        self.allowed = allowed_labels(names)
        self.descriptions = [names] * episodes
        self._known = np.zeros(episodes, np.bool_)

    def __call__(self, step: Step) -> None:
        """Keep the words of the episodes that have begun with this step."""
        # The environment has taken the step already: one whose episode ended may show the next.
        new = step.running & ~step.done & ~self._known[step.episode]
        if not new.any():
            return
        words = describe_things(self._env)
        for row in np.flatnonzero(new):
            self.descriptions[step.episode[row]] = words[row]
        self._known[step.episode[new]] = True
