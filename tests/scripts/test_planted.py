"""On Track itself, the tests of trust pass a policy that lives by what it looks at, and no other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

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
from robot_attn_policies.probing.explain import explain
from robot_attn_policies.probing.probe import probe_policy
from robot_attn_policies.probing.verdicts import Verdict
from robot_attn_policies.rollouts.rollout import oracle_actor, random_actor

SIZE, SEEDS = 48, list(range(8))


class ShortTrack(Track):
    """Track, with episodes just long enough for a blind camera to lose its target."""

    horizon = 32


@pytest.fixture(scope="module")
def env() -> Iterator[BatchEnv]:
    env = BatchEnv(ShortTrack, len(SEEDS), image_size=SIZE, masks=True, threads=1)
    yield env
    env.close()


@pytest.fixture(scope="module")
def random(env: BatchEnv) -> np.ndarray:
    return ev.rollout_episodes(random_actor(env.action_space), env, SEEDS).returns


@pytest.fixture(scope="module")
def oracle(env: BatchEnv) -> np.ndarray:
    return ev.rollout_episodes(oracle_actor(env), env, SEEDS).returns


def verdicts_of(name: str, env: BatchEnv) -> dict[str, Verdict]:
    """What the report says of the policy of that name, by section."""
    report = explain(planted.make(name, SIZE), env, seeds=SEEDS, curves=False, ablations=())
    return {section.name: section.verdict for section in report.sections if section.verdict is not None}


def score_of(name: str, env: BatchEnv, random: np.ndarray, oracle: np.ndarray) -> float:
    """The lower end of its score: 0 is random, 1 the oracle."""
    returns = ev.rollout_episodes(probe_policy(planted.make(name, SIZE)).act, env, SEEDS).returns
    return ev.normalised_score(returns, random, oracle).low


def test_the_honest_policy_tracks_and_is_trusted(
    env: BatchEnv, random: np.ndarray, oracle: np.ndarray
) -> None:
    assert score_of("honest", env, random, oracle) > 0.7
    verdicts = verdicts_of("honest", env)
    said = {name: verdict.outcome for name, verdict in verdicts.items()}
    assert said == {"focus": "yes", "faithful": "yes", "interventions": "yes", "weights": "yes"}, verdicts


@pytest.mark.parametrize(
    ("name", "focused", "faithful", "weights"),
    [
        ("ignores its map", "no", "no", "yes"),
        ("uniform", "no", "no", "no"),
        # Where it does track, its target is at the centre: whether it looks there cannot be told from that.
        ("looks at the centre", "undecided", "no", "no"),
        ("looks at distractors", "no", "no", "yes"),
        ("follows distractors", "no", "no", "yes"),
        ("acts blindly", "yes", "no", "yes"),
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
    verdicts = verdicts_of(name, env)
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
