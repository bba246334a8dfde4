"""`robot-attn export`: the ONNX model acts as the policy does, in our tasks and in others'."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from page_runner import blocks

import robot_attn_envs  # noqa: F401
from robot_attn_policies.probing.probe import probe_policy
from robot_attn_policies.sb3.export import read_onnx_metadata
from robot_attn_policies.sb3.policy import build_policy, policy_weights
from robot_attn_policies.sb3.vec_env import BatchVecEnv
from robot_attn_policies.training.presets import PPOPreset, TrainConfig
from robot_attn_policies.training.run_folder import describe_run, load_policy, write_config, write_policy
from robot_attn_scripts import cli
from robot_attn_scripts._tasks import make_batch
from robot_attn_scripts.export import run
from robot_attn_scripts.options.export import Options

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

OBSERVATIONS = 256
BATCH = 16


def observed(env: Any, count: int) -> list[Any]:
    """Batches of observations of an environment under random actions."""
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    batches = [observation]
    while len(batches) * env.num_envs < count:
        observation, *_ = env.step(env.action_space.sample())
        batches.append(observation)
    return [
        {name: np.array(entry) for name, entry in batch.items()}
        if isinstance(batch, Mapping)
        else np.array(batch)
        for batch in batches
    ]


# Pusher draws with OpenGL, in software here: its frames are small.
TASKS: list[Any] = [
    ("track", {"image_size": 48}, ["pan velocity", "tilt velocity"]),
    ("navigate", {"image_size": 48}, ["forward speed", "turn rate"]),
    (
        "push",
        {"image_size": 48},
        ["velocity along x, away from the base", "velocity along y, left", "velocity along z, up"],
    ),
    (
        "reach",
        {"image_size": 48, "instruction": True},
        ["velocity along x, away from the base", "velocity along y, left", "velocity along z, up"],
    ),
    pytest.param("Pusher-v5", {"image_size": 32}, None, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("task", "options", "names"), TASKS)
def test_the_model_equals_the_policy_on_256_observations(
    task: str, options: dict[str, Any], names: list[str] | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    ppo = PPOPreset(n_envs=2, n_steps=8, batch_size=8, net_arch=(8,))
    perception = "instruction" if options.get("instruction") else "query"
    config = TrainConfig(task, perception=perception, ppo=ppo, env=options)
    env = make_batch(task, options, BATCH)
    vec_env = BatchVecEnv(env, channels_first=True)
    described = describe_run(config, vec_env.observation_space, vec_env.action_space)
    weights = policy_weights(build_policy(config, described.observation_space, described.action_space))
    weights["action_net.weight"] *= 500  # actions of every size, also beyond the bounds
    folder = tmp_path / "run"
    write_config(folder, described)
    write_policy(folder / "best" / "policy.safetensors", weights, described, steps=0)

    path = tmp_path / "new" / "policy.onnx"
    run(Options(folder, onnx=path))
    metadata = read_onnx_metadata(path)
    assert metadata["action_names"] == names
    probe = probe_policy(load_policy(folder)[0])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    actions = []
    for batch in observed(env, OBSERVATIONS):
        inputs = batch if isinstance(batch, dict) else {"observation": batch}
        action, attention, value = session.run(["action", "attention", "value"], inputs)
        expected, percept = probe.act(batch)
        assert percept is not None
        values = probe.values(batch)
        assert values is not None
        np.testing.assert_allclose(action, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(attention, percept.attention.numpy(), rtol=0, atol=1e-5)
        np.testing.assert_allclose(value, values, rtol=0, atol=1e-5)
        actions.append(action)
    found = np.concatenate(actions)
    assert len(found) == OBSERVATIONS
    assert (np.abs(found) == 1).any() and (np.abs(found) < 1).any(), "some actions are clipped, not all"
    vec_env.close()


def test_the_runner_of_the_docs_needs_numpy_and_onnxruntime_only(folder: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tutorials" / "export.md").read_text()
    (runner,) = (block.body for block in blocks(page) if block.title == "run_policy.py")
    assert len([line for line in runner.splitlines() if line.strip()]) <= 20
    (tmp_path / "run_policy.py").write_text(runner)
    run(Options(folder, onnx=tmp_path / "policy.onnx"))
    (batch,) = observed(make_batch("toy", {}, 1), 1)
    np.savez(tmp_path / "observation.npz", **{name: entry[0] for name, entry in batch.items()})
    code = """
import sys
import numpy as np
sys.path.insert(0, ".")
from run_policy import Policy
decision = Policy("policy.onnx")(dict(np.load("observation.npz")))
np.savez("decision.npz", **decision)
print(sorted({"torch", "gymnasium", "stable_baselines3", "robot_attn", "onnx"} & set(sys.modules)))
"""
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    decision = np.load(tmp_path / "decision.npz")
    action, percept = probe_policy(load_policy(folder)[0]).act(batch)
    assert percept is not None
    np.testing.assert_allclose(decision["action"], action[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(decision["attention"], percept.attention[0].numpy(), rtol=0, atol=1e-5)


def test_the_command_says_what_it_wrote(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, figures = tmp_path / "policy.onnx", tmp_path / "figures.json"
    assert cli.main(["export", str(folder), "--onnx", str(path), "--json", str(figures)]) == 0
    out = capsys.readouterr().out
    assert "image" in out and "[batch, 36, 44, 3]" in out and "[batch, 3, 8, 10]" in out
    written = json.loads(figures.read_text())
    assert written["size"] == {"value": path.stat().st_size, "unit": "bytes"}
    assert written["action_names"] == ["up", "left"] and written["task"] == "RobotAttn/Toy-v0"
    assert list(written["inputs"]) == ["image", "state"]


def test_an_existing_file_is_replaced_only_if_told_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.onnx"
    path.write_text("precious")
    line = ["export", str(folder), "--onnx", str(path)]
    assert cli.main(line) == 2
    assert "policy.onnx" in capsys.readouterr().err and path.read_text() == "precious"
    assert cli.main([*line, "--force"]) == 0
    assert read_onnx_metadata(path)["policy"] == "query (best)"


def test_a_full_disk_leaves_the_earlier_file(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    path.write_text("precious")
    # The largest file a process may write stands in for a full disk: the write fails in the same way.
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from toy_run import register
from robot_attn_scripts import cli
register()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(cli.main(["export", {str(folder)!r}, "--onnx", {str(path)!r}, "--force"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    # One line: torch's exporter has warnings of absent packages, which nobody can act on.
    assert (done.returncode, done.stderr) == (2, f"robot-attn: error: {path}: File too large\n")
    assert [file.name for file in tmp_path.iterdir()] == ["policy.onnx"] and path.read_text() == "precious"
