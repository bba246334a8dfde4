"""Evaluation in a small batch of environments with known returns, lengths and masks."""

from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from robot_attn import AttentionGrid, Percept
from robot_attn_policies.evaluation import evaluate as ev
from robot_attn_policies.recording.episode_file import load_episode, record_episode, save_episode
from robot_attn_policies.rollouts.rollout import oracle_actor, random_actor

H, W = 11, 13
ACTION = spaces.Box(-1.0, 1.0, (2,), np.float32)
IMAGE = spaces.Dict(
    image=spaces.Box(0, 255, (H, W, 3), np.uint8), state=spaces.Box(-np.inf, np.inf, (1,), np.float32)
)
GRID = AttentionGrid(np.arange(H, dtype=np.float32), np.arange(W, dtype=np.float32), (H, W))


class Dots(VectorEnv[Any, Any, Any]):
    """A white target of 2 x 2 pixels that moves at every step, on a dark background.

    The episode of seed s lasts 3 + s % 5 steps and succeeds if s is even. The reward is the first action plus
    s / 1000. If s % 7 == 0, the target is not visible at the first step.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}
    dt = 0.1
    horizon = 7
    action_names = ("left", "right")

    def __init__(self, num_envs: int, masks: bool = True) -> None:
        self.num_envs, self.masks = num_envs, masks
        self.single_observation_space, self.single_action_space = IMAGE, ACTION
        self.observation_space = batch_space(IMAGE, num_envs)
        self.action_space = batch_space(ACTION, num_envs)
        self.seeds = np.zeros(num_envs, dtype=int)
        self.time = np.zeros(num_envs, dtype=int)

    def _corner(self, i: int) -> tuple[int, int] | None:
        seed, time = int(self.seeds[i]), int(self.time[i])
        if seed % 7 == 0 and time == 0:
            return None
        return (seed + 3 * time) % (H - 1), (2 * seed + 5 * time) % (W - 1)

    def _observe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        masks = np.zeros((self.num_envs, H, W), dtype=bool)
        for i in range(self.num_envs):
            corner = self._corner(i)
            if corner is not None:
                masks[i, corner[0] : corner[0] + 2, corner[1] : corner[1] + 2] = True
        observation = {
            "image": np.repeat(masks[..., None], 3, axis=3).astype(np.uint8) * 255,
            "state": self.time[:, None].astype(np.float32),
        }
        return observation, {"target_mask": masks} if self.masks else {}

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.seeds, self.time = np.array(seed), np.zeros(self.num_envs, dtype=int)
        return self._observe()

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        rewards = actions[:, 0].astype(np.float64) + self.seeds / 1000
        self.time += 1
        done = self.time >= 3 + self.seeds % 5
        success = self.seeds % 2 == 0
        self.seeds[done] += 100_000  # the next episode must not be counted
        self.time[done] = 0
        observation, info = self._observe()
        if done.any():
            info["final_info"] = {"success": success & done}
            info["_final_info"] = done
        return observation, rewards, done, np.zeros_like(done), info

    def oracle_actions(self) -> np.ndarray:
        return np.full((self.num_envs, 2), 0.75, dtype=np.float32)

    def get_state(self) -> dict[str, np.ndarray]:
        return {"seeds": self.seeds.copy(), "physics": self.time[:, None].astype(np.float64)}


def actor_with(*heads: str, action: float = 0.5) -> ev.Actor:
    """An actor whose heads attend to the white pixels ("target"), the dark ones ("else"), or all ("all")."""

    def act(observation: Any) -> tuple[np.ndarray, Percept]:
        white = torch.from_numpy(observation["image"][..., 0] > 0).float()
        kinds = {"target": white + 1e-9, "else": 1.001 - white, "all": torch.ones_like(white)}
        maps = torch.stack([kinds[head] for head in heads], dim=1)
        attention = maps / maps.sum(dim=(2, 3), keepdim=True)
        actions = np.full((len(white), 2), action, dtype=np.float32)
        return actions, Percept(torch.zeros(len(white), 1), attention)

    return act


@pytest.mark.parametrize("num_envs", [1, 3, 4, 11])
def test_one_episode_per_seed_with_any_number_of_environments(num_envs: int) -> None:
    seeds = [2, 8, 5, 9, 4, 31]
    rollouts = ev.rollout_episodes(actor_with("all"), Dots(num_envs), seeds)
    lengths = [3 + s % 5 for s in seeds]
    assert rollouts.lengths.tolist() == lengths
    expected = [n * (0.5 + s / 1000) for s, n in zip(seeds, lengths, strict=True)]
    assert rollouts.returns == pytest.approx(np.array(expected))
    assert rollouts.successes is not None
    assert rollouts.successes.tolist() == [True, True, False, False, True, False]


class Corridor(gymnasium.Env[Any, Any]):
    """Three steps with success in the last, for Gymnasium's own vector environments."""

    observation_space = spaces.Box(0, 255, (H, W, 3), np.uint8)
    action_space = ACTION

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time, self.bonus = 0, float(self.np_random.random())
        return np.zeros((H, W, 3), np.uint8), {"success": False}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        done = self.time == 3
        return np.full((H, W, 3), self.time, np.uint8), self.bonus, done, False, {"success": done}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_gymnasiums_own_vector_environments(mode: AutoresetMode) -> None:
    env = gymnasium.vector.SyncVectorEnv([Corridor] * 2, autoreset_mode=mode)
    zeros = lambda observation: (np.zeros((2, 2), np.float32), None)  # noqa: E731
    rollouts = ev.rollout_episodes(zeros, env, [3, 4, 5])
    assert rollouts.lengths.tolist() == [3, 3, 3]
    bonuses = [np.random.Generator(np.random.PCG64(seed)).random() for seed in (3, 4, 5)]
    assert rollouts.returns == pytest.approx(3 * np.array(bonuses))
    assert rollouts.successes is not None
    assert rollouts.successes.all()


