"""On Track itself, the tests of trust pass a policy that lives by what it looks at, and no other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco_warp")
pytest.importorskip("stable_baselines3")
pytest.importorskip("captum")
pytest.importorskip("sklearn")

sys.path.insert(0, str(Path(__file__).parent))
import planted

from robot_attn_envs.env import BatchEnv
from robot_attn_envs.tasks.track import Track
from robot_attn_policies.evaluation import evaluate as ev
from robot_attn_policies.pages.report import Report
from robot_attn_policies.probing.explain import explain
from robot_attn_policies.probing.probe import probe_policy
from robot_attn_policies.probing.verdicts import NOTHING_TO_LOSE, Verdict
from robot_attn_policies.rollouts.rollout import oracle_actor, random_actor

SIZE, SEEDS = 48, list(range(16))


class ShortTrack(Track):
    """Track, with episodes just long enough for a blind camera to lose its target."""

    horizon = 32


@pytest.fixture(scope="module")
def env() -> Iterator[BatchEnv]:
    env = BatchEnv(ShortTrack, 16, image_size=SIZE, masks=True, threads=1)
    yield env
    env.close()


@pytest.fixture(scope="module")
def random(env: BatchEnv) -> np.ndarray:
    return ev.rollout_episodes(random_actor(env.action_space), env, SEEDS).returns


@pytest.fixture(scope="module")
def oracle(env: BatchEnv) -> np.ndarray:
    return ev.rollout_episodes(oracle_actor(env), env, SEEDS).returns


def report_of(name: str, env: BatchEnv, episodes: int = len(SEEDS), size: int = SIZE) -> Report:
    """The report on the policy of that name."""
    return explain(planted.make(name, size), env, seeds=range(episodes), curves=False, ablations=())


def verdicts_of(report: Report) -> dict[str, Verdict]:
    """What the report says, by section."""
    return {section.name: section.verdict for section in report.sections if section.verdict is not None}


def score_of(name: str, env: BatchEnv, random: np.ndarray, oracle: np.ndarray) -> float:
    """The lower end of its score: 0 is random, 1 the oracle."""
    returns = ev.rollout_episodes(probe_policy(planted.make(name, SIZE)).act, env, SEEDS).returns
    return ev.normalised_score(returns, random, oracle).low


def test_the_honest_policy_tracks_and_is_trusted(
    env: BatchEnv, random: np.ndarray, oracle: np.ndarray
) -> None:
    assert score_of("honest", env, random, oracle) > 0.7
    verdicts = verdicts_of(report_of("honest", env, 64))
    said = {name: verdict.outcome for name, verdict in verdicts.items()}
    assert said == {"focus": "yes", "faithful": "yes", "interventions": "yes", "weights": "yes"}, verdicts


@pytest.mark.parametrize(
    ("name", "focused", "faithful", "weights"),
    [
        ("ignores its map", "no", "no", "yes"),
        ("uniform", "no", "no", "no"),
        # It misses the target where that is off its usual place, the centre.
        ("looks at the centre", "no", "no", "no"),
        ("looks at distractors", "no", "no", "yes"),
        # These three have no return to lose.
        ("follows distractors", "no", "undecided", "yes"),
        ("acts blindly", "yes", "undecided", "yes"),
        ("random weights", "no", "undecided", "yes"),
    ],
)
def test_the_others_are_not(
    name: str,
    focused: str,
    faithful: str,
    weights: str,
    env: BatchEnv,
    random: np.ndarray,
    oracle: np.ndarray,
) -> None:
    verdicts = verdicts_of(report_of(name, env))
    said = {section: verdict.outcome for section, verdict in verdicts.items()}
    assert said == {"focus": focused, "faithful": faithful, "interventions": "no", "weights": weights}, (
        verdicts
    )
    without = verdicts["interventions"].failed
    acts_on_red = "shows" in planted.POLICIES[name] and "follows" not in planted.POLICIES[name]
    # It is what they say that is wrong, of the four that do as the honest one does; of another what it does.
    if acts_on_red:
        assert score_of(name, env, random, oracle) > 0.7
        assert not any("change in action" in check.text for check in without)
    if name == "acts blindly":
        assert all("change in action" in check.text for check in without)


@pytest.mark.parametrize(
    ("name", "qualifier"),
    [
        ("3 steps late", "with a delay of 3 steps"),
        ("10 steps late", "with a delay of 10 steps"),
        ("sinks", "heads 0 and 1 have a sink in the top left corner"),
        ("one sink", "head 1 has a sink in the top right corner"),
    ],
)
def test_what_is_wrong_with_a_map_is_named(name: str, qualifier: str, env: BatchEnv) -> None:
    report = report_of(name, env)
    focus = verdicts_of(report)["focus"]
    assert any(text.startswith(qualifier) for text in focus.qualifiers), focus
    assert qualifier in report.summary[0]
    if "sink" in name:  # the rest of its map is as good as the honest one's
        assert focus.outcome == "yes"


def test_a_coarse_map_on_its_target_is_localised() -> None:
    env = BatchEnv(ShortTrack, 16, image_size=64, masks=True, threads=1)
    report = report_of("coarse", env, size=64)
    env.close()
    focus = verdicts_of(report)["focus"]
    assert focus.outcome == "yes", focus
    assert "is localised on the target, coarsely: less of its mass is on the target than" in report.summary[0]


class PaysTheSame(ShortTrack):
    """Pays the same whatever the policy does, as a sparse task does early on."""

    def compute_reward(self, steps: Any) -> Any:
        reward, *ends = super().compute_reward(steps)
        return np.ones_like(reward), *ends


def test_a_policy_that_earns_nothing_is_not_called_faithful() -> None:
    env = BatchEnv(PaysTheSame, 8, image_size=SIZE, masks=True, threads=1)
    report = report_of("honest", env, 8)
    env.close()
    faithful = verdicts_of(report)["faithful"]
    assert (faithful.outcome, faithful.reason) == ("undecided", NOTHING_TO_LOSE)
    assert NOTHING_TO_LOSE in report.summary[0]


@pytest.mark.parametrize(
    ("name", "weights", "failed"),
    [
        ("another network", "yes", "change in action"),
        ("a hidden network", "no", "change in action"),
        ("a filter", "yes", "change in action"),
        ("a declared network", "yes", "change in action"),
        ("a network beside the declared map", "yes", "change in the map"),
    ],
)
def test_a_map_that_finds_the_target_and_feeds_nothing_is_caught_by_forcing_it(
    name: str, weights: str, failed: str, env: BatchEnv
) -> None:
    verdicts = verdicts_of(report_of(name, env))
    assert (verdicts["faithful"].outcome, verdicts["weights"].outcome) == ("no", weights), verdicts
    (check,) = [check for check in verdicts["faithful"].checks if check.outcome == "no"]
    assert failed in check.text and "the attention is held" in check.text
    assert check.figure == pytest.approx((0, 0, 0), abs=1e-6)
