"""Nuisance of planted policies whose decisive pixels are known, and how frames are counted."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from robot_attn.explain import CausalMaps, causal_map
from robot_attn_policies.evaluation.nuisance import Nuisance, measure_nuisance, nuisance_shares
from robot_attn_policies.rollouts.rollout import Step

SIZE, HORIZON = 48, 8
PLACES = {1: (6, 6), 3: (6, 38), 4: (38, 6)}
"""Top left corners of the target and the two distractors, squares of 5 x 5: far apart."""


class Squares(VectorEnv[Any, Any, Any]):
    """Noise with three squares; the actions change nothing. Environment 1 has no target in view."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self) -> None:
        self.num_envs = 2
        self.single_observation_space = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.single_action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, 2)
        self.action_space = batch_space(self.single_action_space, 2)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.rng, self.clock = np.random.default_rng(seed), 0
        return self._frames(), self._infos()

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.clock += 1
        done = np.full(2, self.clock >= HORIZON)
        return self._frames(), np.zeros(2), np.zeros(2, bool), done, self._infos()

    def _labels(self) -> NDArray[np.uint8]:
        labels = np.zeros((2, SIZE, SIZE), np.uint8)
        for label, (top, left) in PLACES.items():
            labels[:, top : top + 5, left : left + 5] = label
        labels[1][labels[1] == 1] = 0
        return labels

    def _frames(self) -> NDArray[np.uint8]:
        frames = self.rng.integers(100, 140, (2, SIZE, SIZE, 3), dtype=np.uint8)
        frames[self._labels() > 0] = 250
        return frames

    def _infos(self) -> dict[str, Any]:
        return {"target_mask": self._labels() == 1}


class NamedSquares(Squares):
    """The same with the names of things."""

    thing_names = ("backdrop", "target", "robot", "distractor 1", "distractor 2")

    def describe_things(self) -> list[tuple[str, ...]]:
        return [self.thing_names] * 2

    def _infos(self) -> dict[str, Any]:
        return {"things": self._labels()}


def brightness(frames: NDArray[np.uint8], label: int) -> NDArray[np.float64]:
    """Mean brightness of a square, about 1 where it is and 0.5 where it is removed, [N, 1]."""
    top, left = PLACES[label]
    return np.asarray(frames[:, top : top + 5, left : left + 5].mean(axis=(1, 2, 3))[:, None] / 250)


def planted(**weights: float) -> Any:
    """A policy that acts on the squares by these weights: causal maps of its actions."""
    labels = {"target": 1, "distractor": 3, "other": 4}

    def respond(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        parts = [weight * brightness(frames, labels[name]) for name, weight in weights.items()]
        return np.concatenate(parts or [np.zeros((len(frames), 1))], axis=1)

    return lambda observation, context: causal_map(respond, observation)


def measured(explain: Any, env: Squares | None = None, **options: Any) -> Nuisance:
    def act(observation: Any) -> tuple[Any, None]:
        return np.zeros((len(observation), 2), np.float32), None

    return measure_nuisance(act, env or NamedSquares(), [3, 4], explain, horizon=HORIZON, frames=8, **options)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"target": 1.0}, 0.0),
        ({"distractor": 1.0}, 1.0),
        ({"target": 1.0, "distractor": 1.0}, 0.5),
        ({"distractor": 1.0, "other": 0.5}, 1.0),
    ],
)
def test_a_planted_policy_has_the_nuisance_of_what_it_acts_on(
    weights: dict[str, float], expected: float
) -> None:
    found = measured(planted(**weights))
    assert found.scored.tolist() == [4, 0]
    assert found.total[0] / 4 == pytest.approx(expected, abs=0.12)


def test_what_is_spread_thinly_is_underestimated_and_clipped_importance_is_noise() -> None:
    spread, focused = measured(planted(target=1.0, distractor=0.5, other=0.5)), measured(planted(target=1.0))
    assert 0.2 < spread.total[0] / 4 < 0.5
    # The price of counting everything: a policy that acts on the target alone has much mass elsewhere.
    assert focused.clipped[0] / 4 > 0.3
    assert focused.uniform[0] / 4 == pytest.approx(1 - 222 / 48**2, abs=0.02)  # a square of 5, 6 pixels wider


def test_a_policy_that_acts_on_the_backdrop_has_only_nuisance() -> None:
    def corner(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.asarray(frames[:, 30:44, 30:44].reshape(len(frames), -1).std(axis=1)[:, None])

    found = measured(lambda observation, context: causal_map(corner, observation))
    assert found.scored[0] == 4
    assert found.backdrop[0] / 4 > 0.9
    assert found.total[0] / 4 > 0.95


def test_frames_without_anything_relevant_or_significant_are_left_out_and_counted() -> None:
    frames: list[int] = []
    steps: list[Step] = []
    blind = measured(planted(), on_frames=frames.append, on_step=steps.append)
    assert (blind.scored.tolist(), blind.blank.tolist(), blind.hidden.tolist()) == ([0, 0], [4, 0], [0, 4])
    assert blind.total.tolist() == [0.0, 0.0]
    assert sum(frames) == 8
    assert len(steps) == HORIZON


def test_without_things_all_but_the_target_is_backdrop() -> None:
    found = measured(planted(distractor=1.0), Squares())
    assert found.backdrop[0] / 4 > 0.95
    assert found.distractors[0] == 0


@pytest.mark.parametrize("relevant", ["target", "robot", "goal"])
def test_shares_by_hand(relevant: str) -> None:
    labels = np.zeros((1, 9, 9), np.uint8)
    labels[0, 4, 4], labels[0, 0, 0], labels[0, 8, 8] = 1, 3, 2
    names = ("backdrop", relevant, "occluder", "distractor 1")
    weights = np.zeros((1, 9, 9))
    weights[0, 4, 4], weights[0, 4, 6], weights[0, 4, 7] = 0.1, 0.2, 0.3  # on it, 2 and 3 pixels away
    weights[0, 0, 0], weights[0, 8, 8] = 0.15, 0.25
    for cell, backdrop in ((0, 0.5), (1, 0.5), (2, 0.3), (3, 0.0)):
        assert nuisance_shares(weights, labels, names, cell)[0] == pytest.approx((backdrop, 0.15, 0.25))
    uniform = np.full((1, 9, 9), 1 / 81)
    assert nuisance_shares(uniform, labels, names, 1).sum() == pytest.approx(76 / 81)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="labels up to 2"):
        nuisance_shares(np.zeros((1, 4, 4)), np.full((1, 4, 4), 2, np.uint8), ("backdrop", "target"), 1)
    with pytest.raises(ValueError, match="at least one frame, got 0"):
        measure_nuisance(Any, Squares(), [1], planted(), horizon=HORIZON, frames=0)  # type: ignore[arg-type]

    class Unlabelled(Squares):
        def _infos(self) -> dict[str, Any]:
            return {}

    with pytest.raises(ValueError, match="make it with masks=True"):
        measured(planted(target=1.0), Unlabelled())


def test_frames_are_spread_over_the_episodes() -> None:
    seen: list[int] = []

    def explain(observation: Any, context: Any) -> CausalMaps:
        seen.append(len(observation))
        return causal_map(lambda frames: brightness(frames, 1), observation)

    assert measured(explain).scored.tolist() == [4, 0]
    assert sum(seen) == 4  # frames that are left out cost nothing
