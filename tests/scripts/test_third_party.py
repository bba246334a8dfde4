"""Environments without a line of ours: Gymnasium's Reacher-v5 through its renderer, and somebody's own."""

import gc
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import AddRenderObservation
from stable_baselines3 import PPO

cv2 = pytest.importorskip("cv2")
pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("h5py")

sys.path.insert(0, str(Path(__file__).parent))
from toy_module import registered  # noqa: E402

from robot_attn.episode import Episode  # noqa: E402
from robot_attn.overlay import overlay  # noqa: E402
from robot_attn.video import ffmpeg_path  # noqa: E402
from robot_attn_policies.evaluation.evaluate import EVALUATION_SEED  # noqa: E402
from robot_attn_policies.pages.report import write_report  # noqa: E402
from robot_attn_policies.probing.explain import explain  # noqa: E402
from robot_attn_policies.recording.episode_file import load_episode  # noqa: E402
from robot_attn_policies.recording.record import record  # noqa: E402
from robot_attn_policies.rollouts.rollout import random_actor  # noqa: E402
from robot_attn_policies.sb3.extractor import PerceptionExtractor, perceive  # noqa: E402
from robot_attn_policies.training.run_folder import load_policy, read_config, read_trainer  # noqa: E402
from robot_attn_policies.training.train import Training  # noqa: E402
from robot_attn_policies.training.trainer_state import seed_after  # noqa: E402
from robot_attn_scripts import _third_party  # noqa: E402
from robot_attn_scripts._tasks import env_id, make_batch, steps_many, with_masks  # noqa: E402
from robot_attn_scripts.cli import main  # noqa: E402
from robot_attn_scripts.train import env_maker  # noqa: E402

SMALL = ["--ppo", "n_envs=2", "n_steps=32", "batch_size=32", "n_epochs=1", "net_arch=[8]"]
STEPS = 20
OPENGL = ["--env", "renderer=opengl"]

LAMP = '''
"""A lamp that moves on a line; left, stay and right move the camera's bright spot."""
import gymnasium
import numpy as np


seeds = []


class Lamp(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, size=32, sees=True, render_mode=None):
        self.size, self.sees, self.render_mode = size, sees, render_mode
        camera = gymnasium.spaces.Box(0, 255, (size, size + 8, 3), np.uint8)
        place = gymnasium.spaces.Box(-1, 1, (1,), np.float64)
        self.observation_space = gymnasium.spaces.Dict(camera=camera, state=place) if sees else place

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        seeds.append(seed)
        self.place = self.np_random.uniform(-0.8, 0.8)
        return self.observe(), self.info()

    def step(self, action):
        assert self.action_space.contains(action), action
        self.place = float(np.clip(self.place + 0.2 * (int(action) - 1), -1, 1))
        return self.observe(), 1 - abs(self.place), abs(self.place) == 1, False, self.info()

    def mask(self):
        mask = np.zeros((self.size, self.size + 8), bool)
        column = round((self.place + 1) / 2 * (self.size + 4))
        mask[self.size // 2 : self.size // 2 + 4, column : column + 4] = True
        return mask

    def observe(self):
        place = np.array([self.place])
        return {"camera": self.render(), "state": place} if self.sees else place

    def info(self):
        return {"is_success": abs(self.place) < 0.2} | ({"target_mask": self.mask()} if self.sees else {})

    def render(self):
        return np.where(self.mask()[..., None], np.uint8([250, 240, 90]), np.uint8([30, 30, 40]))


class Blind(Lamp):
    metadata = {"render_modes": ["ansi"]}


gymnasium.register("Lamp-v0", Lamp, max_episode_steps=12)
gymnasium.register("Lamp/Endless-v0", Lamp)
gymnasium.register("Lamp/Blind-v0", Blind, max_episode_steps=12, kwargs={"sees": False})
'''


