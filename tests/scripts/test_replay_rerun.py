"""An episode as a Rerun recording, read back by Rerun's own reader."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py")
pytest.importorskip("cv2")
rr = pytest.importorskip("rerun")

from robot_attn import AttentionGrid  # noqa: E402
from robot_attn.episode import Episode  # noqa: E402
from robot_attn_policies.pages.page import View  # noqa: E402
from robot_attn_scripts._rerun import write_rerun  # noqa: E402

T, H, W, HEADS, ROWS, COLS = 5, 12, 20, 2, 3, 5
NAN = float("nan")
MASS = np.array([[0.5, 0.1], [0.75, 0.2], [NAN, NAN], [0.25, 0.3], [1.0, NAN]])


def make(**changes: Any) -> Episode:
    rng = np.random.default_rng(0)
    attention = np.zeros((T, HEADS, ROWS, COLS), dtype=np.float32)
    attention[:, 0, 1, 2] = 1  # rows 4 to 7, columns 8 to 11
    attention[:, 1] = 1 / (ROWS * COLS)
    masks = np.zeros((T, H, W), dtype=bool)
    masks[[0, 1, 3, 4], 4:8, 8:12] = True
    parts: dict[str, Any] = {
        "images": rng.integers(0, 256, (T, H, W, 3), dtype=np.uint8),
        "actions": np.linspace(-1, 1, 2 * T, dtype=np.float32).reshape(T, 2),
        "rewards": np.array([0.5, 1.0, 0.25, 0.0, 0.75]),
        "dones": np.arange(T) == T - 1,
        "attention": attention,
        "grid": AttentionGrid(np.arange(ROWS) * 4 + 1.5, np.arange(COLS) * 4 + 1.5, (H, W)),
        "env_args": {"env_name": "RobotAttn/Toy-v0"},
        "seed": 5,
        "target_masks": masks,
        "dt": 0.05,
        "action_names": ("pan velocity", "tilt"),
        "values": np.array([3.0, 2.0, 1.0, 0.5, 0.0]),
    }
    return Episode(**{**parts, **changes})


def entities(path: Path) -> dict[str, Any]:
    """The columns of every entity that changes with time, by its name; static ones after "static "."""
    found: dict[str, Any] = {}
    for chunk in rr.chunk.RrdReader(path).stream():
        name = ("static " if chunk.is_static else "") + str(chunk.entity_path)
        batch = chunk.to_record_batch()
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        found.setdefault(name, {}).update(columns)
    return found


def column(columns: dict[str, Any], ending: str) -> list[Any]:
    (name,) = [name for name in columns if name.endswith(ending)]
    return list(columns[name].to_pylist())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("rrd") / "a.rrd"
    view = View("top", np.full((T, 6, 8, 3), 7, dtype=np.uint8))
    write_rerun(path, make(), MASS, title="a title", view=view)
    (recording,) = rr.chunk.RrdReader(path).recordings()
    assert recording.application_id == "robot-attn"
    assert len(rr.chunk.RrdReader(path).blueprints()) == 1
    assert [each.name for each in path.parent.iterdir()] == ["a.rrd"]
    return entities(path)


def test_frames_masks_and_maps_come_back_bit_for_bit(written: dict[str, Any]) -> None:
    episode = make()
    assert episode.target_masks is not None
    expected = {
        "/camera/frame": ("Image:buffer", episode.images),
        "/camera/target": ("SegmentationImage:buffer", episode.target_masks.astype(np.uint8)),
        "/maps/head_0": ("DepthImage:buffer", episode.attention[:, 0]),
        "/maps/head_1": ("DepthImage:buffer", episode.attention[:, 1]),
        "/view": ("Image:buffer", np.full((T, 6, 8, 3), 7, dtype=np.uint8)),
    }
    for name, (ending, array) in expected.items():
        rows = column(written[name], ending)
        assert [bytes(row[0]) for row in rows] == [step.tobytes() for step in array], name
        (form,) = column(written[f"static {name}"], ":format")[0]
        assert (form["height"], form["width"]) == array.shape[1:3]


def test_numbers_stand_at_their_steps_and_seconds(written: dict[str, Any]) -> None:
    scalars = {
        "/reward": [0.5, 1.0, 0.25, 0.0, 0.75],
        "/return": [0.5, 1.5, 1.75, 1.75, 2.5],
        "/value": [3.0, 2.0, 1.0, 0.5, 0.0],
        "/action/pan\\ velocity": np.linspace(-1, 1, 10)[::2],
        "/action/tilt": np.linspace(-1, 1, 10)[1::2],
    }
    for name, values in scalars.items():
        assert [row[0] for row in column(written[name], "Scalars:scalars")] == pytest.approx(values), name
        assert written[name]["step"].to_pylist() == [0, 1, 2, 3, 4]
        assert [time.total_seconds() for time in written[name]["time"].to_pylist()] == pytest.approx(
            [0, 0.05, 0.1, 0.15, 0.2]
        )
    # Where the target is not seen, and where a head has no map, there is no focus.
    assert written["/focus/head_0"]["step"].to_pylist() == [0, 1, 3, 4]
    assert written["/focus/head_1"]["step"].to_pylist() == [0, 1, 3]
    assert column(written["/focus/head_1"], "Scalars:scalars") == [[0.1], [0.2], [0.3]]
    assert written["/focus/chance"]["step"].to_pylist() == [0, 1, 3, 4]
    assert column(written["/focus/chance"], "Scalars:scalars")[0] == [pytest.approx(16 / 240)]


def test_a_box_lies_around_what_the_best_head_looks_at(written: dict[str, Any]) -> None:
    boxes = written["/camera/regions"]
    assert (
        column(boxes, "Boxes2D:centers") == [[[10.0, 6.0]]] * T
    )  # columns 8 to 12, rows 4 to 8, by their edges
    assert column(boxes, "Boxes2D:half_sizes") == [[[2.0, 2.0]]] * T


def test_nothing_else_than_steps_and_seconds_is_a_timeline(written: dict[str, Any]) -> None:
    for name, columns in written.items():
        if not name.startswith("static "):
            assert {"log_time", "log_tick", "frame_nr"}.isdisjoint(columns), name


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    bare = make(
        target_masks=None, values=None, dt=None, action_names=(), uniform=True, attention=make().attention * 0
    )
    write_rerun(tmp_path / "a.rrd", bare, np.full((T, HEADS), NAN))
    found = {name for name in entities(tmp_path / "a.rrd") if not name.startswith("static ")}
    assert found == {"/camera/frame", "/reward", "/return", "/action/0", "/action/1"}
    assert "time" not in entities(tmp_path / "a.rrd")["/reward"]


def test_a_map_that_is_none_has_no_box(tmp_path: Path) -> None:
    attention = make().attention
    attention[1, 0] = 0
    attention[3, 0, 0, 0] = NAN
    write_rerun(tmp_path / "a.rrd", make(attention=attention), MASS)
    boxes = column(entities(tmp_path / "a.rrd")["/camera/regions"], "Boxes2D:centers")
    assert [len(row or []) for row in boxes] == [1, 0, 1, 0, 1]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.rrd"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="length"):
        write_rerun(path, make(), MASS, view=View("top", make().images[1:]))
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.rrd"]
