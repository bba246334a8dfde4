"""On Track under photographs, a policy that attends to redness is captured, and the report says by what."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("mujoco_warp")
pytest.importorskip("stable_baselines3")
pytest.importorskip("cv2")
pytest.importorskip("sklearn")

sys.path.insert(0, str(Path(__file__).parent))
import planted

from robot_attn import AttentionMaps
from robot_attn.color_names import COLOR_NAMES, color_indices
from robot_attn_envs.env import BatchEnv
from robot_attn_envs.tasks.track import Track
from robot_attn_policies.evaluation import evaluate as ev
from robot_attn_policies.probing.probe import probe_policy
from robot_attn_policies.recording.record import RGBConverter

SIZE, SEEDS = 48, list(range(6))


class ShortTrack(Track):
    """Track, with episodes long enough to be captured and to lose the target."""

    horizon = 32


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's photograph of a flower."""
    import cv2
    from sklearn.datasets import load_sample_image

    folder = tmp_path_factory.mktemp("photos")
    image = load_sample_image("flower.jpg")
    assert cv2.imwrite(str(folder / "flower.png"), image[..., ::-1])
    return folder


class Result(NamedTuple):
    """What an evaluation finds; frames, masks and maps of its episodes, each [episodes, steps, H, W, ...]."""

    focus: ev.Focus
    frames: np.ndarray
    masks: np.ndarray
    maps: np.ndarray


def evaluated(**options: Any) -> Result:
    env = BatchEnv(ShortTrack, len(SEEDS), image_size=SIZE, masks=True, threads=1, **options)
    probe = probe_policy(planted.make("honest", SIZE))
    to_rgb = RGBConverter(env, probe)
    calibration = ev.Calibration(0, np.full((SIZE, SIZE), 1 / SIZE**2), np.array([99]))
    kept: list[tuple[np.ndarray, ...]] = []

    def keep(step: ev.Step) -> None:
        assert step.percept is not None
        maps = AttentionMaps(step.percept.attention[:, 0].numpy(), probe.grid).upsampled()
        kept.append((to_rgb(step.observation).copy(), step.info["target_mask"].copy(), maps))

    _, focus = ev.evaluate_policy(probe.act, env, SEEDS, probe.grid, calibration, to_rgb=to_rgb, on_step=keep)
    env.close()
    return Result(focus, *(np.stack(parts, axis=1) for parts in zip(*kept, strict=True)))


@pytest.fixture(scope="module")
def before_a_flower(photos: Path) -> Result:
    return evaluated(shift="background", intensity=1.0, backgrounds=str(photos))


def test_without_a_photograph_nothing_captures_it() -> None:
    focus = evaluated().focus
    assert focus.captures.captures == ()
    assert focus.share(0, "attended").value > 0.8


def test_a_photograph_captures_it_by_a_red_region(before_a_flower: Result) -> None:
    found = before_a_flower.focus.captures
    assert found.captured == len(SEEDS)
    assert {capture.what for capture in found.captures} == {"red region"}
    assert str(found).startswith(
        f"Attention was captured in 6 of {len(SEEDS)} episodes: by a red region in 6"
    )
    assert before_a_flower.focus.share(0, "attended").value < 0.1


def test_the_target_is_lost_as_many_steps_later_as_told(before_a_flower: Result) -> None:
    visible = before_a_flower.masks.any(axis=(2, 3))
    told = before_a_flower.focus.captures.captures
    lost = [capture for capture in told if capture.lost is not None]
    assert len(lost) >= 3
    for capture in told:
        hidden = ~visible[capture.episode, capture.start :]
        long = [step for step in range(len(hidden) - 4) if hidden[step : step + 5].all()]
        assert capture.lost == (long[0] if long else None)


def test_the_frames_bear_it_out(before_a_flower: Result) -> None:
    """During each capture red pixels besides the target hold five times their share of the frame or more."""
    focus, frames, masks, maps = before_a_flower
    for capture in focus.captures.captures:
        rows = slice(capture.start, None if capture.lost is None else capture.start + capture.lost)
        red = color_indices(frames[capture.episode, rows]) == COLOR_NAMES.index("red")
        red &= ~masks[capture.episode, rows]
        attended = (maps[capture.episode, rows] * red).sum(axis=(1, 2)).mean()
        assert attended > 5 * red.mean()


def test_a_distractor_that_looks_like_the_target_is_named() -> None:
    found = evaluated(shift="lookalikes", intensity=1.0).focus.captures
    assert found.captured >= len(SEEDS) / 2
    assert {capture.what.split()[0] for capture in found.captures} == {"red"}
    assert {capture.what.split()[1] for capture in found.captures} <= {"box", "cylinder", "capsule"}