@pytest.fixture(scope="module", autouse=True)
def lamp(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("lamps")
    (folder / "lamp_env.py").write_text(LAMP)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield
    for name in ("Lamp-v0", "Lamp/Endless-v0", "Lamp/Blind-v0"):
        gymnasium.registry.pop(name, None)
    sys.modules.pop("lamp_env", None)


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def reacher(**options: Any) -> gymnasium.Env[Any, Any]:
    """Reacher by Gymnasium alone; the state at the first frame decides where its camera stands."""
    _third_party._choose_opengl()
    env = gymnasium.make("Reacher-v5", render_mode="rgb_array", width=64, height=64, max_episode_steps=STEPS)
    # A renderer of another test that is collected later would delete this one's OpenGL objects.
    gc.collect()
    env = _third_party.OwnContext(env)
    env.reset(seed=0)
    env.render()
    return AddRenderObservation(env, **options)


def test_a_plain_cnn_policy_is_recorded_drawn_and_explained(tmp_path: Path) -> None:
    """Neither the policy nor the environment knows of us."""
    pytest.importorskip("captum")
    pytest.importorskip("sklearn")
    env = reacher(render_only=True)
    model = PPO("CnnPolicy", env, n_steps=8, batch_size=8, seed=0)
    episode = record(model, env, seed=3)
    assert len(episode) == STEPS and episode.maps == "causal"
    picture = overlay(episode.images[0], episode.attention_maps[0])
    plain = overlay(episode.images[0], np.ones((1, 1)))
    assert picture.shape == plain.shape == (640, 640, 3)
    assert (picture != plain).any()
    report = explain(model, env, seeds=range(2), curves=False, ablations=())
    write_report(tmp_path / "report.html", report)
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["facts"]["Maps"] == "causal: how much the action changes when pixels are removed"
    assert told["sections"]["faithful"]["verdict"]["outcome"] in ("yes", "no", "undecided")
    env.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "reacher"
    arguments = ["--out", out, "--steps", 64, "--eval-every", 64, "--eval-episodes", 2, "--threads", 1]
    figures = out.parent / "figures.json"
    limit = ["--env", f"max_episode_steps={STEPS}", "renderer=opengl"]
    assert run("train", "Reacher-v5", *arguments, "--json", figures, *limit, *SMALL) == 0
    return out


@pytest.fixture(scope="module")
def lamp_folder(lamp: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "lamp"
    arguments = ["--out", out, "--steps", 64, "--eval-every", 0, "--threads", 1, "--option", "num_heads=3"]
    assert run("train", "lamp_env:Lamp-v0", *arguments, *SMALL) == 0
    return out


@pytest.fixture(scope="module")
def replayed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "replay.mp4"
    assert run("replay", folder, "--out", out, "--png", "--which", "last") == 0
    return out


def frames_of(video: Path) -> int:
    capture, count = cv2.VideoCapture(str(video)), 0
    while capture.read()[0]:
        count += 1
    return count


@pytest.mark.parametrize("closed", [False, True])
def test_the_end_of_one_environment_leaves_anothers_frames(closed: bool) -> None:
    first, second = reacher(), reacher()
    frame = second.render()
    assert frame.any()
    if closed:
        first.close()
        np.testing.assert_array_equal(second.render(), frame)
    del first
    gc.collect()
    np.testing.assert_array_equal(second.render(), frame)
    second.close()
    second.close()  # once more is no error


def test_the_shadow_map_of_small_frames_is_small() -> None:
    for size, expected in ((64, 1024), (480, 1920)):
        batch: Any = make_batch("Pusher-v5", {"renderer": "opengl", "image_size": size}, 1)
        model = batch.unwrapped.envs[0].unwrapped.model
        assert model.vis.quality.shadowsize == expected
        batch.close()


# The extractor alone.


@pytest.mark.parametrize("with_state", [False, True])
def test_the_extractor_learns_on_reacher_from_pixels(with_state: bool) -> None:
    env = reacher(render_only=not with_state)
    model = PPO(
        "MultiInputPolicy" if with_state else "CnnPolicy",
        env,
        n_steps=32,
        batch_size=32,
        n_epochs=1,
        seed=0,
        policy_kwargs={
            "features_extractor_class": PerceptionExtractor,
            "features_extractor_kwargs": {"perception": "query", "num_heads": 3},
        },
    )
    model.learn(32)
    stored = model.rollout_buffer.observations
    assert (stored["pixels"] if with_state else stored).any()  # black frames give no gradient
    # By its moving mean of gradients: a step of a tiny one may be rounded away.
    seen, state = model.policy.features_extractor.named_parameters(), model.policy.optimizer.state
    assert [name for name, weights in seen if not state[weights]["exp_avg"].any()] == []
    percept = perceive(model, env.reset(seed=1)[0])
    heads, cells = percept.attention.shape[1], percept.attention.flatten(2)
    assert heads == 3
    assert cells.min() >= 0
    assert cells.sum(2).numpy() == pytest.approx(np.ones((1, 3)), abs=1e-5)
    # Reacher's own observation, 10 numbers, goes to the heads of the policy behind the features.
    vectors = model.policy.features_extractor.features_dim - percept.features.shape[1]
    assert vectors == (10 if with_state else 0)
    env.close()


# The three commands on Reacher.


def test_training_scores_by_the_return(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = read_config(folder).config
    assert (config.task, config.env) == ("Reacher-v5", {"max_episode_steps": STEPS, "renderer": "opengl"})
    figures = json.loads((folder.parent / "figures.json").read_text())
    assert figures["steps"]["value"] == 64
    assert figures["best_score"] == figures["best_mean_return"]
    assert figures["best_score"]["unit"] == "reward an episode"
    assert figures["best_score"]["value"] < 0
    assert figures["best_success"] is None
    assert not (folder / "reference.json").exists()


def test_going_on_begins_other_episodes_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "Reacher-v5", "--out", tmp_path, "--threads", 1]
    first = ["--env", "max_episode_steps=50", "renderer=opengl", "--steps", 64, "--eval-every", 0]
    assert run(*arguments, *first, *SMALL) == 0
    assert "start new episodes" not in capsys.readouterr().out
    assert run(*arguments, "--resume", "--steps", 128) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("start new episodes: the result will differ from that of uninterrupted training") == 1
    state = read_trainer(tmp_path)
    assert state["steps"] == 128
    # Episodes of 50 steps, begun anew after 32: none has ended after 64.
    assert state["episodes"] == []


def test_going_on_repeats_no_episode(lamp_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(lamp_folder, tmp_path / "run")
    seeds = sys.modules["lamp_env"].seeds
    seeds.clear()
    arguments = ["train", "lamp_env:Lamp-v0", "--out", folder, "--threads", 1, "--resume"]
    for steps in (128, 192):
        assert run(*arguments, "--steps", steps) == 0
    given = [seed for seed in seeds if seed is not None]
    first = [seed_after(0, 64), seed_after(0, 128)]
    assert given == [first[0], first[0] + 1, first[1], first[1] + 1]
    assert len({0, 1, *given}) == 6  # 0 and 1 are those of the start

    config = read_config(folder).config
    training = Training(config, env_maker(config), folder, None, lambda: False)
    training.restore(read_trainer(folder))
    seen: Any = training.model._last_obs
    assert training.model._last_episode_starts.tolist() == [True, True]
    training.close()
    batch = make_batch(config.task, {}, 2)
    last = seed_after(0, 192)
    assert np.array_equal(
        seen["camera"].transpose(0, 2, 3, 1), batch.reset(seed=[last, last + 1])[0]["camera"]
    )


def test_a_replay_has_every_frame(replayed: Path) -> None:
    episode = load_episode(replayed.with_suffix(".hdf5"))
    assert len(episode) == STEPS == frames_of(replayed)
    told = subprocess.run([ffmpeg_path(), "-hide_banner", "-i", replayed], capture_output=True, text=True)
    assert "50 fps" in told.stderr
    assert episode.dt == 0.02
    assert (episode.seed, episode.success, episode.target_masks) == (EVALUATION_SEED, None, None)
    options = {"max_episode_steps": STEPS, "renderer": "opengl"}
    assert dict(episode.env_args) == {"env_name": "Reacher-v5", "env_kwargs": options}
    assert episode.images.shape == (STEPS, 64, 64, 3)
    assert episode.actions.shape == (STEPS, 2)
    assert episode.attention.min() >= 0
    sums = episode.attention.sum(axis=(2, 3))
    assert sums == pytest.approx(np.ones_like(sums), abs=1e-5)
    sheet = cv2.imread(str(replayed.with_suffix(".png")))
    assert sheet.shape[0] > 300
    assert sheet.shape[1] > 600


def played(env: gymnasium.Env[Any, Any], episode: Episode) -> tuple[np.ndarray, list[float]]:
    images, rewards = [env.reset(seed=episode.seed)[0]], []
    for action in episode.actions:
        image, reward, *_ = env.step(action)
        images.append(image)
        rewards.append(float(reward))
    return np.stack(images[:-1]), rewards


def test_what_is_replayed_is_what_gymnasium_alone_gives(replayed: Path, folder: Path) -> None:
    episode = load_episode(replayed.with_suffix(".hdf5"))
    env = reacher()
    images, rewards = played(env, episode)
    env.close()
    assert np.array_equal(images, episode.images)
    assert rewards == pytest.approx(episode.rewards.tolist())
    assert len(np.unique(images.reshape(STEPS, -1), axis=0)) == STEPS  # the arm moves
    policy, _ = load_policy(folder, which="last")
    assert perceive(policy, images).attention.numpy() == pytest.approx(episode.attention, abs=1e-5)
    assert policy.predict(images, deterministic=True)[0] == pytest.approx(episode.actions, abs=1e-4)


def test_an_evaluation_gives_the_return_and_says_what_is_not_known(
    folder: Path, replayed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.json"
    arguments = ["--episodes", 3, "--envs", 2, "--which", "last", "--json", out]
    assert run("evaluate", folder, *arguments) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "not normalised, because this environment has no oracle" in told
    assert "Localisation is not scored: this environment gives no target_mask in its info" in told
    figures = json.loads(out.read_text())
    missing = ("normalised_score", "oracle_return", "success", "focus")
    assert [figures[name] for name in missing] == [None] * 4
    policy, _ = load_policy(folder, which="last")
    env, returns = reacher(), []
    for seed in range(EVALUATION_SEED, EVALUATION_SEED + 3):
        image, _ = env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            image, reward, ended, cut, _ = env.step(policy.predict(image.copy(), deterministic=True)[0])
            total, over = total + float(reward), ended or cut
        returns.append(total)
    env.close()
    assert figures["return"]["mean"]["value"] == pytest.approx(np.mean(returns), rel=1e-4)
    assert returns[0] == pytest.approx(load_episode(replayed.with_suffix(".hdf5")).rewards.sum(), rel=1e-4)
    assert figures["length"]["mean"]["value"] == STEPS
    assert figures["random_return"]["mean"]["value"] < 0


# What an environment of Gymnasium is made into.


def test_a_frame_does_not_depend_on_the_batch_or_on_who_drew_last() -> None:
    alone, three = (make_batch("Reacher-v5", {"renderer": "opengl"}, count) for count in (1, 3))
    seen = three.reset(seed=[5, 6, 7])[0]
    assert seen.shape == (3, 64, 64, 3)
    for seed, image in zip((5, 6, 7), seen, strict=True):
        assert np.array_equal(alone.reset(seed=[seed])[0][0], image)
    other = make_batch("InvertedPendulum-v5", {"image_size": [48, 80], "renderer": "opengl"}, 2)
    assert other.reset(seed=[0, 1])[0].shape == (2, 48, 80, 3)
    assert np.array_equal(three.reset(seed=[5, 6, 7])[0], seen)
    other.close()  # and with it the OpenGL context that was current
    assert np.array_equal(three.reset(seed=[5, 6, 7])[0], seen)
    alone.close()
    three.close()


def test_the_batch_tells_its_limit_and_its_pace() -> None:
    batch: Any = make_batch("InvertedPendulum-v5", {"max_episode_steps": 7, "renderer": "opengl"}, 1)
    assert (batch.horizon, batch.dt) == (7, 1 / 25)
    batch.close()


def test_actions_are_brought_to_one() -> None:
    batch: Any = make_batch("InvertedPendulum-v5", {"renderer": "opengl"}, 2)  # its own range is -3 to 3
    space = batch.single_action_space
    assert (space.low.tolist(), space.high.tolist()) == ([-1], [1])
    batch.reset(seed=[0, 1])
    batch.step(np.float32([[0.5], [-1]]))
    assert [env.unwrapped.data.ctrl.tolist() for env in batch.unwrapped.envs] == [[1.5], [-3.0]]
    batch.close()


def test_frames_that_are_rendered_otherwise_are_scaled() -> None:
    options = {"sees": False, "size": 16}
    batch = make_batch("lamp_env:Lamp-v0", {**options, "image_size": [32, 48]}, 2)
    assert batch.single_observation_space == spaces.Box(0, 255, (32, 48, 3), np.uint8)
    plain = make_batch("lamp_env:Lamp-v0", {**options, "image_size": [16, 24]}, 2)  # as it renders
    large, small = (env.reset(seed=[3, 4])[0] for env in (batch, plain))
    assert np.array_equal(large, small.repeat(2, 1).repeat(2, 2))
    assert (large == [250, 240, 90]).all(3).sum((1, 2)).tolist() == [64, 64]


def test_random_actions_fit_any_space() -> None:
    act = random_actor(spaces.MultiDiscrete([3, 3]), seed=1)
    drawn = np.stack([act({})[0] for _ in range(200)])
    assert drawn.shape == (200, 2)
    assert set(np.unique(drawn)) == {0, 1, 2}
    unbounded = random_actor(spaces.Box(-np.inf, np.inf, (2, 3), np.float32), seed=1)
    assert np.isfinite(unbounded({})[0]).all()


# Somebody's own environment: discrete actions, an image under another name, success and target masks.


def test_a_discrete_environment_that_sees_is_replayed(lamp_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "lamp.mp4"
    arguments = ["--which", "last", "--calibration-episodes", 4, "--seed", 3]
    assert run("replay", lamp_folder, "--module", "lamp_env", "--out", out, *arguments) == 0
    episode = load_episode(out.with_suffix(".hdf5"))
    assert len(episode) == frames_of(out) <= 12
    assert episode.dt == 1 / 8
    assert episode.images.shape[1:] == (32, 40, 3)
    assert episode.target_masks is not None
    assert np.array_equal((episode.images == [250, 240, 90]).all(3), episode.target_masks)
    assert episode.target_masks.sum((1, 2)).tolist() == [16] * len(episode)
    assert episode.state is not None
    assert episode.actions.sum(1).tolist() == [1] * len(episode)  # one of the three
    moved = np.diff(episode.state[:, 0])
    assert moved == pytest.approx(0.2 * (episode.actions[:-1].argmax(1) - 1), abs=1e-6)
    last = np.clip(episode.state[-1, 0] + 0.2 * (episode.actions[-1].argmax() - 1), -1, 1)
    assert episode.success == (abs(last) < 0.2)


def test_a_discrete_environment_that_sees_is_evaluated(
    lamp_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.json"
    arguments = ["--which", "last", "--episodes", 6, "--calibration-episodes", 4, "--json", out]
    assert run("evaluate", lamp_folder, "--module", "lamp_env", *arguments) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "has no oracle" in told
    assert "Localisation is not scored" not in told
    figures = json.loads(out.read_text())
    assert figures["normalised_score"] is None
    assert 0 <= figures["success"]["mean"]["value"] <= 1
    assert figures["focus"]["chance"]["value"] == pytest.approx(16 / (32 * 40))
    assert len(figures["focus"]["heads"]) == 3
    uniform = figures["focus"]["references"]["uniform"]["mass_over_chance"]["value"]
    assert uniform == pytest.approx(1, rel=1e-5)


# What cannot be done is one line.


def test_names() -> None:
    assert (env_id("track"), steps_many("track")) == ("RobotAttn/Track-v0", True)
    assert (env_id("Reacher-v5"), steps_many("Reacher-v5")) == ("Reacher-v5", False)
    assert (env_id("lamp_env:Lamp-v0"), steps_many("lamp_env:Lamp-v0")) == ("Lamp-v0", False)


def test_an_id_without_a_single_environment_is_made_as_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "Mine/VectorOnly-v0"
    monkeypatch.setattr(gymnasium.envs.registration, "registry", {**gymnasium.registry})
    monkeypatch.setattr(gymnasium, "registry", gymnasium.envs.registration.registry)
    task = {"task": "robot_attn_envs.tasks.track:Track"}
    gymnasium.register(name, vector_entry_point="robot_attn_envs.make:make_batch", kwargs=task)
    assert steps_many(name)
    assert with_masks(name, {"distractors": 1}) == {"distractors": 1}  # a function that names no such option
    batch = make_batch(name, {"distractors": 1}, 2)
    assert (batch.num_envs, batch.horizon) == (2, 150)
    batch.close()


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("Reacher-v9", [], "did you mean 'Reacher-v5'"),
        ("reacher-v5", [], "did you mean 'Reacher-v5'"),
        ("trakc", [], "did you mean 'track'"),
        ("RobotAttn/Track-v0", [], "did you mean 'track'"),
        ("no_such_module:Task-v0", [], "put its folder in PYTHONPATH"),
        ("lamp_env:Lamp-v1", [], "did you mean 'Lamp-v0'"),
        ("lamp_env:Lamp/Blind-v0", [], "got Lamp/Blind-v0 with render modes ['ansi']"),
        ("lamp_env:Lamp/Endless-v0", [], "such as --env max_episode_steps=1000"),
        ("lamp_env:Lamp-v0", ["--env", "image_size=16"], "images have a fixed size, got one: omit it"),
        ("lamp_env:Lamp-v0", ["--env", "colour=red"], "cannot be made with colour='red'"),
        ("Reacher-v5", [*OPENGL, "image_size=0"], "in pixels, a number or [height, width], got 0"),
        ("Reacher-v5", [*OPENGL, "image_size=[64,64,3]"], "in pixels, a number or [height, width]"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, options: list[str], message: str
) -> None:
    assert run("train", task, "--out", tmp_path / "run", *options) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1, told
    assert message in told[0]
    assert not (tmp_path / "run/config.json").exists()


def test_a_package_that_draws_and_is_not_installed_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)  # as where it is not installed
    assert run("train", "CartPole-v1", "--out", tmp_path / "run") == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1, told
    assert "CartPole-v1 cannot be made: pygame is not installed, run `pip install" in told[0]


@pytest.mark.parametrize("named", [{}, {"MUJOCO_GL": "egl"}])
def test_without_opengl_it_says_what_to_install(tmp_path: Path, named: dict[str, str]) -> None:
    # A process of its own: a library that was loaded once is there to stay.
    code = textwrap.dedent("""
        import sys
        from robot_attn_scripts import _third_party
        from robot_attn_scripts.cli import main
        _third_party.EGL = "libEGL-that-is-missing.so.1"
        sys.exit(main(["train", "Reacher-v5", "--env", "renderer=opengl", "--steps", "64", "--eval-every",
            "0", "--out", *sys.argv[1:]]))
    """)
    variables = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"} | named
    command = [sys.executable, "-c", code, tmp_path / "run", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert done.returncode == 2
    told = done.stderr.strip().splitlines()
    assert len(told) == 1, told
    assert "there is no OpenGL to draw with" in told[0]
    assert "apt-get install libegl1" in told[0]


@pytest.mark.parametrize("command", ["evaluate", "replay"])
@pytest.mark.parametrize("named", [[], ["--module", "another"]])
def test_what_a_folder_names_is_not_imported_until_a_person_names_it(
    command: str, named: list[str], lamp_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, lamp_folder, "--which", "last", *named) == 2
    assert "if you trust it, add --module lamp_env" in capsys.readouterr().err


# Observations go in whole.

SEEING = '''
import gymnasium
import numpy as np
from gymnasium import spaces

H, W = 36, 44
IMAGES = {
    "grey": spaces.Box(0, 255, (H, W, 1), np.uint8),
    "flat": spaces.Box(0, 255, (H, W), np.uint8),
    "rgba": spaces.Box(0, 255, (H, W, 4), np.uint8),
    "first": spaces.Box(0, 255, (3, H, W), np.uint8),
    "float": spaces.Box(0, 1, (H, W, 3), np.float32),
    "stack": spaces.Box(0, 255, (2, H, W, 3), np.uint8),
    "large": spaces.Box(0, 255, (480, 640, 3), np.uint8),
}


class Seeing(gymnasium.Env):
    """Random frames of any form, alone or with a state; it renders something else."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}
    action_space = spaces.Discrete(3)

    def __init__(self, kind="grey", alone=False, nested=False, render_mode=None):
        self.render_mode = render_mode
        state = spaces.Box(-1, 1, (2,), np.float32)
        space = IMAGES[kind] if alone else spaces.Dict(camera=IMAGES[kind], state=state)
        self.observation_space = spaces.Dict(robot=space) if nested else space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}

    def render(self):
        return np.zeros((64, 64, 3), np.uint8)


gymnasium.register("Seeing-v0", Seeing, max_episode_steps=4)
'''


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with registered(tmp_path_factory.mktemp("seeing") / "seeing_env.py", SEEING, "Seeing-v0") as module:
        yield module


@pytest.mark.parametrize("alone", [False, True], ids=["with a state", "alone"])
@pytest.mark.parametrize("kind", ["grey", "flat", "rgba", "first", "float", "stack", "large"])
def test_an_environments_own_frames_and_state_are_trained_on_and_recorded(
    kind: str, alone: bool, seeing: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    training = ["--out", out, "--steps", 16, "--eval-every", 16, "--eval-episodes", 2, "--threads", 1]
    small = ["--ppo", "n_envs=2", "n_steps=8", "batch_size=8", "n_epochs=1", "net_arch=[8]"]
    scene = ["--env", f"kind={kind}", f"alone={str(alone).lower()}"]
    assert run("train", "seeing_env:Seeing-v0", *training, *small, *scene) == 0
    policy, _ = load_policy(out, which="last")
    space = policy.observation_space
    image = space if alone else space["camera"]  # type: ignore[index]
    assert image.dtype == seeing.IMAGES[kind].dtype
    assert sorted(image.shape) == sorted(seeing.IMAGES[kind].shape)
    assert alone or space["state"].shape == (2,)  # type: ignore[index]

    video = tmp_path / "replay.mp4"
    arguments = ["--module", "seeing_env", "--which", "last", "--seed", 3]
    assert run("replay", out, "--out", video, *arguments) == 0
    episode = load_episode(video.with_suffix(".hdf5"))
    env = seeing.Seeing(kind, alone)
    first, _ = env.reset(seed=3)
    frame = first if alone else first["camera"]
    frame = frame[-1] if kind == "stack" else np.moveaxis(frame, 0, -1) if kind == "first" else frame
    frame = frame[..., None] if kind == "flat" else frame[..., :3]
    expected = np.rint(frame * 255) if kind == "float" else frame
    assert np.array_equal(episode.images[0], np.broadcast_to(expected, episode.images.shape[1:]))
    if alone:
        assert episode.state is None
    else:
        assert episode.state is not None and np.array_equal(episode.state[0], first["state"])
    assert (
        run("evaluate", out, "--episodes", 2, "--envs", 2, "--which", "last", "--module", "seeing_env") == 0
    )


def test_a_space_inside_another_is_refused(
    seeing: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "seeing_env:Seeing-v0", "--env", "nested=true", "--out", tmp_path / "run") == 2
    assert "a space inside another" in " ".join(capsys.readouterr().err.split())