def test_on_step_is_called_with_every_step_once_and_its_mask() -> None:
    steps: dict[int, int] = {}

    def on_step(step: ev.Step) -> None:
        for i in np.flatnonzero(step.running):
            steps[int(step.episode[i])] = steps.get(int(step.episode[i]), 0) + 1
            white = step.observation["image"][i, ..., 0] > 0  # type: ignore[call-overload]
            assert np.array_equal(white, step.info["target_mask"][i])

    ev.rollout_episodes(actor_with("all"), Dots(3), [1, 2, 3, 4], on_step=on_step)
    assert steps == {0: 4, 1: 5, 2: 6, 3: 7}


def test_the_best_head_is_chosen_on_calibration_and_scored_on_other_episodes() -> None:
    act = actor_with("else", "target", "all")
    calibration = ev.calibrate(act, Dots(4), [50, 51, 52, 53, 54], GRID)
    assert calibration.best_head == 1
    assert calibration.prior.sum() == pytest.approx(1.0)
    seeds = [1, 2, 3, 7, 14]
    rollouts, focus = ev.evaluate_policy(act, Dots(2), seeds, GRID, calibration)
    assert rollouts.lengths.tolist() == [4, 5, 6, 5, 7]
    totals = focus.totals
    assert totals.hidden.tolist() == [0, 0, 0, 1, 1]
    assert totals.visible.tolist() == [4, 5, 6, 4, 6]
    assert focus.num_heads == 3
    chance = 4 / (H * W)
    assert totals.mean_chance().value == pytest.approx(chance)
    assert totals.mean_mass(1).value == pytest.approx(1.0, abs=1e-5)
    assert totals.mass_over_chance(1).value == pytest.approx(1 / chance, rel=1e-4)
    assert totals.pointing(1).value == 1.0
    assert totals.mean_mass(0).value < chance / 100
    assert totals.pointing(0).value == 0.0
    # A uniform head equals the uniform reference, and both are at chance level.
    uniform = focus.index("uniform")
    for index in (2, uniform):
        assert totals.mass_over_chance(index).value == pytest.approx(1.0, abs=1e-4)
        assert totals.pointing(index).value == pytest.approx(chance)
    # The prior is the mean mask of the calibration episodes, by hand at the evaluation's frames.
    frames = []
    ev.rollout_episodes(
        act, Dots(5), seeds, on_step=lambda s: frames.extend(s.info["target_mask"][s.running])
    )
    by_hand = [calibration.prior[mask].sum() for mask in frames if mask.any()]
    assert totals.mean_mass(focus.index("prior")).value == pytest.approx(np.mean(by_hand), abs=1e-6)


