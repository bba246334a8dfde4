"""Attention mass on each thing: in environments' infos, in evaluations, and in a report's section."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from test_evaluate import GRID, Dots, H, W, actor_with

from robot_attn import AttentionGrid, AttentionMaps
from robot_attn.things import TARGET_ONLY, ThingMeter, thing_areas
from robot_attn_policies.evaluation import evaluate as ev
from robot_attn_policies.probing.steps import StepBatch
from robot_attn_policies.probing.things import step_masses, things_section
from robot_attn_policies.rollouts.camera import at_camera
from robot_attn_policies.rollouts.env_batch import EnvBatch
from robot_attn_policies.rollouts.things import describe_things, pixel_labels, thing_names

NAMES = ("backdrop", "target", "robot", "occluder", "distractor 1", "distractor 2")


class Things(Dots):
    """Dots with a robot in the two lowest rows and a distractor in the upper left corner."""

    thing_names = NAMES[:5]

    def _observe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        observation, info = super()._observe()
        labels = np.zeros((self.num_envs, H, W), np.uint8)
        labels[:, -2:] = 2
        labels[:, :3, :3] = 4
        labels[info["target_mask"]] = 1
        return observation, {**info, "things": labels}

    def describe_things(self) -> list[tuple[str, ...]]:
        return [("backdrop", "white box", "robot", "occluder", f"grey box {i}") for i in range(self.num_envs)]


def test_each_head_has_its_mass_on_each_thing_over_all_frames() -> None:
    env, act = Things(2), actor_with("target", "all")
    calibration = ev.calibrate(act, env, [40, 41], GRID)
    seeds = [5, 7, 8]  # the target is not visible in the first of the 5 frames of episode 7
    _, focus = ev.evaluate_policy(act, env, seeds, GRID, calibration)
    things = focus.things
    assert things.names == NAMES[:5] and things.frames.tolist() == [3, 5, 6]
    np.testing.assert_allclose(
        things.mass.sum(axis=2), np.repeat(things.frames[:, None], 2, axis=1), rtol=1e-6
    )
    # A head on the target has its mass there where it is visible; without a target it attends to all pixels.
    share = things.mean_area("target").value
    on_target = things.mean_mass(0, "target").value
    assert on_target == pytest.approx(13 / 14, abs=1e-4) and share < 0.03
    # An even map has the mass of the area.
    for name in (*NAMES[:5], "distractors"):
        assert things.mean_mass(1, name).value == pytest.approx(things.mean_area(name).value, abs=1e-6)
    with pytest.raises(ValueError, match=r"expected one of backdrop, target, robot, .* got 'goal'"):
        things.mean_mass(0, "goal")


def test_an_environment_that_marks_the_target_alone_has_it_and_the_backdrop() -> None:
    env, act = Dots(2), actor_with("else")
    _, focus = ev.evaluate_policy(act, env, [5, 8], GRID, ev.calibrate(act, env, [40], GRID))
    assert focus.things.names == TARGET_ONLY == thing_names(env)
    assert focus.things.mean_mass(0, "backdrop").value == pytest.approx(1, abs=1e-3)


def test_sums_equal_a_count_by_hand() -> None:
    labels = np.array([[[0, 0, 1], [2, 2, 1]], [[1, 1, 1], [0, 0, 0]]], np.uint8)
    maps = np.array(
        [[[[0.1, 0.2, 0.3], [0.4, 0, 0]], [[0, 0, 1], [0, 0, 0]]], [[[0.5, 0, 0], [0, 0.25, 0.25]]] * 2]
    )
    meter = ThingMeter(2, 2, NAMES[:3])
    meter.add(np.array([0, 1]), maps, labels)
    meter.add(np.array([1]), maps[:1], labels[:1])
    totals = meter.totals()
    np.testing.assert_allclose(totals.mass[0], [[0.3, 0.3, 0.4], [0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(totals.mass[1], [[0.8, 0.8, 0.4], [0.5, 1.5, 0]], atol=1e-12)
    np.testing.assert_allclose(totals.area, [[1 / 3, 1 / 3, 1 / 3], [5 / 6, 5 / 6, 1 / 3]], atol=1e-12)
    assert thing_areas(labels[:0], 3).shape == (0, 3)
    with pytest.raises(ValueError, match="expected labels from 0 to 1"):
        ThingMeter(2, 2, NAMES[:2]).add(np.array([0, 1]), maps, labels)


def planted(episodes: int = 2, length: int = 4) -> StepBatch:
    """Steps whose first head is on the target and whose second is spread over the distractor's column."""
    grid = AttentionGrid.even((4, 4), (8, 8))
    count = episodes * length
    labels = np.zeros((count, 8, 8), np.uint8)
    labels[:, :, :2], labels[:, :4, 4:6] = 4, 1
    maps = np.zeros((count, 2, 4, 4), np.float32)
    maps[:, 0, :2, 2], maps[:, 1, :, 0] = 0.5, 0.25
    return StepBatch(
        np.zeros((count, 8, 8, 3), np.uint8),
        AttentionMaps(maps, grid),
        np.array([0.75, 0.25]),
        np.zeros((count, 1)),
        np.zeros(count),
        labels == 1,
        np.repeat(np.arange(episodes), length),
        np.tile(np.arange(length), episodes),
        things=labels,
    )


