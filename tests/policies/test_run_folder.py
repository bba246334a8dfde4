"""Run folders: what is written is read back, and damaged or crafted folders are rejected."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from mutations import evil_checkpoint, mutations

from robot_attn_policies.sb3.policy import build_policy, policy_weights
from robot_attn_policies.training import run_folder
from robot_attn_policies.training.presets import PPOPreset, TrainConfig
from robot_attn_policies.training.run_folder import (
    Run,
    RunError,
    describe_run,
    load_policy,
    locked,
    read_config,
    read_trainer,
    write_config,
    write_file,
    write_policy,
    write_trainer,
)
from robot_attn_policies.training.spaces_json import space_from_json, space_to_json
from robot_attn_policies.training.train import train

OBSERVATION = spaces.Dict(
    image=spaces.Box(0, 255, (3, 32, 40), np.uint8), state=spaces.Box(-np.inf, 1, (2,), np.float32)
)
ACTION = spaces.Box(-1, 1, (2,), np.float32)
FORMAT_1 = Path(__file__).parent / "data" / "format_1"
CONFIG = TrainConfig("toy", options={"num_heads": 3}, env={"distractors": 2}, ppo=PPOPreset(net_arch=(16, 8)))


def save(
    folder: Path, config: TrainConfig = CONFIG, observation: spaces.Space[Any] = OBSERVATION
) -> dict[str, Any]:
    """A run folder as training leaves it, and the weights in it."""
    run = describe_run(config, observation, ACTION)
    torch.manual_seed(0)
    weights = {}
    for which, path in (
        ("last", folder / "policy.safetensors"),
        ("best", folder / "best/policy.safetensors"),
    ):
        weights[which] = policy_weights(build_policy(config, observation, ACTION))
        write_policy(path, weights[which], run, steps=7)
    write_config(folder, run)
    write_trainer(
        folder,
        {"format": run_folder.FORMAT, "policy": weights["last"], "nested": [1, (2.5, None), {"a": True}]},
    )
    (folder / "best/score.json").write_text("{}")
    (folder / "progress.csv").write_text("steps\n")
    return weights


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, save(folder)


@pytest.fixture
def folder(saved: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved[0], tmp_path / "run"))


def sign(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edit config.json and update its hash, as an attacker could."""
    data = json.loads(path.read_text())
    change(data)
    data.pop("sha256")
    data["sha256"] = run_folder.json_hash(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("which", ["best", "last"])
def test_policies_are_loaded_bit_identically(saved: tuple[Path, dict[str, Any]], which: Any) -> None:
    before = torch.get_rng_state()
    policy, config = load_policy(saved[0], which)
    assert torch.equal(torch.get_rng_state(), before)  # the caller's random state is unchanged
    assert config == CONFIG
    assert not policy.training
    found = policy_weights(policy)
    assert found.keys() == saved[1][which].keys()
    for name, weights in saved[1][which].items():
        assert torch.equal(found[name], weights)
    assert policy.observation_space == OBSERVATION
    assert policy.action_space == ACTION
    frames = {"image": np.zeros((5, 32, 40, 3), np.uint8), "state": np.zeros((5, 2), np.float32)}
    assert policy.predict(frames, deterministic=True)[0].shape == (5, 2)


def test_best_and_last_differ(saved: tuple[Path, dict[str, Any]]) -> None:
    best, last = (policy_weights(load_policy(saved[0], which)[0]) for which in ("best", "last"))  # type: ignore[arg-type]
    assert any(not torch.equal(best[name], last[name]) for name in best)


def test_equal_policies_are_equal_files(folder: Path) -> None:
    before = (folder / "policy.safetensors").read_bytes()
    save(folder)
    assert (folder / "policy.safetensors").read_bytes() == before


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("family", ["query", "keypoints", "cnn"])
def test_every_family_is_loaded_unchanged(tmp_path: Path, family: str, share: bool) -> None:
    observation = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    config = TrainConfig("toy", perception=family, ppo=PPOPreset(share_features_extractor=share))
    run = describe_run(config, observation, spaces.Discrete(3))
    weights = policy_weights(build_policy(config, observation, run.action_space))
    write_config(tmp_path, run)
    write_policy(tmp_path / "policy.safetensors", weights, run, steps=0)
    found = policy_weights(load_policy(tmp_path, "last")[0])
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_a_policy_of_format_1_computes_the_same_actions() -> None:
    """The folder was written by version 0.1.0, which had other names for options and parameters."""
    policy, config = load_policy(FORMAT_1, "last")
    assert config.options == {"num_heads": 2, "patch_dim": 3, "hidden_dim": 2, "features_dim": 5}
    frames = np.arange(3 * 64 * 64 * 3, dtype=np.uint8).reshape(3, 64, 64, 3)
    state = np.linspace(-0.5, 0.5, 12, dtype=np.float32).reshape(3, 4)
    actions, _ = policy.predict({"image": frames, "state": state}, deterministic=True)
    np.testing.assert_allclose(actions, json.loads((FORMAT_1 / "actions.json").read_text()), atol=1e-6)


def test_training_of_format_1_cannot_be_resumed(tmp_path: Path) -> None:
    folder = shutil.copytree(FORMAT_1, tmp_path / "run")
    config = (folder / "config.json").read_bytes()
    with pytest.raises(
        RunError, match="its policies load, but its training cannot be resumed: start a new run"
    ):
        train(
            read_config(folder).config, lambda count, eval_: pytest.fail("none is made"), folder, resume=True
        )
    assert (folder / "config.json").read_bytes() == config


def test_config_holds_no_machine_path(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    for path in (str(Path.home()), str(Path.cwd()), str(folder), sys.prefix):
        assert path not in text


def test_steps_may_be_raised_without_losing_the_policies(folder: Path) -> None:
    run = read_config(folder)
    write_config(folder, replace(run, config=replace(run.config, steps=10**9)))
    assert load_policy(folder)[1].steps == 10**9


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "config.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


BROKEN: list[tuple[Callable[[Path], Any], str]] = [
    (lambda f: shutil.rmtree(f), "expected a run folder with a config.json, got none"),
    (lambda f: (f / "config.json").unlink(), "expected a run folder with a config.json, got none"),
    (
        lambda f: (f / "best/policy.safetensors").unlink(),
        "expected a policy at .*, got none.*or load the last policy",
    ),
    (lambda f: (f / "config.json").write_text("{"), "config.json is truncated or damaged: expected JSON"),
    (lambda f: (f / "config.json").write_bytes(b"[" * 100_000), "config.json is truncated or damaged"),
    (lambda f: (f / "config.json").write_bytes(b" " * (1 << 21)), "at most 1048576 bytes, got 2097152"),
    (lambda f: (f / "config.json").write_text("[]"), "expected format 2, got list"),
    (
        lambda f: edit(f, '"num_heads": 3', '"num_heads": 4'),
        "config.json was edited or damaged.*restore the original",
    ),
    (
        lambda f: os.truncate(f / "best/policy.safetensors", 9000),
        "expected .* bytes by its header, got 9000",
    ),
    (lambda f: os.truncate(f / "best/policy.safetensors", 1000), "expected a header within 1000 bytes, got"),
    (lambda f: os.truncate(f / "best/policy.safetensors", 0), "header"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN)
def test_broken_folders_say_what_is_broken(folder: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(folder)
    with pytest.raises(RunError, match=message):
        load_policy(folder)


def test_one_flipped_bit_anywhere_in_a_policy_is_detected(folder: Path) -> None:
    path = folder / "best/policy.safetensors"
    raw = path.read_bytes()
    for position in [0, 7, 9, 200, len(raw) // 2, len(raw) - 1]:
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 4]) + raw[position + 1 :])
        with pytest.raises(RunError, match=r"policy\.safetensors"):
            load_policy(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d["config"]["options"].update(num_heads=5),
            "expected features_extractor.perception.*5.*got.*3",
        ),
        (
            lambda d: d["config"]["options"].update(num_heads=10**9),
            "option num_heads from -65536 to 65536, got 1e\\+09",
        ),
        (
            lambda d: d["config"]["options"].update(features_dim=65536),
            "has another architecture than config.json describes",
        ),
        (lambda d: d["config"]["options"].update(layers="x"), "cannot be built"),
        (
            lambda d: d["config"]["ppo"].update(net_arch=[10**9]),
            "a width in net_arch from 1 to 65536, got 1e\\+09",
        ),
        (
            lambda d: d["config"]["ppo"].update(net_arch=[65536, 65536]),
            "has another architecture than config.json describes",
        ),
        (lambda d: d["config"]["ppo"].update(net_arch="wide"), "expected ppo.net_arch of type"),
        (
            lambda d: d["config"].update(perception="os.system"),
            "expected a perception family among .*, got 'os.system'",
        ),
        (lambda d: d["config"].update(seed=True), "expected seed of type int, got True"),
        (lambda d: d["config"].pop("seed"), "with the fields"),
        (lambda d: d["config"].update(code="import os"), "with the fields"),
        (lambda d: d.update(action_space={"type": "Discrete", "n": 10**12}), "a positive integer for the n"),
        (
            lambda d: d["observation_space"]["entries"][0][1].update(shape=[10**6, 10**6, 10**6]),
            "at most 33554432 elements",
        ),
        (lambda d: d["observation_space"]["entries"][0][1].update(dtype="object"), "a dtype among"),
        (lambda d: d.update(observation_space={"type": "pickle"}), "expected a Dict, Box"),
    ],
)
def test_edits_with_a_valid_hash_are_rejected_by_types_sizes_and_shapes(
    folder: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    sign(folder / "config.json", change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RunError, match=message):
        load_policy(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_a_checkpoint_of_another_architecture_names_the_difference(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "other", replace(CONFIG, options={"num_heads": 4}))
    shutil.copy(tmp_path / "other/policy.safetensors", folder / "policy.safetensors")
    with pytest.raises(RunError, match=r"expected features_extractor.* \[.*3.*\].*got"):
        load_policy(folder, "last")
    # The same shapes from another configuration: only the hash differs.
    other = spaces.Dict({**OBSERVATION.spaces, "state": spaces.Box(-1, 1, (2,), np.float32)})
    save(tmp_path / "same", observation=other)
    shutil.copy(tmp_path / "same/policy.safetensors", folder / "policy.safetensors")
    with pytest.raises(RunError, match="the shapes are equal, the configurations differ"):
        load_policy(folder, "last")


def test_mutations_load_to_the_right_policy_or_are_rejected(saved: tuple[Path, dict[str, Any]]) -> None:
    counts, bugs = mutations(saved[0], 120, seed=int(os.environ.get("MUTATION_SEED", "0")))
    assert bugs == []
    assert counts["rejected"] > 60
    assert counts.total() == 120


def test_the_order_of_keys_in_the_json_does_not_matter(folder: Path) -> None:
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(dict(reversed(data.items()))))
    load_policy(folder)


def test_trainer_is_loaded_by_torch_with_weights_only(saved: tuple[Path, dict[str, Any]]) -> None:
    state = torch.load(saved[0] / "trainer.pt", weights_only=True)
    assert state["nested"] == [1, (2.5, None), {"a": True}]
    found = read_trainer(saved[0])
    assert all(torch.equal(found["policy"][name], state["policy"][name]) for name in state["policy"])


@pytest.mark.parametrize(
    ("signed", "message"), [(False, "does not match its SHA-256"), (True, "plain containers, got more")]
)
def test_code_in_a_checkpoint_is_not_run(folder: Path, tmp_path: Path, signed: bool, message: str) -> None:
    trace = tmp_path / "trace"
    (folder / "trainer.pt").write_bytes(evil_checkpoint(trace, signed=signed))
    with pytest.raises(RunError, match=message):
        read_trainer(folder)
    assert not trace.exists()
    torch.load(folder / "trainer.pt", weights_only=False)
    assert trace.exists()  # it would have run


def test_nothing_imports_pickle_in_the_package() -> None:
    package = Path(run_folder.__file__).parent
    for path in package.glob("*.py"):
        assert "import pickle" not in path.read_text(), path
        assert "weights_only=False" not in path.read_text(), path


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    """In a separate process whose files may have 1000 bytes: the error is the system's own."""
    target = tmp_path / "file"
    target.write_bytes(b"old")
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from robot_attn_policies.training.run_folder import RunError, write_file\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_file(Path(sys.argv[1]), bytes(2000))\n"
        "except RunError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(target)], capture_output=True, text=True, check=True
    )
    assert "no space left to write" in done.stdout
    assert "--resume" in done.stdout
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unwritable_folder_says_so(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(RunError, match=r"cannot write .*: name a writable folder"):
        write_file(blocker / "config.json", b"")
    with pytest.raises(RunError, match="cannot write"), locked(Path("/proc/nothing/here")):
        pass


def test_only_one_process_trains_in_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunError, match="another training is writing"), locked(tmp_path):
        pass
    with locked(tmp_path):  # free again
        pass


