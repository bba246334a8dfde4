"""Reports on Stable-Baselines3 policies in environments of other packages."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.testing import assert_array_equal
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

pytest.importorskip("captum")
pytest.importorskip("sklearn")
pytest.importorskip("cv2")

from robot_attn import Percept
from robot_attn.families import Query
from robot_attn_policies.pages.report import Report, Section, write_report
from robot_attn_policies.probing.episode_intervals import mean_over_draws_and_episodes, mean_over_episodes
from robot_attn_policies.probing.explain import explain, explain_episode
from robot_attn_policies.probing.faithfulness import HeadAblation, run_pixel_ablation
from robot_attn_policies.probing.probe import MAP_KINDS, probe_policy
from robot_attn_policies.probing.rollout_sections import heads_section
from robot_attn_policies.probing.sections import TITLES, guarded_section
from robot_attn_policies.probing.step_sections import _rank_correlation
from robot_attn_policies.probing.steps import StepCollector
from robot_attn_policies.probing.verdicts import NOTHING_TO_LOSE
from robot_attn_policies.rollouts.rollout import rollout_episodes
from robot_attn_policies.sb3.context import NO_CONTEXT, predict
from robot_attn_policies.sb3.extractor import PerceptionExtractor

SIDE, STEPS = 40, 6
SECTIONS = [
    "focus",
    "things",
    "faithful",
    "mediation",
    "interventions",
    "captured",
    "failures",
    "weights",
    "actions",
    "gradients",
    "clusters",
    "time",
]


class Blob(gymnasium.Env[Any, Any]):
    """A bright square at random positions; the reward is 1 for an action that names its half of the frame.

    With `always`, it is 1 for that action instead.
    """

    observation_space = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)

    def __init__(self, *, discrete: bool = True, always: int | None = None) -> None:
        self.always = always
        self.action_space = spaces.Discrete(2) if discrete else spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.closed = 0, False
        return self.render_frame(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        right = self.x >= SIDE // 2 if self.always is None else self.always > 0
        reward = float((np.ravel(action)[0] > 0) == right)
        self.count += 1
        return self.render_frame(), reward, False, self.count == STEPS, {}

    def render_frame(self) -> Any:
        y, self.x = self.np_random.integers(4, SIDE - 4, 2)
        frame = np.full((SIDE, SIDE, 3), 40, np.uint8)
        frame[y - 4 : y + 4, self.x - 4 : self.x + 4] = 250
        return frame

    def close(self) -> None:
        self.closed = True


def policy(discrete: bool = True, **kwargs: Any) -> PPO:
    env = Blob(discrete=discrete)
    return PPO("CnnPolicy", env, n_steps=8, batch_size=8, seed=0, policy_kwargs=kwargs)


def attention_policy() -> PPO:
    options = {"perception": "query", "num_heads": 2}
    return policy(False, features_extractor_class=PerceptionExtractor, features_extractor_kwargs=options)


class WithMaskHead(Query):
    """Attends as "query" does, and then predicts a mask that feeds nothing."""

    def __init__(self, image_shape: tuple[int, int, int], context_dim: int = 0) -> None:
        super().__init__(image_shape, context_dim, num_heads=2)
        self.mask_head = torch.nn.Conv2d(3, 2, 1)

    def perceive(self, frames: torch.Tensor, context: torch.Tensor | None) -> Percept:
        percept = super().perceive(frames, context)
        self.mask = self.mask_head(frames)
        return percept


def text_of(report: Report, name: str) -> str:
    return " ".join(next(section for section in report.sections if section.name == name).text)


def test_a_policy_without_attention_in_an_environment_without_masks(tmp_path: Path) -> None:
    env = Blob()
    report = explain(policy(), env, seeds=range(3), curves=False)
    assert not env.closed
    assert [section.name for section in report.sections] == SECTIONS
    assert "gives no target masks" in text_of(report, "focus")
    assert "renders no counterfactual frames" in text_of(report, "interventions")
    assert "There is no attention in it that could be forced" in text_of(report, "mediation")
    verdicts = {section.name: section.verdict for section in report.sections}
    assert {name for name, verdict in verdicts.items() if verdict} == {"faithful", "weights"}
    assert ("Maps", MAP_KINDS["causal"]) in report.facts
    assert report.summary[-1] == f"Maps: {MAP_KINDS['causal']}."
    write_report(tmp_path / "report.html", report)
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["sections"]["weights"]["verdict"]["outcome"] in ("yes", "no", "undecided")


def test_a_branch_that_feeds_nothing_costs_no_report() -> None:
    options = {"perception": WithMaskHead}
    model = policy(False, features_extractor_class=PerceptionExtractor, features_extractor_kwargs=options)
    report = explain(model, Blob(discrete=False), seeds=range(2), curves=False, ablations=())
    rows = next(section for section in report.sections if section.name == "gradients").tables[0].rows
    assert [np.isfinite(row[1][0]) for row in rows] == [True] * 4  # type: ignore[index]


@pytest.mark.parametrize(
    "error", [RuntimeError("Trying to differentiate twice.\nUse retain_graph"), KeyError()]
)
def test_what_fails_costs_its_own_section(error: Exception) -> None:
    def make() -> Section:
        raise error

    section = guarded_section("gradients", make)
    expected = "RuntimeError: Trying to differentiate twice. Use retain_graph" if error.args else "KeyError"
    assert section.text == (f"This could not be measured: {expected}.",)
    assert (section.name, section.title, section.verdict) == ("gradients", TITLES["gradients"], None)


class Fragile(Query):
    """Raises when it is copied, as explanations do to randomise its weights."""

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot copy a device handle")


def test_a_policy_that_cannot_be_copied_loses_one_section(tmp_path: Path) -> None:
    options = {"perception": Fragile, "num_heads": 2}
    model = policy(False, features_extractor_class=PerceptionExtractor, features_extractor_kwargs=options)
    report = explain(model, Blob(discrete=False), seeds=range(2), curves=False, ablations=())
    failed = [section.name for section in report.sections if "could not be measured" in section.text[0]]
    assert failed == ["weights"]
    assert text_of(report, "weights").endswith("TypeError: cannot copy a device handle.")
    write_report(tmp_path / "report.html", report)


def test_redundant_heads_count_alike() -> None:
    """Each of two heads alone decides a discrete action: ablating one changes nothing."""
    returns = np.array([3.0, 4.0])
    ablation = HeadAblation(returns, np.stack([returns] * 2), np.stack([returns] * 2), np.zeros(2))
    assert ablation.redundant
    assert ablation.weights.tolist() == [0.5, 0.5]
    assert heads_section(ablation).text[0].startswith("The heads are redundant: no action changes with any")
    assert not replace(ablation, action_change=np.array([0.0, 0.5])).redundant


class MaskedBlob(Blob):
    """Blob with target masks in its infos."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        frame, _ = super().reset(seed=seed)
        return frame, {"target_mask": frame[..., 0] == 250}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        frame, *rest, _ = super().step(action)
        return frame, *rest, {"target_mask": frame[..., 0] == 250}


