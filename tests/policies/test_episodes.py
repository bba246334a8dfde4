import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from robot_attn_policies.episodes import Episode, EpisodeError, load_episode, save_episode

T, H, W, HEADS, ROWS, COLS, A, S = 5, 11, 13, 3, 2, 3, 2, 7


def make_episode(seed: int = 0, **changes: Any) -> Episode:
    rng = np.random.default_rng(seed)
    attention = rng.random((T, HEADS, ROWS, COLS), dtype=np.float32)
    parts: dict[str, Any] = {
        "images": rng.integers(0, 256, (T, H, W, 3), dtype=np.uint8),
        "actions": rng.normal(size=(T, A)).astype(np.float32),
        "rewards": rng.random(T),
        "dones": np.arange(T) == T - 1,
        "attention": attention / attention.sum(axis=(2, 3), keepdims=True),
        "ys": np.array([2.0, 8.0], dtype=np.float32),
        "xs": np.array([1.5, 6.0, 10.5], dtype=np.float32),
        "env_args": {"env_name": "RobotAttn/Track-v0", "env_kwargs": {"distractors": 6}},
        "seed": 1_000_003,
        "target_masks": rng.random((T, H, W)) < 0.1,
        "state": rng.normal(size=(T, S)).astype(np.float32),
        "states": rng.normal(size=(T, 4)),
        "simulator": {
            "time": rng.random((T, 1)),
            "episode/phases": rng.random((T, 1, 3)),
            "generator": rng.integers(0, 2**63, (T, 1, 4), dtype=np.uint64),
        },
        "success": True,
        "dt": 0.04,
        "best_head": 2,
        "action_names": ("pan", "tilt"),
        "policy": "runs/track/query-0 (best)",
    }
    return Episode(**{**parts, **changes})


def assert_equal(one: Episode, other: Episode) -> None:
    for name in ("images", "actions", "rewards", "dones", "attention", "ys", "xs", "states"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype, name
        assert np.array_equal(a, b), name
    for name in ("target_masks", "state"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None and b is None) or np.array_equal(a, b), name
    assert one.simulator.keys() == other.simulator.keys()
    for name, array in one.simulator.items():
        assert array.dtype == other.simulator[name].dtype, name
        assert np.array_equal(array, other.simulator[name]), name
    for name in ("env_args", "seed", "success", "dt", "best_head", "uniform", "action_names", "policy"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target_masks": None, "state": None, "simulator": {}, "states": np.zeros((0, 0))},
        {"success": None, "dt": None, "action_names": (), "uniform": True},
    ],
)
def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    episode = make_episode(**changes)
    save_episode(tmp_path / "e.hdf5", episode, {"mujoco": "4.0.0"})
    assert_equal(load_episode(tmp_path / "e.hdf5"), episode)
    assert [path.name for path in tmp_path.iterdir()] == ["e.hdf5"]


def test_the_file_follows_robomimics_convention(tmp_path: Path) -> None:
    save_episode(tmp_path / "e.hdf5", make_episode())
    with h5py.File(tmp_path / "e.hdf5", "r") as file:
        assert file["data"].attrs["total"] == T
        assert '"env_name": "RobotAttn/Track-v0"' in file["data"].attrs["env_args"]
        demo = file["data/demo_0"]
        assert demo.attrs["num_samples"] == T
        assert demo["obs/image"].shape == (T, H, W, 3)
        assert demo["obs/image"].dtype == np.uint8
        assert demo["obs/image"].compression == "gzip"
        assert demo["states"].shape == (T, 4)
        assert {"actions", "rewards", "dones"} <= set(demo)


def test_the_same_episode_makes_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_episode(tmp_path / name, make_episode())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    save_episode(tmp_path / "e.hdf5", make_episode())
    before = (tmp_path / "e.hdf5").read_bytes()
    broken = make_episode()
    broken.env_args["env_kwargs"]["unserialisable"] = object()  # type: ignore[index]
    with pytest.raises(TypeError):
        save_episode(tmp_path / "e.hdf5", broken)
    assert (tmp_path / "e.hdf5").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(OSError, match="no folder"):
        save_episode(tmp_path / "missing" / "e.hdf5", make_episode())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((T, 3, H, W), np.uint8)}, "obs/image"),
        ({"images": np.zeros((T, H, W, 3), np.float32)}, "obs/image should be uint8"),
        ({"actions": np.zeros((T + 1, A), np.float32)}, "actions"),
        ({"attention": np.zeros((T, HEADS, COLS, ROWS), np.float32)}, "attention"),
        ({"target_masks": np.zeros((T, W, H), bool)}, "target_mask"),
        ({"target_masks": np.zeros((T, H, W), np.uint8)}, "target_mask should be bool"),
        ({"rewards": np.full(T, np.nan)}, "rewards holds numbers that are NaN"),
        ({"best_head": HEADS}, "no head 3"),
        ({"action_names": ("pan",)}, "2 action dimensions"),
        ({"simulator": {"time": np.zeros((T - 1, 1))}}, "simulator/time"),
        ({"simulator": {"../time": np.zeros((T, 1))}}, "simulator/../time"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EpisodeError, match=message):
        make_episode(**changes)