SPACES = st.one_of(
    st.builds(
        lambda shape, dtype: spaces.Box(0, 100, tuple(shape), np.dtype(dtype).type),
        st.lists(st.integers(1, 5), min_size=1, max_size=3),
        st.sampled_from(["uint8", "int64", "float32", "float64"]),
    ),
    st.builds(
        lambda bounds: spaces.Box(
            -np.abs(np.array(bounds, np.float32)), np.full(len(bounds), np.inf, np.float32)
        ),
        st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
    ),
    st.builds(spaces.Discrete, st.integers(1, 1000)),
    st.builds(spaces.MultiDiscrete, st.lists(st.integers(1, 9), min_size=1, max_size=4)),
    st.builds(spaces.MultiBinary, st.integers(1, 9)),
)


@given(
    st.one_of(
        SPACES,
        st.dictionaries(st.text(max_size=5), SPACES, min_size=1, max_size=3).map(lambda d: spaces.Dict(d)),
    )
)
def test_spaces_survive_json(space: spaces.Space[Any]) -> None:
    assert space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False))) == space


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"steps": 0},
        {"threads": 10**6},
        {"stop_score": float("nan")},
        {"options": {"num_heads": 1e9}},
    ],
)
def test_configurations_out_of_range_raise(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"expected.*{next(iter(change))[:5]}"):
        replace(CONFIG, **change)
    with pytest.raises(ValueError, match="gamma from 0 to 1, got 2"):
        PPOPreset(gamma=2)


