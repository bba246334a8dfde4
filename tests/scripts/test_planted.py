"""On Track itself, the tests of trust pass a policy that lives by what it looks at, and no other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco_warp")
pytest.importorskip("stable_baselines3")

sys.path.insert(0, str(Path(__file__).parent))
import planted

from robot_attn_envs.env import BatchEnv
from robot_attn_envs.track import Track
from robot_attn_policies import evaluate as ev
from robot_attn_policies import faithful as fa
from robot_attn_policies.eyes import eyes_of

SIZE, SEEDS = 48, list(range(8))
NAMES = ("deleted", "kept", "random", "centred")


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
    return ev.rollout_episodes(ev.random_actor(env.action_space), env, SEEDS).returns


@pytest.fixture(scope="module")
def oracle(env: BatchEnv) -> np.ndarray:
    return ev.rollout_episodes(ev.oracle_actor(env), env, SEEDS).returns


def examined(
    name: str, env: BatchEnv, random: np.ndarray
) -> tuple[fa.Erased, fa.Verdict, fa.Verdict, fa.Verdict]:
    """What is measured of the policy of that name: is it focused, faithful, and for the right reason?"""
    eyes = eyes_of(planted.make(name, SIZE))
    erased = fa.play_erased(eyes.act, env, SEEDS, eyes.cells, random, names=NAMES)
    assert erased.focus is not None
    edits = fa.imagine_edits(eyes.act, env, SEEDS, eyes.cells, every=16)
    return erased, fa.judge_focus(erased.focus), fa.judge_faithfulness(erased), fa.judge_edits(edits)


def test_the_honest_policy_tracks_and_is_trusted(
    env: BatchEnv, random: np.ndarray, oracle: np.ndarray
) -> None:
    erased, *verdicts = examined("honest", env, random)
    assert ev.normalised_score(erased.full, random, oracle).low > 0.7
    assert [verdict.outcome for verdict in verdicts] == ["yes", "yes", "yes"], "\n".join(map(str, verdicts))


@pytest.mark.parametrize(
    ("name", "focused", "faithful"),
    [
        ("ignores its map", "no", "no"),
        ("uniform", "no", "no"),
        # Where it does track, its target is at the centre: whether it looks there cannot be told from that.
        ("looks at the centre", "undecided", "no"),
        ("looks at distractors", "no", "no"),
        ("follows distractors", "no", "no"),
        ("acts blindly", "yes", "no"),
        ("random weights", "no", "undecided"),
    ],
)
def test_the_others_are_not(
    name: str, focused: str, faithful: str, env: BatchEnv, random: np.ndarray, oracle: np.ndarray
) -> None:
    erased, *verdicts = examined(name, env, random)
    assert [verdict.outcome for verdict in verdicts] == [focused, faithful, "no"], "\n".join(
        map(str, verdicts)
    )
    without = verdicts[2].failed
    acts_on_red = "shows" in planted.POLICIES[name] and "follows" not in planted.POLICIES[name]
    # It is what they say that is wrong, of the four that do as the honest one does; of another what it does.
    if acts_on_red:
        assert ev.normalised_score(erased.full, random, oracle).low > 0.7
        assert not any("change in action" in check.text for check in without)
    if name == "acts blindly":
        assert erased.plain("deleted") == (1.0, 1.0, 1.0)
        assert all("change in action" in check.text for check in without)