def test_a_report_tells_the_mass_on_each_thing_and_by_step() -> None:
    section = things_section(planted(), NAMES)
    things, heads = section.tables
    # What is never in the frame has no row.
    assert [row[0] for row in things.rows] == ["backdrop", "target", "distractor 1"]
    assert [row[1].value for row in things.rows] == pytest.approx([0, 0.75, 0.25])
    assert [row[2].value for row in things.rows] == pytest.approx([0.625, 0.125, 0.25])
    assert heads.columns == ("head", "backdrop", "target", "distractors")
    assert [[cell.value for cell in row[1:]] for row in heads.rows] == [[0, 1, 0], [0, 0, 1]]
    (chart,) = section.charts
    assert [series.name for series in chart.series] == ["backdrop", "target", "distractors"]
    assert chart.series[1].x == [0, 1, 2, 3] and chart.series[1].y == pytest.approx([0.75] * 4)


def test_a_long_episode_is_charted_in_stretches() -> None:
    (chart,) = things_section(planted(1, 120), NAMES).charts
    assert len(chart.series[0].x) == 40 and chart.series[0].x[:2] == [1, 4]


def test_masks_stand_in_for_labels() -> None:
    import dataclasses

    steps = dataclasses.replace(planted(), things=None)
    mass, area = step_masses(steps, 2)
    np.testing.assert_allclose(mass[0], [[0, 1], [1, 0]])
    np.testing.assert_allclose(area.sum(axis=1), 1)
    bare = dataclasses.replace(steps, masks=None)
    assert "does not say" in things_section(bare, TARGET_ONLY).text[0]
    with pytest.raises(ValueError, match="expected steps with labels or target masks, got none"):
        step_masses(bare, 2)


class Single(gymnasium.Env[Any, Any]):
    """One frame with labels at two cameras."""

    observation_space = gymnasium.spaces.Dict(
        {name: gymnasium.spaces.Box(0, 255, (36, 36, 3), np.uint8) for name in ("left", "wrist")}
    )
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    thing_names = NAMES[:3]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        labels = {
            f"things/{name}": np.full((36, 36), k, np.uint8) for k, name in enumerate(("left", "wrist"))
        }
        masks = {f"target_mask/{name}": np.zeros((36, 36), bool) for name in ("left", "wrist")}
        return self.observation_space.sample(), {**labels, **masks}

    def describe_things(self) -> list[tuple[str, ...]]:
        return [("backdrop", "red ball", "robot")]


@pytest.mark.parametrize("kind", ["single", "wrapped", "vector"])
def test_labels_and_names_pass_through_batches_and_wrappers(kind: str) -> None:
    env: Any = Single() if kind == "single" else gymnasium.wrappers.TimeLimit(Single(), 3)
    batch: Any = EnvBatch(env, 3)
    if kind == "vector":
        batch = SyncVectorEnv([Single] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    assert thing_names(batch) == NAMES[:3]
    assert describe_things(batch) == [("backdrop", "red ball", "robot")] * batch.num_envs
    for k, name in enumerate(("left", "wrist")):
        seen = at_camera(batch, name, only=False)
        assert thing_names(seen) == NAMES[:3]
        labels = pixel_labels(seen.reset(seed=[0] * batch.num_envs)[1])
        assert labels is not None and labels.shape == (batch.num_envs, 36, 36) and (labels == k).all()


def test_an_environment_without_labels_has_none() -> None:
    class Bare(Single):
        thing_names = None  # type: ignore[assignment]
        describe_things = None  # type: ignore[assignment]

    assert thing_names(EnvBatch(Bare(), 3)) == TARGET_ONLY
    assert describe_things(EnvBatch(Bare(), 3)) == [TARGET_ONLY]
    assert pixel_labels({}) is None
    marked = pixel_labels({"target_mask": np.eye(3, dtype=bool)[None]})
    assert marked is not None and marked.dtype == np.uint8 and marked[0].tolist() == np.eye(3).tolist()