def test_a_run_records_the_versions_of_libraries() -> None:
    run: Run = describe_run(CONFIG, OBSERVATION, ACTION)
    assert (
        run.versions["torch"] == torch.__version__.partition("+")[0]
        or run.versions["torch"] == torch.__version__
    )
    assert {"python", "numpy", "gymnasium", "stable-baselines3", "warp-lang"} <= set(run.versions)


@pytest.mark.parametrize("renderer", [None, "tiled"])
def test_a_run_names_its_renderer(tmp_path: Path, renderer: str | None) -> None:
    write_config(tmp_path, describe_run(CONFIG, OBSERVATION, ACTION, renderer))
    assert read_config(tmp_path).renderer == renderer


def test_a_perception_of_another_module_is_imported_only_if_a_person_names_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strangers_eyes.py").write_text("from robot_attn.families import Query as Own\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "run"
    save(folder, replace(CONFIG, perception="strangers_eyes:Own"))
    del sys.modules["strangers_eyes"]
    with pytest.raises(
        RunError, match=r"importing 'strangers_eyes' runs its code: .* --module strangers_eyes"
    ):
        load_policy(folder)
    with pytest.raises(RunError, match="name the module too"):
        load_policy(folder, modules=["strangers"])
    assert "strangers_eyes" not in sys.modules
    policy, config = load_policy(folder, modules=["strangers_eyes"])
    assert config.perception == "strangers_eyes:Own"
    assert type(policy.features_extractor.perception).__name__ == "Query"  # type: ignore[union-attr]