@pytest.mark.parametrize("make", [MaskedBlob, lambda: DummyVecEnv([MaskedBlob] * 2)], ids=["env", "vec_env"])
def test_masks_of_a_single_environment_and_of_a_vec_env_are_measured(make: Any) -> None:
    report = explain(policy(), make(), seeds=range(2), curves=False, ablations=())
    focus = next(section for section in report.sections if section.name == "focus")
    assert focus.verdict is not None
    assert "gives no target masks" not in " ".join(focus.text)


def test_heads_are_weighted_on_other_episodes() -> None:
    model = attention_policy()
    env = Blob(discrete=False)
    report = explain(model, env, seeds=range(2), calibration=[7], curves=False, ablations=())
    assert [section.name for section in report.sections] == [*SECTIONS[:5], "heads", *SECTIONS[5:], "causal"]
    heads = next(section for section in report.sections if section.name == "heads")
    assert [row[0] for row in heads.tables[0].rows] == ["head 0", "head 1"]
    assert ("Heads", "weighted by their effect on the action") in report.facts
    assert ("Maps", "attention") in report.facts
    with pytest.raises(ValueError, match=r"calibration seeds other than the report's, got \[1\] in both"):
        explain(model, env, seeds=range(2), calibration=[1])


def test_curves_of_return_run_every_share() -> None:
    parts: list[tuple[str, int]] = []

    def start_progress(name: str, steps: int) -> Any:
        parts.append((name, steps))
        return lambda step: None

    env = Blob(always=1)  # there is a return to lose
    report = explain(
        ignorant_policy(), env, seeds=range(2), maps="gradient", max_steps=50, start_progress=start_progress
    )
    shares = {name.split(" ")[0] for name, _ in parts if "of the pixels" in name}
    assert shares == {"2%", "5%", "20%", "40%"}
    assert {steps for _, steps in parts} == {2 * 50}
    assert [name for name, _ in parts].count("the unchanged episodes") == 1, "returns are not measured twice"
    assert report.title == "ActorCriticCnnPolicy"


