"""`robot-attn watch`: a policy that has not learned anything looks at small videos."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

cv2 = pytest.importorskip("cv2")
pytest.importorskip("imageio_ffmpeg")

sys.path.insert(0, str(Path(__file__).parent))
from toy_run import make_run  # noqa: E402

import robot_attn  # noqa: E402
from robot_attn import Percept  # noqa: E402
from robot_attn.video import Camera, VideoError, VideoReader, write_video  # noqa: E402
from robot_attn_policies.probing.probe import PolicyProbe, probe_policy  # noqa: E402
from robot_attn_policies.rollouts.policy_actor import policy_actor  # noqa: E402
from robot_attn_policies.sb3.policy import build_policy  # noqa: E402
from robot_attn_policies.training.presets import TrainConfig  # noqa: E402
from robot_attn_policies.training.run_folder import load_policy  # noqa: E402
from robot_attn_scripts import watch  # noqa: E402
from robot_attn_scripts._video_probe import CAPTION, VideoProbe, crop  # noqa: E402
from robot_attn_scripts.watch import Options, run  # noqa: E402

HEIGHT, WIDTH, COUNT = 96, 176, 30  # the policy's own frames have 36 x 44


def picture(t: int) -> np.ndarray:
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    frame[40:60, 5 * t : 5 * t + 20] = (230, 40, 30)
    return frame


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    write_video(path, (picture(t) for t in range(COUNT)), 15)
    return path


def toy_probe(size: int = 60) -> PolicyProbe:
    torch.manual_seed(3)
    space = spaces.Dict(image=spaces.Box(0, 255, (3, size, size), np.uint8))
    return probe_policy(build_policy(TrainConfig("toy"), space, spaces.Box(-1, 1, (2,), np.float32)))


def one_cell(probe: PolicyProbe, row: int, col: int) -> np.ndarray:
    weights = np.zeros((len(probe.grid.ys), len(probe.grid.xs)), np.float32)
    weights[row, col] = 1
    return weights


# ---- The whole command ----


def test_a_video_is_watched_into_another(
    folder: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, json = tmp_path / "new" / "watched.mp4", tmp_path / "figures.json"
    figures = run(Options(str(video), folder, out=out, width=320, json=json))
    with VideoReader(out) as reader:
        assert len(list(reader)) == COUNT
        # 320 x 96 / 176 = 174.5, an even number of pixels, and the line below.
        assert (reader.size, reader.fps) == ((174 + CAPTION, 320), 15)
    assert figures["frames"] == {"value": COUNT, "unit": "frames"}
    assert (figures["maps"], figures["unknown"], figures["cut"]) == ("attention", ["state"], None)
    assert json.is_file()
    output = " ".join(capsys.readouterr().out.split())
    assert "maps: attention" in output
    assert "also reads state, which a video does not have: zero in every frame" in output
    assert f"30 frames at {figures['rate']['value']:.0f} a second: {out}" in output  # type: ignore[index]


def test_fewer_frames_a_second_are_spread_evenly(folder: Path, video: Path, tmp_path: Path) -> None:
    figures = run(Options(str(video), folder, out=tmp_path / "a.mp4", fps=5))
    assert figures["frames"]["value"] == COUNT // 3  # type: ignore[index]
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert (reader.fps, reader.length) == (5, COUNT // 3)
    figures = run(Options(str(video), folder, out=tmp_path / "b.mp4", fps=100))
    assert figures["frames"]["value"] == COUNT  # type: ignore[index]


def test_a_video_that_was_cut_says_so(
    folder: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = video.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: round(0.8 * len(data))])
    figures = run(Options(str(tmp_path / "cut.mp4"), folder, out=tmp_path / "a.mp4"))
    count = figures["frames"]["value"]  # type: ignore[index]
    assert 0 < count < COUNT
    assert figures["cut"] == {"value": COUNT, "unit": "frames before the file was cut"}
    assert f"it should have {COUNT} frames, and {count} could be read" in capsys.readouterr().out
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert reader.length == count


def test_a_damaged_video_is_drawn_with_a_warning(
    folder: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(video.read_bytes())
    start = data.index(b"mdat") + 8
    middle, length = (start + len(data)) // 2, (len(data) - start) // 4
    data[middle : middle + length] = np.random.default_rng(0).bytes(length)
    (tmp_path / "bad.mp4").write_bytes(data)
    figures = run(Options(str(tmp_path / "bad.mp4"), folder, out=tmp_path / "a.mp4"))
    first = figures["damaged"][0]  # type: ignore[index]
    assert 0 < first < COUNT
    assert f"the video is damaged: frame {first} and those after it" in capsys.readouterr().out


def test_a_policy_without_attention_shows_causal_maps_and_says_so(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = run(Options(str(video), make_run(tmp_path / "cnn", "cnn"), out=tmp_path / "a.mp4"))
    assert figures["maps"] == "causal"
    assert figures["boxes"]["value"] == 0  # type: ignore[index]
    assert "causal: how much the action changes when pixels are removed" in capsys.readouterr().out


def test_ctrl_c_leaves_a_video_of_the_frames_so_far(folder: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", (picture(t % COUNT) for t in range(3000)), 30)
    code = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from robot_attn_scripts.watch import Options, run\n"
        # What a shell starts in the background inherits that SIGINT is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n"
        f"    run(Options({str(tmp_path / 'long.mp4')!r}, Path({str(folder)!r}),"
        f" out=Path({str(tmp_path / 'a.mp4')!r})))\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(tmp_path.glob(".a.*.mp4")):
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    time.sleep(0.1)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: the encoder is in the group or it is not
    out, error = child.communicate(timeout=300)
    assert child.returncode == 130, error
    assert "Traceback" not in error
    with VideoReader(tmp_path / "a.mp4") as reader:
        count = len(list(reader))
    assert 0 < count < 3000
    assert f"{count} frames at" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "long.mp4"]


def test_a_camera_is_written_at_the_pace_of_the_clock(tmp_path: Path) -> None:
    # OpenCV plays pictures in a row as it does a camera, as fast as they are read.
    for t in range(COUNT):
        cv2.imwrite(str(tmp_path / f"{t:02}.png"), picture(t)[..., ::-1])
    video_probe = VideoProbe(toy_probe())
    counts = watch._Counts()
    with Camera(str(tmp_path / "%02d.png")) as camera:
        started = time.perf_counter()
        pictures = sum(1 for _ in watch._pictures(camera, video_probe, 1000.0, lambda: False, counts))
        elapsed = time.perf_counter() - started
    assert 1 <= counts.frames <= camera.count <= COUNT
    assert counts.frames <= pictures <= 1000 * elapsed + 2


# ---- Bad input ----


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": Path("a.avi")}, r"ends in \.mp4"),
        ({"width": 321}, "an even number of pixels, from 320 to 3840, got"),
        ({"width": 100}, "an even number of pixels, from 320 to 3840, got"),
        ({"fps": 0.0}, "--fps above 0 and at most 240, got 0"),
        ({"head": 3}, "expected --head from 0 to 2, got 3"),
        ({"instruction": "the red box"}, "expected no --instruction for this policy, got 'the red box'"),
    ],
)
def test_bad_options_are_refused(
    folder: Path, video: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(Options(str(video), folder, **{"out": tmp_path / "a.mp4", **change}))
    assert list(tmp_path.iterdir()) == []


def test_without_a_display_and_a_file_there_is_one_clear_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"expected a display .* got none.* --out watched\.mp4"):
        run(Options("no such file.mp4", folder))


def test_a_source_that_is_none_is_named(folder: Path, video: Path, tmp_path: Path) -> None:
    for source, message in (
        (str(tmp_path / "none.mp4"), r"expected a video file, got .*none\.mp4, which does not exist"),
        ("63", "camera 63, which cannot be opened"),
        ("/dev/video63", "camera /dev/video63, which cannot be opened"),
    ):
        with pytest.raises(VideoError, match=message):
            run(Options(source, folder, out=tmp_path / "a.mp4"))
    with pytest.raises(ValueError, match="expected --out other than the source"):
        run(Options(str(video), folder, out=video))
    assert list(tmp_path.iterdir()) == []


# ---- Cropping, attention and drawing ----


@given(
    size=st.tuples(st.integers(16, 2000), st.integers(16, 2000)),
    shape=st.tuples(st.integers(1, 200), st.integers(1, 200)),
)
def test_the_part_that_is_seen_is_the_largest_in_the_middle(
    size: tuple[int, int], shape: tuple[int, int]
) -> None:
    part = crop(size, shape)
    assert part.x >= 0 and part.x + part.w <= size[1]
    assert part.y >= 0 and part.y + part.h <= size[0]
    assert part.h == size[0] or part.w == size[1]
    assert abs(2 * part.x + part.w - size[1]) <= 1
    assert abs(2 * part.y + part.h - size[0]) <= 1
    # Its proportions, to half a pixel.
    assert abs(part.h * shape[1] - part.w * shape[0]) <= max(shape) / 2 + 1e-6 or min(part.w, part.h) == 1


def test_the_policy_sees_the_middle_scaled(folder: Path) -> None:
    probe = toy_probe(60)
    frame = np.zeros((120, 200, 3), np.uint8)
    frame[:, :40], frame[:, 160:] = 255, 255  # beside the middle 120 x 120
    frame[60:62, 40 + 60 : 40 + 62] = (200, 100, 40)
    fitted = VideoProbe(probe).fit(frame)
    assert fitted.shape == (60, 60, 3)
    assert fitted[30, 30].tolist() == [200, 100, 40]
    fitted[30, 30] = 0
    assert fitted.max() == 0


def test_the_map_is_the_policys_own_with_zeros_where_nothing_is_known(folder: Path) -> None:
    probe = probe_policy(load_policy(folder)[0])
    fitted = np.ascontiguousarray(picture(9)[:36, :44])
    state = np.zeros((1, 2), np.float32)
    _, percept = policy_actor(probe.policy)({"image": fitted[None], "state": state})
    heads = percept.attention[0].numpy()  # type: ignore[union-attr]
    assert np.array_equal(VideoProbe(probe).attend(fitted), heads.mean(axis=0))  # type: ignore[arg-type]
    assert np.array_equal(VideoProbe(probe, head=2).attend(fitted), heads[2])  # type: ignore[arg-type]


def test_heat_lies_where_the_map_is_and_the_rest_is_left_alone() -> None:
    probe = toy_probe(60)
    frame = np.full((320, 640, 3), 100, np.uint8)
    video_probe = VideoProbe(probe, width=640)
    plain = video_probe.draw(frame, None, []).copy()
    assert plain.shape == (320 + CAPTION, 640, 3)
    # The policy sees columns 160 to 479; beside them it is dark, 0.35 x 100.
    assert (plain[:320, :160] == 35).all() and (plain[:320, 480:] == 35).all()
    assert (plain[:320, 160:480] == 100).all()
    hot = video_probe.draw(frame, one_cell(probe, 3, 11), [])
    changed = np.argwhere((hot[:320] != plain[:320]).any(axis=2))
    scale = 320 / 60
    y, x = (probe.grid.ys[3] + 0.5) * scale, 160 + (probe.grid.xs[11] + 0.5) * scale
    assert changed.mean(axis=0) == pytest.approx([y, x], abs=1.5)
    pitch = (probe.grid.ys[4] - probe.grid.ys[3]) * scale
    assert np.abs(changed - [y, x]).max() <= pitch + 1


def test_boxes_are_around_what_stands_out_and_keep_their_number() -> None:
    probe = toy_probe(60)
    video_probe = VideoProbe(probe, width=640)
    frame = np.full((320, 640, 3), 100, np.uint8)
    fitted = video_probe.fit(frame)
    ids = []
    for col in (5, 6, 7):
        (track,) = video_probe.find_regions(one_cell(probe, 3, col), fitted)
        ids.append(track.id)
        x, y, w, h = track.region.box
        assert x <= probe.grid.xs[col] < x + w and y <= probe.grid.ys[3] < y + h
        assert track.region.mass == pytest.approx(1)
    assert ids == [0, 0, 0]
    plain = video_probe.draw(frame, None, []).copy()
    boxed = video_probe.draw(frame, None, [track])
    left, top = 160 + round(x * 320 / 60), round(y * 320 / 60)
    assert (boxed[top, left + 5] != plain[top, left + 5]).any()
    inside = boxed[top + 6 : top + 10, left + 6 : left + 10]
    assert (inside == 100).all()
    assert video_probe.find_regions(None, fitted) == []
    assert VideoProbe(probe, boxes=False).find_regions(one_cell(probe, 3, 5), fitted) == []


@pytest.mark.parametrize("value", [0.0, float("nan"), -1.0])
def test_a_map_that_cannot_be_drawn_is_left_out(value: float) -> None:
    probe = toy_probe(60)
    percept = Percept(
        torch.zeros(1, 0), torch.full((1, probe.num_heads, *one_cell(probe, 0, 0).shape), value)
    )
    blind = VideoProbe(replace(probe, act=lambda observation: (np.zeros((1, 2), np.float32), percept)))
    frame = np.full((320, 640, 3), 100, np.uint8)
    drawn, boxes = blind(frame)
    assert boxes == 0
    assert np.array_equal(drawn, VideoProbe(probe).draw(frame, None, []))


def test_an_instruction_says_what_to_look_for() -> None:
    torch.manual_seed(1)
    space = spaces.Dict(
        image=spaces.Box(0, 255, (3, 64, 64), np.uint8),
        tokens=spaces.Box(0, len(robot_attn.vocabulary.WORDS), (robot_attn.MAX_TOKENS,), np.int64),
    )
    config = TrainConfig("toy", perception="instruction")
    probe = probe_policy(build_policy(config, space, spaces.Box(-1, 1, (2,), np.float32)))
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    red, blue = (
        VideoProbe(probe, instruction=text).attend(frame) for text in ("the red box", "the blue ball")
    )
    assert red is not None and blue is not None and not np.array_equal(red, blue)
    observation = {"image": frame[None], "tokens": robot_attn.tokenize("the red box").numpy()[None]}
    expected = probe.act(observation)[1].attention[0].mean(dim=0).numpy()  # type: ignore[union-attr]
    assert red == pytest.approx(expected, abs=1e-7)
    assert VideoProbe(probe, instruction="the red box").unknown == ()
    with pytest.raises(ValueError, match="expected an --instruction, which this policy reads, got none"):
        VideoProbe(probe)
    with pytest.raises(ValueError, match="redd"):
        VideoProbe(probe, instruction="the redd box")