def test_every_frame_has_one_state_for_every_map() -> None:
    act, seeds = actor_with("else", "target", "all"), [1, 2, 7, 14]
    calibration = ev.calibrate(act, Dots(4), [50, 51, 52], GRID)
    rollouts, focus = ev.evaluate_policy(act, Dots(3), seeds, GRID, calibration)
    totals = focus.totals
    assert focus.states.shape == (4, 3 + len(ev.REFERENCES), 3)
    assert np.array_equal(focus.states.sum(axis=2), np.repeat(rollouts.lengths[:, None], 6, axis=1))
    attended, not_attended, hidden = (focus.states[:, :, state] for state in range(3))
    assert np.array_equal(hidden, np.repeat(totals.hidden[:, None], 6, axis=1))
    assert np.array_equal(attended[:, 1], totals.visible)
    for index in (0, 2, focus.index("uniform")):
        assert np.array_equal(not_attended[:, index], totals.visible)
    assert focus.share(1, "attended").value == pytest.approx(19 / 21)
    # Over visible frames the mass is 1; over all frames, those without the target count as 0.
    assert totals.mean_mass(1).value == pytest.approx(1.0, abs=1e-5)
    assert totals.mean_mass_in_all_frames(1).value == pytest.approx(19 / 21, abs=1e-5)


class Thief(Dots):
    """The target stands still, then a red or blue thing appears at the bottom right; it leaves at step 16."""

    thing_names = ("backdrop", "target", "robot", "occluder", "distractor 1")

    def _observe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        observation, _ = super()._observe()
        things = np.zeros((self.num_envs, H, W), np.uint8)
        for i, time in enumerate(self.time):
            things[i, 1:3, 1:3] = time < 16
            things[i, 7:10, 9:12] = 4 * (time >= 10 - self.seeds[i] % 2)
        colors = np.array([[90, 90, 90], [30, 200, 30], [0, 0, 0], [0, 0, 0], [220, 20, 20]], np.uint8)
        observation["image"] = colors[things]
        return observation, {"target_mask": things == 1} | ({"things": things} if self.labelled else {})

    def __init__(self, num_envs: int, labelled: bool) -> None:
        self.labelled = labelled
        super().__init__(num_envs)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.time += 1
        done = self.time >= 24
        observation, info = self._observe()
        return observation, np.zeros(self.num_envs), done, np.zeros_like(done), info

    def describe_things(self) -> list[tuple[str, ...]]:
        return [("backdrop", "green box", "", "", f"red box of {seed}") for seed in self.seeds]


def to_redness(observation: Any) -> tuple[np.ndarray, Percept]:
    """An actor that attends to red, and to all that is green where nothing is red."""
    red, green, blue = (observation["image"][..., channel].astype(int) for channel in range(3))
    maps = np.where((red > 2 * green).any(axis=(1, 2), keepdims=True), red - green, green - blue)
    attention = torch.from_numpy(np.maximum(maps, 0) + 1e-6).float()[:, None]
    attention /= attention.sum(dim=(2, 3), keepdim=True)
    return np.zeros((len(red), 2), np.float32), Percept(torch.zeros(len(red), 1), attention)


@pytest.mark.parametrize("labelled", [False, True])
def test_what_captures_attention_is_found_in_each_episode(labelled: bool) -> None:
    calibration = ev.Calibration(0, np.full((H, W), 1 / (H * W)), np.array([99]))
    seeds = [3, 4, 6]
    _, focus = ev.evaluate_policy(
        to_redness,
        Thief(2, labelled),
        seeds,
        GRID,
        calibration,
        to_rgb=lambda observation: observation["image"],
    )
    starts = [9, 10, 10]
    assert [(each.episode, each.start, each.lost, each.back) for each in focus.captures.captures] == [
        (episode, start, 16 - start, None) for episode, start in enumerate(starts)
    ]
    what = [f"red box of {seed}" for seed in seeds] if labelled else ["red region"] * 3
    assert [each.what for each in focus.captures.captures] == what
    assert focus.share(0, "attended").value == pytest.approx(sum(starts) / 72)
    assert focus.share(0, "out of view").value == pytest.approx(8 / 24)