def test_rounds_grow_until_every_verdict_is_decided() -> None:
    """With nothing to lose, faithfulness is never decided, and the budget is used up."""
    parts: list[tuple[str, int]] = []

    def start_progress(name: str, steps: int) -> Any:
        parts.append((name, steps))
        return lambda step: None

    def options(count: int) -> dict[str, Any]:
        return {"seeds": range(count), "curves": False, "ablations": (), "max_steps": 50, "maps": "gradient"}

    report = explain(policy(), PaysTheSame(), start_progress=start_progress, **options(16))
    assert [part for part in parts if "random actions" in part[0]] == [
        ("episodes 1 to 8: random actions", 8 * 50),
        ("episodes 9 to 16: random actions", 8 * 50),
    ]
    assert ("Episodes", "16, seeds 0 to 15") in report.facts
    verdict = next(section.verdict for section in report.sections if section.name == "faithful")
    assert verdict is not None and (verdict.outcome, verdict.reason) == ("undecided", NOTHING_TO_LOSE)
    report = explain(ignorant_policy(), Blob(always=1), **options(32))
    assert ("Episodes", "16, seeds 0 to 15; of at most 32, since every verdict was decided") in report.facts


class PaysTheSame(Blob):
    """Blob whose reward is the same whatever the action, as that of a sparse task early on."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        frame, _, *rest = super().step(action)
        return frame, 1.0, *rest


def test_a_map_that_does_not_sum_to_one_is_refused() -> None:
    options = {"perception": Dimmed}
    model = policy(False, features_extractor_class=PerceptionExtractor, features_extractor_kwargs=options)
    with pytest.raises(
        ValueError, match=r"attention that sums to 1 .* got sums from 0\.4 to 0\.4: normalise"
    ):
        explain(model, Blob(discrete=False), seeds=range(2), curves=False, ablations=())


class Dimmed(Query):
    """Attention of which 0.6 is lost."""

    def perceive(self, frames: torch.Tensor, context: torch.Tensor | None) -> Percept:
        percept = super().perceive(frames, context)
        return Percept(percept.features, 0.4 * percept.attention)


def ignorant_policy() -> PPO:
    """A policy that always takes action 1."""
    model = policy()
    network: Any = model.policy
    with torch.no_grad():
        network.action_net.weight.zero_()
        network.action_net.bias.copy_(torch.tensor([0.0, 1.0]))
    return model


def test_a_policy_that_ignores_its_frames_is_reported() -> None:
    report = explain(ignorant_policy(), Blob(), seeds=range(2), curves=False, ablations=())
    assert "the same actions with all pixels ablated" in text_of(report, "actions")


def test_one_episode_has_no_verdict_and_no_intervals() -> None:
    model, env = attention_policy(), Blob(discrete=False)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    report = explain_episode(model, env, 3)
    # In the middle of a training, it leaves the training's later weights as they would be.
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    names = [section.name for section in report.sections]
    assert names == [
        "mediation",
        "interventions",
        "heads",
        "things",
        *SECTIONS[5:],
        "causal",
    ]
    assert all(section.verdict is None for section in report.sections)
    figures = [
        cell for section in report.sections for table in section.tables for row in table.rows for cell in row
    ]
    assert not any(np.isfinite(cell.low) for cell in figures if isinstance(cell, tuple))
    assert ("Seed", "3") in report.facts


def recurrent_policy(kind: str) -> RecurrentPPO:
    """A policy whose actions depend on its memory."""
    options: dict[str, Any] = {"lstm_hidden_size": 8, "net_arch": []}
    if kind == "attention":
        options |= {"features_extractor_class": PerceptionExtractor}
    model = RecurrentPPO("CnnLstmPolicy", Blob(discrete=False), seed=0, policy_kwargs=options)
    policy: Any = model.policy
    with torch.no_grad():  # an untrained policy hardly depends on its state
        policy.lstm_actor.weight_hh_l0.mul_(5)
        policy.action_net.weight.mul_(100)
    return model


@pytest.mark.parametrize("kind", ["attention", "causal"])
def test_the_memory_of_a_recurrent_policy_is_kept_with_every_step(kind: str) -> None:
    model, seeds = recurrent_policy(kind), [3, 4, 5]
    probe = probe_policy(model)
    env = SyncVectorEnv([lambda: Blob(discrete=False)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    collector = StepCollector(probe.grid)
    rollout_episodes(probe.act, env, seeds, on_step=collector)
    steps = collector.batch()
    state: Any = None
    for row in range(len(steps)):
        observation: Any = steps.observation
        state = None if steps.step[row] == 0 else state
        action, state = model.predict(observation[row][None], state=state, deterministic=True)
        np.testing.assert_allclose(steps.actions[row], action[0], atol=1e-4)
    again = predict(model.policy, steps.observation, steps.context)[0]
    np.testing.assert_allclose(again, steps.actions, atol=1e-4)
    forgetful = predict(model.policy, steps.observation, NO_CONTEXT)[0]
    assert np.abs(forgetful - steps.actions)[steps.step > 0].max() > 0.05
    shuffled = steps.take(np.array([7, 2]))
    assert_array_equal(shuffled.context.memory[0], steps.context.memory[0][:, [7, 2]])  # type: ignore[index]


@pytest.mark.parametrize("kind", ["attention", "causal"])
def test_a_recurrent_policy_remembers_one_frame_a_step_while_others_are_tried(kind: str) -> None:
    probe, seeds = probe_policy(recurrent_policy(kind)).with_fast_maps(), [3, 4, 5]
    env = SyncVectorEnv([lambda: Blob(discrete=False)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    ablation = run_pixel_ablation(
        probe.act, env, seeds, probe.grid, np.zeros(3), names=("deleted", "random", "blind"), share=0.0
    )
    # No pixel is deleted, although the map of every frame is computed first.
    assert_array_equal(ablation.ablated["deleted"], ablation.full)
    assert_array_equal(ablation.ablated["random"], ablation.full)
    assert not np.array_equal(ablation.ablated["blind"], ablation.full)


@pytest.mark.parametrize("kind", ["attention", "causal"])
def test_a_recurrent_policy_is_explained(kind: str) -> None:
    report = explain(recurrent_policy(kind), Blob(discrete=False), seeds=range(2), curves=False, ablations=())
    own = {"heads", "causal"} if kind == "attention" else set()
    assert {section.name for section in report.sections} == {*SECTIONS, "memory", *own}
    assert "Recurrent" in report.title


def test_means_over_episodes_ignore_nan() -> None:
    values, episode = np.array([1.0, np.nan, 3.0, 8.0]), np.array([0, 0, 0, 4])
    figure = mean_over_episodes(values, episode)
    assert figure.value == 4.0 and figure.low == 2.0 and figure.high == 8.0
    assert np.isnan(mean_over_episodes(np.full(2, np.nan), np.zeros(2, np.int64)).value)


def test_intervals_resample_both_draws_and_episodes() -> None:
    episode = np.repeat(np.arange(4), 3)
    same = np.broadcast_to(np.array([[0.2], [0.4], [0.9]]), (3, 12))  # draws differ, episodes do not
    figure = mean_over_draws_and_episodes(same, episode)
    assert figure.value == pytest.approx(0.5)
    assert (figure.low, figure.high) == (
        pytest.approx(0.2),
        pytest.approx(0.9),
    )  # all three resampled draws are the same
    rows = np.broadcast_to(np.repeat([0.0, 0.0, 0.0, 1.0], 3), (3, 12))
    assert mean_over_draws_and_episodes(rows, episode).value == pytest.approx(0.25)
    assert mean_over_draws_and_episodes(rows, episode).high == pytest.approx(0.75)
    assert np.isnan(mean_over_draws_and_episodes(rows, np.zeros(12, np.int64)).low)


def test_constant_maps_correlate_with_constant_maps_only() -> None:
    flat, rising = np.ones((1, 2, 3)), np.arange(6.0).reshape(1, 2, 3)
    pairs = [(flat, flat), (flat, rising), (rising, flat), (rising, rising), (rising, -rising)]
    assert [float(_rank_correlation(*pair)[0]) for pair in pairs] == [1.0, 0.0, 0.0, 1.0, -1.0]
