"""A policy as an ONNX model: the actions, maps and values of the policy, from raw observations."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import QRDQN, TQC, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy
from toy_frames import H, RandomFrames, W

from robot_attn import MAX_TOKENS, tokenize
from robot_attn.vocabulary import WORDS
from robot_attn_policies.probing.probe import probe_policy
from robot_attn_policies.rollouts.policy_actor import policy_actor
from robot_attn_policies.sb3.act import act
from robot_attn_policies.sb3.export import METADATA, export_policy_onnx
from robot_attn_policies.sb3.extractor import PerceptionExtractor
from robot_attn_policies.sb3.policy import PerceptionPolicy

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

B = 5
LOPSIDED = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 0.5], np.float32))
NARROW = spaces.Box(-1e-3, 1e-3, (2,), np.float32)  # narrower than an untrained policy's actions
RNG = np.random.default_rng(0)


def make(
    algorithm: type[BaseAlgorithm],
    actions: spaces.Space[Any],
    policy: str | type[Any] = "MultiInputPolicy",
    vector: bool = True,
    perception: str = "query",
    **kwargs: Any,
) -> Any:
    torch.manual_seed(0)
    if algorithm in (SAC, TD3, TQC, DQN, QRDQN):
        kwargs["buffer_size"] = 8
    kwargs["policy_kwargs"] = kwargs.get("policy_kwargs", {}) | {
        "features_extractor_class": PerceptionExtractor,
        "features_extractor_kwargs": {"perception": perception},
    }
    return algorithm(policy, RandomFrames(actions, vector), seed=0, **kwargs).policy  # type: ignore[arg-type]


def session_of(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(path: Path, observation: Any) -> dict[str, Any]:
    session = session_of(path)
    names = [entry.name for entry in session.get_outputs()]
    inputs = observation if isinstance(observation, dict) else {"observation": observation}
    return dict(zip(names, session.run(names, inputs), strict=True))


def observations(vector: bool, batch: int = B) -> Any:
    frames = RNG.integers(0, 256, (batch, H, W, 3), dtype=np.uint8)
    state = RNG.uniform(-1, 1, (batch, 2)).astype(np.float32)
    return {"image": frames, "state": state} if vector else frames


def assert_same(policy: Any, path: Path, observation: Any) -> None:
    found = run(path, observation)
    actions, percept = policy_actor(policy)(observation)
    assert found["action"].dtype == actions.dtype
    np.testing.assert_allclose(found["action"], actions, rtol=0, atol=1e-5)
    assert percept is not None
    np.testing.assert_allclose(found["attention"], percept.attention.numpy(), rtol=0, atol=1e-5)
    values = probe_policy(policy).values(observation)
    if "value" in found:
        assert values is not None
        np.testing.assert_allclose(found["value"], values, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "actions", "kwargs", "outputs"),
    [
        (PPO, LOPSIDED, {}, ["action", "attention", "value"]),
        (PPO, NARROW, {"policy": PerceptionPolicy}, ["action", "attention", "value"]),
        (PPO, NARROW, {"policy": "CnnPolicy", "vector": False}, ["action", "attention", "value"]),
        (PPO, spaces.Discrete(3), {}, ["action", "attention", "value"]),
        (A2C, spaces.MultiDiscrete([3, 2]), {}, ["action", "attention", "value"]),
        (A2C, spaces.MultiBinary(3), {}, ["action", "attention", "value"]),
        (
            PPO,
            LOPSIDED,
            {
                "use_sde": True,
                "policy_kwargs": {"squash_output": True, "share_features_extractor": False},
            },
            ["action", "attention"],
        ),
        (SAC, LOPSIDED, {}, ["action", "attention"]),
        (TQC, LOPSIDED, {"use_sde": True}, ["action", "attention"]),
        (TD3, LOPSIDED, {}, ["action", "attention"]),
        (DQN, spaces.Discrete(3), {}, ["action", "attention"]),
        (QRDQN, spaces.Discrete(3), {}, ["action", "attention"]),
    ],
)
def test_the_model_does_what_the_policy_does(
    algorithm: Any, actions: Any, kwargs: dict[str, Any], outputs: list[str], tmp_path: Path
) -> None:
    policy = make(algorithm, actions, **kwargs)
    path = export_policy_onnx(policy, tmp_path / "policy.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["policy.onnx"]
    assert [entry.name for entry in session_of(path).get_outputs()] == outputs
    for batch in (1, B):
        assert_same(policy, path, observations(kwargs.get("vector", True), batch))


class EveryEntry(RandomFrames):
    """An observation with an entry of every kind, and images of every layout that SB3 leaves as it is."""

    def __init__(self) -> None:
        super().__init__(LOPSIDED, vector=True)
        assert isinstance(self.observation_space, spaces.Dict)
        self.observation_space = spaces.Dict(
            {
                **self.observation_space.spaces,
                "wrist": spaces.Box(0, 255, (40, 32, 1), np.uint8),
                "stack": spaces.Box(0, 255, (4, 33, 35, 3), np.uint8),
                "depth": spaces.Box(0, 2.5, (36, 34, 1), np.float32),
                "tokens": spaces.Box(0, len(WORDS), (MAX_TOKENS,), np.int64),
                "gear": spaces.Discrete(4),
                "lights": spaces.MultiBinary(3),
                "dials": spaces.MultiDiscrete([2, 5]),
                "pose": spaces.Box(-np.inf, np.inf, (2, 3), np.float64),
            }
        )


IMAGES = {"image": [H, W], "wrist": [40, 32], "stack": [33, 35], "depth": [36, 34]}


@pytest.mark.parametrize(
    ("perception", "image"), [("query", None), ("instruction", "image"), ("keypoints", ["stack", "depth"])]
)
def test_every_kind_of_entry_keeps_its_name_shape_and_dtype(
    perception: str, image: Any, tmp_path: Path
) -> None:
    kwargs = {
        "features_extractor_class": PerceptionExtractor,
        "features_extractor_kwargs": {"perception": perception, "image": image},
    }
    env = EveryEntry()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the images that are left out
        policy = PPO("MultiInputPolicy", env, seed=0, policy_kwargs=kwargs).policy
    path = export_policy_onnx(policy, tmp_path / "policy.onnx")
    space = env.observation_space
    assert isinstance(space, spaces.Dict)
    rows = [space.sample() for _ in range(B)]
    observation = {name: np.stack([row[name] for row in rows]) for name in space.spaces}
    observation["tokens"][:] = tokenize("reach the red ball")
    assert [entry.name for entry in session_of(path).get_inputs()] == list(space.spaces)
    found = run(path, observation)
    cameras = list(IMAGES) if image is None else [image] if isinstance(image, str) else image
    for key in cameras:
        action, percept, _ = act(policy, observation, image=key)
        name = "attention" if len(cameras) == 1 else f"attention.{key}"
        np.testing.assert_allclose(found[name], percept.attention.numpy(), rtol=0, atol=1e-5)
        np.testing.assert_allclose(found["action"], action, rtol=0, atol=1e-5)
        assert metadata_of(path)["outputs"][name]["image"] == key
    assert len(found) == len(cameras) + 2
    inputs = metadata_of(path)["inputs"]
    assert {name: (entry["shape"], entry["dtype"]) for name, entry in inputs.items()} == {
        name: (list(entry.shape or ()), str(entry.dtype)) for name, entry in space.spaces.items()
    }
    assert {name: entry["image_size"] for name, entry in inputs.items() if "image_size" in entry} == IMAGES
    assert (inputs["pose"]["low"], inputs["pose"]["high"]) == ("-inf", "inf")
    assert (inputs["gear"]["n"], inputs["dials"]["nvec"]) == (4, [2, 5])


def test_an_environment_with_channels_first_keeps_them(tmp_path: Path) -> None:
    policy = make(PPO, LOPSIDED)
    path = export_policy_onnx(policy, tmp_path / "policy.onnx", channels_first=True)
    observation = observations(vector=True)
    turned = {**observation, "image": np.moveaxis(observation["image"], -1, -3)}
    assert metadata_of(path)["inputs"]["image"]["shape"] == [3, H, W]
    np.testing.assert_allclose(run(path, turned)["action"], act(policy, observation)[0], rtol=0, atol=1e-5)


def metadata_of(path: Path) -> dict[str, Any]:
    texts = session_of(path).get_modelmeta().custom_metadata_map
    read: dict[str, Any] = json.loads(texts[METADATA])
    return read


def test_the_file_describes_its_inputs_and_outputs(tmp_path: Path) -> None:
    policy = make(PPO, LOPSIDED)
    path = export_policy_onnx(policy, tmp_path / "policy.onnx", about={"task": "Toy-v0"})
    about = metadata_of(path)
    assert about["task"] == "Toy-v0" and about["version"] == "0.1.0"
    image = {"type": "Box", "shape": [H, W, 3], "dtype": "uint8", "low": 0, "high": 255}
    assert about["inputs"]["image"] == image | {"image_size": [H, W]}
    action = about["outputs"]["action"]
    assert (action["shape"], action["low"], action["high"]) == ([2], [-2.0, 0.0], [2.0, 0.5])
    grid = probe_policy(policy).grid
    attention = about["outputs"]["attention"]
    assert attention["shape"] == [8, *grid.shape] and attention["image"] == "image"
    assert attention["ys"] == grid.ys.tolist() and attention["xs"] == grid.xs.tolist()
    assert list(about["outputs"]) == ["action", "attention", "value"]


def test_the_control_without_attention_has_no_map(tmp_path: Path) -> None:
    policy = make(PPO, LOPSIDED, perception="cnn")
    path = export_policy_onnx(policy, tmp_path / "policy.onnx")
    observation = observations(vector=True)
    found = run(path, observation)
    assert list(found) == ["action", "value"] == list(metadata_of(path)["outputs"])
    np.testing.assert_allclose(
        found["action"], policy.predict(observation, deterministic=True)[0], rtol=0, atol=1e-5
    )


def test_a_policy_in_training_stays_so(tmp_path: Path) -> None:
    policy = make(PPO, LOPSIDED)
    policy.set_training_mode(True)
    torch.distributions.Distribution.set_default_validate_args(True)  # torch.compile turns it off for all
    export_policy_onnx(policy, tmp_path / "policy.onnx")
    assert policy.training and torch.distributions.Distribution._validate_args


class Doubling(ActorCriticPolicy):
    """Chooses actions in a way that only `predict` knows."""

    def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
        return 2 * super()._predict(observation, deterministic)


@pytest.mark.parametrize(
    ("policy", "match"),
    [
        (lambda: make(RecurrentPPO, LOPSIDED, "MultiInputLstmPolicy"), "which has a memory between steps"),
        (
            lambda: make(MaskablePPO, spaces.Discrete(3)),
            "MaskableMultiInputActorCriticPolicy, which also needs a mask of the actions",
        ),
        (lambda: make(PPO, LOPSIDED, Doubling), "Doubling, which overrides how actions are chosen"),
        (
            lambda: PPO(ActorCriticCnnPolicy, RandomFrames(LOPSIDED)).policy,
            "expected a policy whose features extractor is a PerceptionExtractor, got NatureCNN",
        ),
    ],
)
def test_a_policy_that_does_not_fit_in_a_graph_is_refused(policy: Any, match: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=match):
        export_policy_onnx(policy(), tmp_path / "policy.onnx")
    assert list(tmp_path.iterdir()) == []