@pytest.mark.parametrize("room", [0, 1_000, 20_000])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path, room: int) -> None:
    # The largest file a process may write stands in for a full disk: both make a write fail half-way.
    path = tmp_path / "e.hdf5"
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_episodes import make_episode, save_episode
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
try:
    save_episode({str(path)!r}, make_episode())
except OSError as error:
    print(error.filename, error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == f"{path} File too large", done.stderr
    assert list(tmp_path.iterdir()) == []


def mutate_missing(file: h5py.File) -> None:
    del file["data/demo_0/actions"]


def mutate_version(file: h5py.File) -> None:
    file["data"].attrs["robot_attn_format"] = 2


def mutate_foreign(file: h5py.File) -> None:
    del file["data"].attrs["robot_attn_format"]


def mutate_pixel(file: h5py.File) -> None:
    image = file["data/demo_0/obs/image"]
    image[2, 3, 5, 1] = 255 - image[2, 3, 5, 1]


def mutate_shape(file: h5py.File) -> None:
    del file["data/demo_0/target_mask"]
    file["data/demo_0/target_mask"] = np.zeros((T, H), bool)


def mutate_seed(file: h5py.File) -> None:
    demo = file["data/demo_0"]
    demo.attrs["robot_attn"] = demo.attrs["robot_attn"].replace("1000003", "1000004")


def mutate_attributes(file: h5py.File) -> None:
    file["data/demo_0"].attrs["robot_attn"] = "{"


def mutate_external_link(file: h5py.File) -> None:
    del file["data/demo_0/actions"]
    file["data/demo_0/actions"] = h5py.ExternalLink("other.hdf5", "/data/demo_0/actions")


def mutate_external_storage(file: h5py.File) -> None:
    secret = Path(file.filename).with_name("secret")
    secret.write_bytes(bytes(T * A * 4))
    del file["data/demo_0/actions"]
    file["data/demo_0"].create_dataset("actions", (T, A), np.float32, external=[(str(secret), 0, T * A * 4)])


def mutate_bomb(file: h5py.File) -> None:
    del file["data/demo_0/obs/image"]
    file["data/demo_0/obs"].create_dataset("image", (10**6, 10**4, 10**3, 3), np.uint8, chunks=(1, 64, 64, 3))


def mutate_objects(file: h5py.File) -> None:
    del file["data/demo_0/rewards"]
    file["data/demo_0"].create_dataset("rewards", data=["text"] * T, dtype=h5py.string_dtype())


def mutate_plugin(file: h5py.File) -> None:
    actions = file["data/demo_0/actions"][()]
    del file["data/demo_0/actions"]
    file["data/demo_0"].create_dataset("actions", data=actions, compression="lzf")


@pytest.mark.parametrize(
    ("mutate", "message"),
    [
        (mutate_missing, "actions is missing"),
        (mutate_version, "format 2, this version reads format 1"),
        (mutate_foreign, "no episode of robot-attn"),
        (mutate_pixel, "checksum"),
        (mutate_shape, "checksum"),
        (mutate_seed, "checksum"),
        (mutate_attributes, "damaged"),
        (mutate_external_link, "link to elsewhere"),
        (mutate_external_storage, "another file"),
        (mutate_bomb, "more than this file can hold"),
        (mutate_plugin, "plug-in"),
        (mutate_objects, "not plain numbers"),
    ],
)
def test_a_changed_file_is_refused(tmp_path: Path, mutate: Any, message: str) -> None:
    path = tmp_path / "e.hdf5"
    save_episode(path, make_episode())
    with h5py.File(path, "r+") as file:
        mutate(file)
    with pytest.raises(EpisodeError, match=message) as caught:
        load_episode(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flipped_bytes_and_cut_files_load_right_or_not_at_all(tmp_path: Path) -> None:
    good = tmp_path / "good.hdf5"
    episode = make_episode()
    save_episode(good, episode)
    raw = good.read_bytes()
    rng = np.random.default_rng(7)
    refused = 0
    for trial in range(150):
        data = bytearray(raw)
        if trial % 5 == 0:
            data = data[: rng.integers(len(data))]
        else:
            place = int(rng.integers(len(data)))
            data[place] ^= int(rng.integers(1, 256))
        path = tmp_path / "bad.hdf5"
        path.write_bytes(data)
        try:
            assert_equal(load_episode(path), episode)
        except EpisodeError:
            refused += 1
    assert refused > 40  # the rest fell into gaps of the file


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b"plain text, not HDF5", "not an HDF5 file")]
)
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "e.hdf5").write_bytes(content)
    with pytest.raises(EpisodeError, match=message):
        load_episode(tmp_path / "e.hdf5")
    with pytest.raises(FileNotFoundError):
        load_episode(tmp_path / "none.hdf5")


def test_an_episode_moves_with_its_file(tmp_path: Path) -> None:
    save_episode(tmp_path / "a.hdf5", make_episode())
    shutil.move(tmp_path / "a.hdf5", tmp_path / "b.hdf5")
    assert_equal(load_episode(tmp_path / "b.hdf5"), make_episode())
