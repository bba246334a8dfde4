"""What a replay shows beside an episode: another policy, or another camera; and the window that is live."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

cv2 = pytest.importorskip("cv2")
pytest.importorskip("h5py")

sys.path.insert(0, str(Path(__file__).parent))
from toy_run import ToyTask, make_run  # noqa: E402

from robot_attn import AttentionGrid  # noqa: E402
from robot_attn.drawing import Replay  # noqa: E402
from robot_attn.episode import Episode  # noqa: E402
from robot_attn_policies.rollouts.rollout import rollout_episodes  # noqa: E402
from robot_attn_scripts import _loaded_run, cli  # noqa: E402
from robot_attn_scripts._live_window import ESCAPE, SPACE, LiveView, WindowClosed  # noqa: E402
from robot_attn_scripts._side_by_side import COLORS, SideBySide, WithCamera  # noqa: E402


def make(steps: int, image_size: tuple[int, int], rewards: float = 1.0) -> Replay:
    height, width = image_size
    episode = Episode(
        images=np.full((steps, height, width, 3), 200, dtype=np.uint8),
        actions=np.zeros((steps, 2), dtype=np.float32),
        rewards=np.full(steps, rewards),
        dones=np.arange(steps) == steps - 1,
        attention=np.full((steps, 2, 3, 5), 1 / 15, dtype=np.float32),
        grid=AttentionGrid(np.arange(3) * height / 3, np.arange(5) * width / 5, image_size),
        env_args={},
        seed=0,
    )
    return Replay(episode, size=640)


def has_color(picture: NDArray[np.uint8], color: tuple[int, int, int]) -> bool:
    return bool((picture == color).all(axis=2).any())


# ---- Side by side ----


def test_two_episodes_of_other_sizes_and_lengths_make_pictures_of_one_size() -> None:
    both = SideBySide([make(4, (36, 44)), make(7, (64, 64))], ["one", "other"], "a task")
    assert len(both) == 7
    pictures = [both.draw(step) for step in range(7)]
    assert {picture.shape for picture in pictures} == {pictures[0].shape}
    assert pictures[0].shape[0] == 640
    assert {both.large(step).shape for step in range(7)} == {both.large(0).shape}


def test_the_episode_that_ended_stands_still_and_darker() -> None:
    both = SideBySide([make(4, (36, 44)), make(7, (64, 64))], ["one", "other"])
    half = both.large(0).shape[1] // 2
    inner = [int(both.large(at)[both.large(at).shape[0] // 2, half // 2].max()) for at in range(7)]
    assert inner == [200, 200, 200, 200, 90, 90, 90]  # 0.45 of 200
    other = [int(both.large(at)[both.large(at).shape[0] // 2, half + half // 2].max()) for at in range(7)]
    assert other == [200] * 7


def test_both_returns_are_drawn_on_one_scale() -> None:
    both = SideBySide([make(4, (36, 44), rewards=1.0), make(4, (36, 44), rewards=3.0)], ["one", "other"])
    strip = both.draw(3)[both.draw_panels(3).shape[0] :]
    ends = []
    for color in COLORS:
        rows, columns = np.nonzero((strip == color).all(axis=2) & (np.arange(strip.shape[1]) > 290))
        ends.append((rows.min(), rows.max(), columns.max()))
    (low_top, low_bottom, right), (high_top, _, other_right) = ends
    assert abs(right - other_right) <= 2
    # The returns are 1 to 4 and 3 to 12 of 12: the curves' heights are 4 / 12 and 12 / 12 of the plot's.
    plot = strip.shape[0] - 44
    assert (low_bottom + 5 - high_top - 5) / plot == pytest.approx(1 - 1 / 12, abs=0.06)
    assert (low_top - high_top) / plot == pytest.approx(8 / 12, abs=0.06)
    assert both.caption(3) == "A 4.0   B 12.0"


def test_another_camera_is_shown_clean_to_the_right() -> None:
    replay = make(3, (36, 44))
    frames = np.zeros((3, 90, 120, 3), dtype=np.uint8)
    frames[1] = (10, 250, 10)
    both = WithCamera(replay, "top", frames)
    left, picture = replay.draw(1), both.draw(1)
    assert np.array_equal(picture[:, : left.shape[1]], left)
    rows, columns = np.nonzero((picture == (10, 250, 10)).all(axis=2))
    main = replay.layout.main
    assert (rows.min(), rows.max()) == (main.y, main.y + main.h - 1)  # at the height of the policy's frame
    assert columns.max() - columns.min() + 1 == round(main.h * 120 / 90)
    assert columns.min() > left.shape[1]
    assert not has_color(both.draw(0), (10, 250, 10))
    assert np.array_equal(both.large(1), replay.large(1))


# ---- Live ----


class Person:
    """Presses the keys of a list, one whenever a key is waited for; then none."""

    def __init__(self, keys: list[int]) -> None:
        self.keys, self.pictures, self.waits = keys, list[NDArray[np.uint8]](), list[int]()

    def wait(self, milliseconds: int) -> int:
        self.waits.append(milliseconds)
        return self.keys.pop(0) if self.keys else -1


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> _loaded_run.LoadedPolicy:
    torch.manual_seed(0)
    return _loaded_run.load(make_run(tmp_path_factory.mktemp("runs") / "query"), "best")


def play(policy: _loaded_run.LoadedPolicy, keys: list[int], **options: Any) -> Person:
    person = Person(keys)
    view = LiveView(
        policy.probe, policy.probe.num_heads - 1, person.pictures.append, person.wait, size=600, **options
    )
    rollout_episodes(policy.probe.act, ToyTask(1), [5], on_step=view)
    return person


def test_every_step_is_shown(policy: _loaded_run.LoadedPolicy) -> None:
    person = play(policy, [], title="a run")
    assert len(person.pictures) == len(person.waits) == 12
    assert person.waits == [1] * 12  # as fast as it goes
    assert {picture.shape for picture in person.pictures} == {person.pictures[0].shape}
    assert len({picture.tobytes() for picture in person.pictures}) == 12
    assert has_color(person.pictures[0], (64, 255, 214))  # the target's outline


def test_the_window_keeps_the_pace_of_the_episode(policy: _loaded_run.LoadedPolicy) -> None:
    waits = play(policy, [], dt=10.0).waits
    # The person does not wait at all, so that the steps come too early, each 10 s earlier than the last.
    assert waits[0] == 10_000
    assert all(later > earlier for earlier, later in pairwise(waits))


@pytest.mark.parametrize("key", [ord("q"), ESCAPE])
def test_a_key_stops(policy: _loaded_run.LoadedPolicy, key: int) -> None:
    person = Person([-1, ord("x"), key])
    view = LiveView(policy.probe, 0, person.pictures.append, person.wait, size=600)
    with pytest.raises(WindowClosed, match="stopped at step 3"):
        rollout_episodes(policy.probe.act, ToyTask(1), [5], on_step=view)
    assert len(person.pictures) == 3


def test_space_pauses_and_goes_on(policy: _loaded_run.LoadedPolicy) -> None:
    person = play(policy, [-1, SPACE, -1, -1, ord("x"), SPACE])
    assert len(person.pictures) == 12
    assert len(person.waits) == 12 + 4
    with pytest.raises(WindowClosed):
        play(policy, [SPACE, -1, ord("q")])


def test_a_policy_without_attention_is_shown_by_its_gradients_or_not_at_all(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "cnn", "cnn")
    gradient = play(_loaded_run.load(folder, "best", maps="gradient"), [])
    uniform = Person([])
    probe = _loaded_run.load(folder, "best").probe
    view = LiveView(probe, 0, uniform.pictures.append, uniform.wait, size=600)
    rollout_episodes(probe.act, ToyTask(1), [5], on_step=view)
    assert uniform.pictures[0].shape[1] < gradient.pictures[0].shape[1]  # no tiles


def test_without_a_display_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config.json").write_text("{}")  # what tells a run folder
    out = tmp_path / "out" / "a.mp4"
    assert cli.main(["replay", str(tmp_path), "--live", "--out", str(out)]) == 2
    assert "expected a display and opencv-python" in capsys.readouterr().err
    assert not out.parent.exists()


@contextmanager
def display() -> Iterator[str]:
    """A display without a screen."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1400x1000x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL) as server:
        os.close(write)
        try:
            yield f":{os.read(read, 16).decode().strip()}"
        finally:
            server.terminate()
            os.close(read)


@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="Xvfb is not installed: apt-get install xvfb")
def test_a_window_opens_where_there_is_a_display(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from robot_attn_scripts._live_window import Window\n"
        "with Window() as window:\n"
        "    window.show(np.zeros((60, 80, 3), np.uint8))\n"
        "    assert window.wait(50) == -1\n"
        "    import cv2; cv2.destroyWindow('robot-attn'); cv2.namedWindow('other')\n"
        "    assert window.wait(1) == 27\n"  # closed
        "    cv2.namedWindow('robot-attn')\n"
    )
    with display() as name:
        environment = os.environ | {"DISPLAY": name}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
