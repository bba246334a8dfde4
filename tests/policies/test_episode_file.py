"""Episode files: round trip, truncated, damaged and malicious files."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from robot_attn import AttentionGrid
from robot_attn.episode import Episode, EpisodeError
from robot_attn_policies.recording.episode_file import load_episode, save_episode

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
        "grid": AttentionGrid([2.0, 8.0], [1.5, 6.0, 10.5], (H, W)),
        "env_args": {"env_name": "RobotAttn/Track-v0", "env_kwargs": {"distractors": 6}},
        "seed": 1_000_003,
        "target_masks": rng.random((T, H, W)) < 0.1,
        "state": rng.normal(size=(T, S)).astype(np.float32),
        "states": rng.normal(size=(T, 4)),
        "simulator": {
            "time": rng.random((T, 1)),
            "task/phases": rng.random((T, 1, 3)),
            "shifts/noise/gain": rng.random((T, 1)),
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
    grids = zip(("ys", "xs"), (one.grid.ys, one.grid.xs), (other.grid.ys, other.grid.xs), strict=True)
    names = ("images", "actions", "rewards", "dones", "attention", "states")
    for name, a, b in [*grids, *((name, getattr(one, name), getattr(other, name)) for name in names)]:
        assert a.dtype == b.dtype, name
        assert a.tobytes() == b.tobytes(), name  # NaN too
    for name in ("target_masks", "things", "state", "values"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None and b is None) or np.array_equal(a, b), name
    assert one.simulator.keys() == other.simulator.keys()
    for name, array in one.simulator.items():
        assert array.dtype == other.simulator[name].dtype, name
        assert np.array_equal(array, other.simulator[name]), name
    for name in (
        "env_args",
        "seed",
        "success",
        "dt",
        "best_head",
        "uniform",
        "action_names",
        "policy",
        "maps",
        "thing_names",
        "thing_descriptions",
    ):
        assert getattr(one, name) == getattr(other, name), name
    assert one.cut == other.cut


NAMES = ("backdrop", "target", "robot", "occluder", "distractor 1")
THINGS: dict[str, Any] = {
    "things": np.random.default_rng(2).integers(0, 5, (T, H, W), dtype=np.uint8),
    "thing_names": NAMES,
    "thing_descriptions": ("backdrop", "red sphere", "robot", "occluder", ""),
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        THINGS,
        {"target_masks": None, "state": None, "simulator": {}, "states": np.zeros((0, 0))},
        {"success": None, "dt": None, "action_names": (), "uniform": True},
        {"values": np.linspace(-1.0, 3.0, T), "maps": "gradient", "cut": 150},
        {"attention": np.zeros((T, HEADS, ROWS, COLS), np.float32)},
        {"attention": np.full((T, HEADS, ROWS, COLS), np.nan, np.float32)},
    ],
)
def test_round_trip_is_bit_identical(tmp_path: Path, changes: dict[str, Any]) -> None:
    episode = make_episode(**changes)
    save_episode(tmp_path / "e.hdf5", episode, {"mujoco": "4.0.0"})
    assert_equal(load_episode(tmp_path / "e.hdf5"), episode)
    assert [path.name for path in tmp_path.iterdir()] == ["e.hdf5"]


def test_files_without_things_are_as_they_were(tmp_path: Path) -> None:
    save_episode(tmp_path / "plain.hdf5", make_episode())
    with h5py.File(tmp_path / "plain.hdf5", "r") as file:
        assert "things" not in file["data/demo_0"]
        assert "thing_names" not in json.loads(file["data/demo_0"].attrs["robot_attn"])
    read = load_episode(tmp_path / "plain.hdf5")
    assert (read.things, read.thing_names, read.thing_descriptions) == (None, (), ())


def test_the_mass_on_each_thing_is_that_of_the_pixels() -> None:
    episode = make_episode(**THINGS)
    names, mass = episode.mass_by_thing()
    assert names == NAMES and mass.shape == (T, HEADS, 5)
    np.testing.assert_allclose(mass.sum(axis=2), 1, rtol=1e-6)
    pixels = episode.attention_maps.upsampled()
    for label in range(5):
        expected = (pixels * (episode.things == label)[:, None]).sum(axis=(2, 3))
        np.testing.assert_allclose(mass[..., label], expected, atol=1e-6)
    # The target's masks alone tell it from all else.
    names, mass = make_episode().mass_by_thing()
    assert names == ("backdrop", "target")
    np.testing.assert_allclose(mass.sum(axis=2), 1, rtol=1e-6)
    blank = make_episode(attention=np.zeros((T, HEADS, ROWS, COLS), np.float32))
    assert np.isnan(blank.mass_by_thing()[1]).all()
    with pytest.raises(ValueError, match="expected an episode with things or target_masks, got neither"):
        make_episode(target_masks=None).mass_by_thing()


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
    with pytest.raises(OSError, match="does not exist: create it first"):
        save_episode(tmp_path / "missing" / "e.hdf5", make_episode())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((T, 3, H, W), np.uint8)}, "obs/image"),
        ({"images": np.zeros((T, H, W, 3), np.float32)}, "expected obs/image uint8"),
        ({"actions": np.zeros((T + 1, A), np.float32)}, "actions"),
        ({"attention": np.zeros((T, HEADS, COLS, ROWS), np.float32)}, "attention"),
        ({"grid": AttentionGrid([2.0, 8.0], [1.5, 6.0, 10.5], (H, W + 1))}, "expected a grid in frames of"),
        ({"grid": AttentionGrid([2.0, 8.0], [1.5, 6.0], (H, W))}, "expected attention"),
        ({"target_masks": np.zeros((T, W, H), bool)}, "target_mask"),
        ({"target_masks": np.zeros((T, H, W), np.uint8)}, "expected target_mask bool"),
        ({"rewards": np.full(T, np.nan)}, "expected rewards of finite numbers, got NaN"),
        ({"values": np.full(T, np.inf)}, "expected values of finite numbers, got NaN or infinity"),
        ({"values": np.zeros(T, np.float32)}, "expected values float64"),
        ({"maps": "saliency"}, "attention, causal, gradient, got 'saliency'"),
        ({"cut": T}, "more than the 5 steps that are left, got 5"),
        ({"best_head": HEADS}, "expected best_head from 0 to 2, got 3"),
        ({"action_names": ("pan",)}, "2 action dimensions"),
        ({"simulator": {"time": np.zeros((T - 1, 1))}}, "simulator/time"),
        ({**THINGS, "things": np.zeros((T, W, H), np.uint8)}, "expected things uint8"),
        ({**THINGS, "things": None}, "got no things, 5 thing_names and 5 thing_descriptions"),
        ({**THINGS, "thing_descriptions": NAMES[:3]}, "got the things, 5 thing_names and 3"),
        ({**THINGS, "things": np.full((T, H, W), 5, np.uint8)}, "expected things below 5, .* got 5"),
        ({"simulator": {"../time": np.zeros((T, 1))}}, "simulator/../time"),
    ],
)
def test_inconsistent_arrays_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EpisodeError, match=message):
        make_episode(**changes)


@pytest.mark.parametrize("room", [0, 1_000, 10_000])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path, room: int) -> None:
    # The largest file a process may write stands in for a full disk: both make a write fail half-way.
    path = tmp_path / "e.hdf5"
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_episode_file import make_episode, save_episode
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
    file["data"].attrs["robot_attn_format"] = 3


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
    file["data/demo_0/obs"].create_dataset("image", (T, 10**5, 10**5, 3), np.uint8, chunks=(1, 64, 64, 3))


def mutate_chunks(file: h5py.File) -> None:
    del file["data/demo_0/actions"]
    sizes = {"shape": (T, A), "maxshape": (None, A), "chunks": (10**9, A)}
    file["data/demo_0"].create_dataset("actions", dtype=np.float32, compression="gzip", **sizes)


def mutate_sums(file: h5py.File) -> None:
    file["data/demo_0/sha256"][0, 31] ^= 1


def mutate_fewer_sums(file: h5py.File) -> None:
    del file["data/demo_0/sha256"]
    file["data/demo_0/sha256"] = np.zeros((0, 32), np.uint8)


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
        (mutate_version, "expected format 1 to 2, got format 3: update"),
        (mutate_foreign, "expected an episode of robot-attn, got an HDF5 file without"),
        (mutate_pixel, "checksum"),
        (mutate_shape, "checksum"),
        (mutate_seed, "checksum"),
        (mutate_attributes, "damaged"),
        (mutate_external_link, "link to elsewhere"),
        (mutate_external_storage, "another file"),
        (mutate_bomb, "more than this file can hold"),
        (mutate_chunks, "expected chunks within actions, got chunks that are larger"),
        (mutate_sums, "checksum"),
        (mutate_fewer_sums, "checksum"),
        (mutate_plugin, "plug-in"),
        (mutate_objects, "expected plain numbers in rewards, got object"),
    ],
)
def test_a_changed_file_is_rejected(tmp_path: Path, mutate: Any, message: str) -> None:
    path = tmp_path / "e.hdf5"
    save_episode(path, make_episode())
    with h5py.File(path, "r+") as file:
        mutate(file)
    with pytest.raises(EpisodeError, match=message) as caught:
        load_episode(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def long_episode(steps: int = 75) -> Episode:
    """An episode of ten blocks, the last of 3 steps."""
    rng = np.random.default_rng(1)
    return make_episode(
        images=rng.integers(0, 256, (steps, H, W, 3), dtype=np.uint8),
        actions=rng.normal(size=(steps, A)).astype(np.float32),
        rewards=rng.random(steps),
        dones=np.arange(steps) == steps - 1,
        attention=rng.random((steps, HEADS, ROWS, COLS), dtype=np.float32),
        target_masks=rng.random((steps, H, W)) < 0.1,
        state=None,
        states=np.zeros((0, 0)),
        simulator={"shifts/noise/gain": rng.random((steps, 1))},
        values=rng.random(steps),
    )


def first_steps(episode: Episode, steps: int) -> Episode:
    """The episode that is read if the file is cut after so many steps."""
    by_step = ("images", "actions", "rewards", "dones", "attention", "target_masks", "states", "values")
    parts: dict[str, Any] = {name: getattr(episode, name)[:steps] for name in by_step}
    parts["simulator"] = {name: array[:steps] for name, array in episode.simulator.items()}
    return dataclasses.replace(episode, **parts, success=None, cut=len(episode))


def test_a_truncated_file_is_read_up_to_its_last_complete_block(tmp_path: Path) -> None:
    path, episode = tmp_path / "e.hdf5", long_episode()
    save_episode(path, episode)
    raw = path.read_bytes()
    places = sorted({*range(1, 60, 7), *np.linspace(1, len(raw) - 1, 150, dtype=int).tolist()})
    read, rejected = [], []
    for place in places:
        path.write_bytes(raw[:place])
        try:
            cut = load_episode(path)
        except EpisodeError as error:
            rejected.append(str(error))
            read.append(0)
            continue
        read.append(len(cut))
        assert_equal(cut, first_steps(episode, len(cut)))
        assert not cut.dones.any()
    assert all("\n" not in message for message in rejected)
    assert all("cut" in message for message in rejected[2:])  # the first two are too short to be HDF5
    assert read == sorted(read)
    assert set(read) == {*range(0, 73, 8)}
    path.write_bytes(raw[:-1])
    save_episode(tmp_path / "again.hdf5", load_episode(path))
    assert_equal(load_episode(tmp_path / "again.hdf5"), first_steps(episode, 72))


def test_a_damaged_block_is_rejected_in_a_truncated_file_too(tmp_path: Path) -> None:
    path, episode = tmp_path / "e.hdf5", long_episode()
    save_episode(path, episode)
    raw = bytearray(path.read_bytes())
    with h5py.File(path, "r") as file:
        chunk = file["data/demo_0/obs/image"].id.get_chunk_info_by_coord((8, 0, 0, 0))
    raw[chunk.byte_offset + chunk.size // 2] ^= 4
    path.write_bytes(raw[:-1])
    with pytest.raises(EpisodeError, match="damaged"):
        load_episode(path)
    path.write_bytes(raw[: chunk.byte_offset])  # the damage is beyond the cut
    assert_equal(load_episode(path), first_steps(episode, 8))


def test_blocks_in_another_order_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "e.hdf5"
    save_episode(path, long_episode())

    def swap(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("token_centers"):
            size = 1 if name == "sha256" else 8
            one, two = item[:size], item[size : 2 * size]
            item[:size], item[size : 2 * size] = two, one

    with h5py.File(path, "r+") as file:
        file["data/demo_0"].visititems(swap)
    with pytest.raises(EpisodeError, match="checksum"):
        load_episode(path)


def test_an_implausible_file_size_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "e.hdf5"
    save_episode(path, make_episode())
    raw = bytearray(path.read_bytes())
    raw[28:36] = (1 << 50).to_bytes(8, "little")
    path.write_bytes(raw)
    with pytest.raises(EpisodeError, match=f"cut after {len(raw)} of {1 << 50} bytes"):
        load_episode(path)


def save_in_format_1(path: Path, episode: Episode, **changes: Any) -> None:
    """Write format 1, which has one checksum for everything."""
    arrays: dict[str, Any] = {
        "actions": episode.actions,
        "rewards": episode.rewards,
        "dones": episode.dones,
        "states": episode.states,
        "obs/image": episode.images,
        "attention": episode.attention,
        "token_centers/ys": episode.grid.ys,
        "token_centers/xs": episode.grid.xs,
        **changes,
    }
    attributes: dict[str, Any] = {
        **{
            "num_samples": T,
            "seed": 1_000_003,
            "success": None,
            "dt": None,
            "best_head": 0,
            "uniform": False,
        },
        **{"action_names": [], "policy": "p", "env_args": "{}"},
    }
    digest = hashlib.sha256(json.dumps(attributes, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(
            f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode() + arrays[name].tobytes()
        )
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["robot_attn_format"] = 1
        demo = file.create_group("data/demo_0")
        demo.attrs["num_samples"] = T
        demo.attrs["robot_attn"] = json.dumps({**attributes, "sha256": digest.hexdigest()})
        for name, array in arrays.items():
            demo.create_dataset(name, data=array, compression="gzip", compression_opts=4)


def test_a_complete_file_of_format_1_is_read(tmp_path: Path) -> None:
    old = make_episode(
        target_masks=None, state=None, simulator={}, env_args={}, policy="p",
        success=None, dt=None, best_head=0, action_names=(),
    )  # fmt: skip
    path = tmp_path / "old.hdf5"
    save_in_format_1(path, old)
    assert_equal(load_episode(path), old)
    raw = path.read_bytes()
    with h5py.File(path, "r+") as file:
        mutate_pixel(file)
    with pytest.raises(EpisodeError, match="checksum"):
        load_episode(path)
    path.write_bytes(raw[:-1])
    with pytest.raises(EpisodeError, match="cut"):
        load_episode(path)


@pytest.mark.parametrize(
    ("ys", "message"),
    [
        (np.array([8.0, 2.0], np.float32), "ascending ys within the frame's 11 pixels"),
        (np.array([2.0, 20.0], np.float32), "ascending ys within the frame's 11 pixels"),
        (np.array([2.0, 8.0]), "expected token_centers/ys float32, got float64"),
    ],
)
def test_cells_outside_the_frame_are_rejected(tmp_path: Path, ys: np.ndarray, message: str) -> None:
    save_in_format_1(tmp_path / "old.hdf5", make_episode(), **{"token_centers/ys": ys})
    with pytest.raises(EpisodeError, match=message):
        load_episode(tmp_path / "old.hdf5")


def test_a_flipped_byte_is_harmless_or_rejected(tmp_path: Path) -> None:
    path, episode = tmp_path / "e.hdf5", make_episode()
    save_episode(path, episode)
    raw = path.read_bytes()
    rng = np.random.default_rng(7)
    rejected = 0
    for _ in range(150):
        data = bytearray(raw)
        data[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
        try:
            assert_equal(load_episode(path), episode)
        except EpisodeError:
            rejected += 1
    assert rejected > 40  # the other bytes are in gaps of the file


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "got an empty file"), (b"plain text, not HDF5", "expected an HDF5 file")]
)
def test_a_file_that_is_not_hdf5_is_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "e.hdf5").write_bytes(content)
    with pytest.raises(EpisodeError, match=message):
        load_episode(tmp_path / "e.hdf5")
    with pytest.raises(FileNotFoundError):
        load_episode(tmp_path / "none.hdf5")


def test_a_moved_file_is_read(tmp_path: Path) -> None:
    save_episode(tmp_path / "a.hdf5", make_episode())
    shutil.move(tmp_path / "a.hdf5", tmp_path / "b.hdf5")
    assert_equal(load_episode(tmp_path / "b.hdf5"), make_episode())
