"""The report on policies that are not ours, in environments that are not ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO

pytest.importorskip("captum")
pytest.importorskip("sklearn")
pytest.importorskip("cv2")

from robot_attn_policies.pages.report import Report, write_report
from robot_attn_policies.probing.explain import explain, explain_episode
from robot_attn_policies.probing.report_sections import _by_draw_and_episode, _by_episode, _likeness
from robot_attn_policies.sb3.extractor import PerceptionExtractor

SIDE, STEPS = 40, 6
QUESTIONS = ["focus", "faithful", "reason", "failures", "weights", "actions", "gradients", "clusters", "time"]


class Blob(gymnasium.Env[Any, Any]):
    """A bright square; the action that names its half of the frame earns 1."""

    observation_space = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)

    def __init__(self, *, discrete: bool = True) -> None:
        self.action_space = spaces.Discrete(2) if discrete else spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.closed = 0, False
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float((np.ravel(action)[0] > 0) == (self.x >= SIDE // 2))
        self.count += 1
        return self.look(), reward, False, self.count == STEPS, {}

    def look(self) -> Any:
        y, self.x = self.np_random.integers(4, SIDE - 4, 2)
        frame = np.full((SIDE, SIDE, 3), 40, np.uint8)
        frame[y - 4 : y + 4, self.x - 4 : self.x + 4] = 250
        return frame

    def close(self) -> None:
        self.closed = True


def policy(discrete: bool = True, **kwargs: Any) -> PPO:
    env = Blob(discrete=discrete)
    return PPO("CnnPolicy", env, n_steps=8, batch_size=8, seed=0, policy_kwargs=kwargs)


def attentive() -> PPO:
    options = {"perception": "query", "num_heads": 2}
    return policy(False, features_extractor_class=PerceptionExtractor, features_extractor_kwargs=options)


def text_of(report: Report, name: str) -> str:
    return " ".join(next(section for section in report.sections if section.name == name).text)


def test_a_policy_without_attention_in_an_environment_that_tells_nothing(tmp_path: Path) -> None:
    env = Blob()
    report = explain(policy(), env, seeds=range(3), curves=False)
    assert not env.closed
    assert [section.name for section in report.sections] == QUESTIONS
    assert "does not tell where the target is" in text_of(report, "focus")
    assert "cannot show its frames with one thing changed" in text_of(report, "reason")
    verdicts = {section.name: section.verdict for section in report.sections}
    assert {name for name, verdict in verdicts.items() if verdict} == {"faithful", "weights"}
    assert ("Maps", "gradient of the action: this policy has no attention") in report.facts
    assert report.summary[-1] == "The maps are the gradient of the action: this policy has no attention."
    write_report(tmp_path / "report.html", report)
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["sections"]["weights"]["verdict"]["outcome"] in ("yes", "no", "undecided")


class MaskedBlob(Blob):
    """Tells where the square is, as any environment may."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        frame, _ = super().reset(seed=seed)
        return frame, {"target_mask": frame[..., 0] == 250}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        frame, *rest, _ = super().step(action)
        return frame, *rest, {"target_mask": frame[..., 0] == 250}


def test_masks_of_a_single_environment_are_measured() -> None:
    report = explain(policy(), MaskedBlob(), seeds=range(2), curves=False, ablations=())
    focus = next(section for section in report.sections if section.name == "focus")
    assert focus.verdict is not None
    assert "does not tell where the target is" not in " ".join(focus.text)


def test_heads_are_told_apart_and_weighed_on_other_episodes() -> None:
    model = attentive()
    env = Blob(discrete=False)
    report = explain(model, env, seeds=range(2), calibration=[7], curves=False, ablations=())
    assert [section.name for section in report.sections] == [*QUESTIONS[:3], "heads", *QUESTIONS[3:]]
    heads = next(section for section in report.sections if section.name == "heads")
    assert [row[0] for row in heads.tables[0].rows] == ["head 0", "head 1"]
    assert ("Heads", "count by how much they change the action") in report.facts
    assert ("Maps", "attention") in report.facts
    with pytest.raises(ValueError, match="heads are weighed on other episodes"):
        explain(model, env, seeds=range(2), calibration=[1])


def test_curves_of_return_are_played_with_every_share() -> None:
    parts: list[tuple[str, int]] = []

    def watch(name: str, steps: int) -> Any:
        parts.append((name, steps))
        return lambda step: None

    report = explain(policy(), Blob(), seeds=range(2), max_steps=50, start_progress=watch)
    shares = {name.split(" ")[0] for name, _ in parts if "of the pixels" in name}
    assert shares == {"2%", "5%", "20%", "40%"}
    assert {steps for _, steps in parts} == {2 * 50}
    assert report.title == "ActorCriticCnnPolicy"


def test_a_policy_that_does_not_look_is_found_out() -> None:
    model = policy()
    network: Any = model.policy
    with torch.no_grad():
        network.action_net.weight.zero_()
    report = explain(model, Blob(), seeds=range(2), curves=False, ablations=())
    assert "the same actions with all pixels ablated" in text_of(report, "actions")


def test_one_episode_has_no_verdict_and_no_intervals() -> None:
    report = explain_episode(attentive(), Blob(discrete=False), 3)
    assert [section.name for section in report.sections] == ["reason", "heads", *QUESTIONS[3:]]
    assert all(section.verdict is None for section in report.sections)
    figures = [
        cell for section in report.sections for table in section.tables for row in table.rows for cell in row
    ]
    assert not any(np.isfinite(cell.low) for cell in figures if isinstance(cell, tuple))
    assert ("Seed", "3") in report.facts


def test_a_policy_that_remembers_is_refused() -> None:
    model = RecurrentPPO("CnnLstmPolicy", Blob(), policy_kwargs={"lstm_hidden_size": 4})
    with pytest.raises(ValueError, match="remembers what it saw"):
        explain(model, Blob())


def test_means_over_episodes_leave_out_what_is_not_known() -> None:
    values, episode = np.array([1.0, np.nan, 3.0, 8.0]), np.array([0, 0, 0, 4])
    figure = _by_episode(values, episode)
    assert figure.value == 4.0 and figure.low == 2.0 and figure.high == 8.0
    assert np.isnan(_by_episode(np.full(2, np.nan), np.zeros(2, np.int64)).value)


def test_random_weights_are_drawn_again_as_episodes_are() -> None:
    episode = np.repeat(np.arange(4), 3)
    alike = np.broadcast_to(np.array([[0.2], [0.4], [0.9]]), (3, 12))  # draws differ, episodes do not
    figure = _by_draw_and_episode(alike, episode)
    assert figure.value == pytest.approx(0.5)
    assert (figure.low, figure.high) == (pytest.approx(0.2), pytest.approx(0.9))  # thrice one of three draws
    rows = np.broadcast_to(np.repeat([0.0, 0.0, 0.0, 1.0], 3), (3, 12))
    assert _by_draw_and_episode(rows, episode).value == pytest.approx(0.25)
    assert _by_draw_and_episode(rows, episode).high == pytest.approx(0.75)
    assert np.isnan(_by_draw_and_episode(rows, np.zeros(12, np.int64)).low)


def test_maps_that_say_nothing_are_alike_and_unlike_all_others() -> None:
    flat, rising = np.ones((1, 2, 3)), np.arange(6.0).reshape(1, 2, 3)
    pairs = [(flat, flat), (flat, rising), (rising, flat), (rising, rising), (rising, -rising)]
    assert [float(_likeness(*pair)[0]) for pair in pairs] == [1.0, 0.0, 0.0, 1.0, -1.0]