def test_calibration_seeds_are_not_scored() -> None:
    act = actor_with("target")
    calibration = ev.calibrate(act, Dots(2), [5, 6], GRID)
    with pytest.raises(ValueError, match=r"seeds that calibration did not use, got \[6\]"):
        ev.evaluate_policy(act, Dots(2), [6, 7], GRID, calibration)


def test_a_policy_without_attention_and_an_environment_without_masks_raise() -> None:
    blind = random_actor(Dots(2).action_space)
    with pytest.raises(ValueError, match="expected a policy with attention, got none"):
        ev.calibrate(blind, Dots(2), [1], GRID)
    with pytest.raises(ValueError, match="masks=True"):
        ev.calibrate(actor_with("all"), Dots(2, masks=False), [1], GRID)
    with pytest.raises(ValueError, match="at least one"):
        ev.rollout_episodes(blind, Dots(2), [])


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((3, 2), np.float32), r"expected actions of shape \[2, 2\], got \[3, 2\]"),
        (np.full((2, 2), np.nan, np.float32), "NaN or infinite"),
    ],
)
def test_invalid_actions_raise(actions: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ev.rollout_episodes(lambda observation: (actions, None), Dots(2), [1, 2])


def test_random_and_oracle_have_normalised_scores_0_and_1() -> None:
    env, seeds = Dots(4), [1, 2, 3, 4, 5, 6, 7, 8]
    random = ev.rollout_episodes(random_actor(env.action_space, seed=1), env, seeds)
    oracle = ev.rollout_episodes(oracle_actor(env), env, seeds)
    again = ev.rollout_episodes(random_actor(env.action_space, seed=1), env, seeds)
    assert np.array_equal(random.returns, again.returns)
    assert ev.normalised_score(random.returns, random.returns, oracle.returns).value == pytest.approx(0.0)
    assert ev.normalised_score(oracle.returns, random.returns, oracle.returns) == pytest.approx(
        (1.0, 1.0, 1.0)
    )
    between = ev.normalised_score((random.returns + oracle.returns) / 2, random.returns, oracle.returns)
    assert between == pytest.approx((0.5, 0.5, 0.5))  # resampled together, so without width
    with pytest.raises(ValueError, match="mean return of the oracle above the random policy's"):
        ev.normalised_score(random.returns, oracle.returns, random.returns)


def test_a_recorded_episode_equals_its_rollout(tmp_path: Any) -> None:
    steps: list[ev.Step] = []
    act = actor_with("target", "else", action=0.25)
    episode = record_episode(
        act,
        Dots(1),
        7,
        GRID,
        env_args={"env_name": "Dots"},
        best_head=0,
        policy="hand",
        on_step=steps.append,
    )
    assert len(episode) == len(steps) == 5
    assert episode.rewards == pytest.approx(np.full(5, 0.257))
    assert episode.dones.tolist() == [False] * 4 + [True]
    assert episode.target_masks is not None
    assert episode.target_masks.sum(axis=(1, 2)).tolist() == [0, 4, 4, 4, 4]
    assert np.array_equal(episode.images[..., 0] > 0, episode.target_masks)
    assert episode.states[:, 0].tolist() == [0, 1, 2, 3, 4]  # the state before each action
    assert episode.simulator["seeds"].tolist() == [[7]] * 5
    assert episode.action_names == ("left", "right")
    assert (episode.dt, episode.success, episode.policy) == (0.1, False, "hand")
    save_episode(tmp_path / "e.hdf5", episode)
    loaded = load_episode(tmp_path / "e.hdf5")
    assert np.array_equal(loaded.attention, episode.attention)
    with pytest.raises(ValueError, match="one environment"):
        record_episode(act, Dots(2), 7, GRID, env_args={})


def test_the_same_seed_records_the_same_episode() -> None:
    record: Callable[[int], Any] = lambda seed: record_episode(  # noqa: E731
        actor_with("target"), Dots(1), seed, GRID, env_args={}
    )
    first, second, other = record(4), record(4), record(9)
    assert np.array_equal(first.images, second.images)
    assert len(first) == len(other)
    assert not np.array_equal(first.images, other.images)
