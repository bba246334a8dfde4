"""The report on a policy: what it looks at, whether that decides what it does, and where it fails.

`explain` plays episodes, as they are and with things taken away or changed, and puts what was found into a
`Report`: one section a question, each with figures, and a verdict where one can be given. `explain_steps` is
the part of it that needs no environment, only steps that were kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from robot_attn.explain import HeadInputs, InsensitivePolicyError
from robot_attn_policies.pages.report import Report, Section
from robot_attn_policies.probing import report_sections
from robot_attn_policies.probing.faithfulness import (
    PIXEL_ABLATIONS,
    SHARE,
    HeadAblation,
    InterventionEffect,
    OnRollout,
    PixelAblation,
    measure_interventions,
    run_head_ablation,
    run_pixel_ablation,
)
from robot_attn_policies.probing.probe import MAP_KINDS, PolicyProbe, probe_policy
from robot_attn_policies.probing.steps import StepBatch, StepCollector
from robot_attn_policies.recording.record import Show
from robot_attn_policies.rollouts.protocols import HasInterventions, Thing, ability
from robot_attn_policies.rollouts.rollout import StartProgress, Step, random_actor, rollout_episodes
from robot_attn_policies.rollouts.single_env import BatchOfOne, Environment, attribute
from robot_attn_policies.sb3.extractor import find_extractor

SHARES = (0.02, 0.05, 0.2, 0.4)
"""Of the pixels, in the curves of return, beside `SHARE`."""


def explain(
    source: PolicyProbe | BaseAlgorithm | BasePolicy,
    env: Environment,
    *,
    seeds: Sequence[int] = range(16),
    title: str = "",
    facts: Sequence[tuple[str, str]] = (),
    calibration: Sequence[int] = (),
    curves: bool = True,
    ablations: Sequence[str] = tuple(PIXEL_ABLATIONS),
    stack: int | None = None,
    max_steps: int = 10_000,
    start_progress: StartProgress | None = None,
) -> Report:
    """Play the episodes of `seeds`, and explain a policy by them.

        report = explain(PPO("CnnPolicy", env).learn(100_000), env)
        write_report("explanation.html", report)

    What the environment does not offer is left out, and the report says so: target masks in its infos
    (focus), `render_counterfactual` (one thing changed, and nothing else), two environments or more (maps of
    other episodes).

    Args:
        source: a policy of Stable-Baselines3 or sb3-contrib, its algorithm, or `probe_policy` one.
        env: what it acts in: a batch of environments (a Gymnasium `VectorEnv`), which is quicker, a single
            one, or a `VecEnv` of one. It stays open.
        seeds: one an episode. What is found holds for these; none of them should have been trained on.
        title: heading of the report.
        facts: names and values that stand below it.
        calibration: seeds of other episodes, on which heads are weighed by how much each changes the action
            (`HeadAblation.weights`); by default all count equally.
        curves: whether to play on for the curves of return, 16 times all episodes.
        ablations: of `PIXEL_ABLATIONS`, beside "deleted", "kept", "random" and "centred", which the verdict
            needs.
        stack: how many frames one observation holds, as `record` takes it.
        max_steps: where an episode that does not end is cut.
        start_progress: told of every part, for a progress bar.

    Raises:
        ValueError: as `rollout_episodes`; a policy whose actions do not depend on what it sees; or one that
            remembers, as these tests ask what it would do at once.
        ModuleNotFoundError: the extra "explain" is not installed.
    """
    if set(calibration) & set(seeds):
        raise ValueError("heads are weighed on other episodes than those of the report: use other seeds")
    stage, show = _stage(source, env, seeds, stack, max_steps, start_progress)
    stage = replace(stage, weights=stage.weigh(calibration))
    probe = stage.probe

    erased, seen = stage.ablate_pixels(ablations)
    at_shares = {SHARE: erased}
    if curves:
        at_shares |= {share: stage.ablate_share(share, erased.random) for share in SHARES}
    sections = [
        report_sections.focus_section(seen, erased, len(seeds)),
        report_sections.faithful_section(erased, dict(sorted(at_shares.items()))),
        report_sections.reason_section(stage.edit()),
    ]
    silenced = stage.ablate_heads()
    if silenced is not None:
        sections.append(report_sections.heads_section(silenced))
    sections += explain_steps(probe, seen, show(seen.observation), seeds)
    about = [
        ("Maps", MAP_KINDS[probe.kind]),
        ("Heads", "count equally" if stage.weights is None else "count by how much they change the action"),
        ("Episodes", f"{len(seeds)}, seeds {min(seeds)} to {max(seeds)}"),
    ]
    title = title or type(probe.policy).__name__
    return Report(title, (*facts, *about), _summary(probe, sections), tuple(sections))


def explain_episode(
    source: PolicyProbe | BaseAlgorithm | BasePolicy,
    env: Environment,
    seed: int,
    *,
    title: str = "",
    facts: Sequence[tuple[str, str]] = (),
    stack: int | None = None,
    max_steps: int = 10_000,
    start_progress: StartProgress | None = None,
) -> Report:
    """What can be told of one episode in seconds: all but what it would have earned otherwise.

    It comes without verdicts, as one episode says nothing about others. Arguments and errors: `explain`.
    """
    stage, show = _stage(source, env, [seed], stack, max_steps, start_progress)
    probe, keeper = stage.probe, StepCollector(stage.horizon, 1, stage.probe.grid)
    rollout_episodes(probe.act, stage.env, [seed], on_step=stage.part("the episode as it is", keeper))
    silenced = stage.ablate_heads(returns=False)
    seen = keeper.seen(None if silenced is None else silenced.weights)
    stage = replace(stage, weights=seen.weights)
    sections = [
        report_sections.reason_section(stage.edit()),
        *([] if silenced is None else [report_sections.heads_section(silenced)]),
        *explain_steps(probe, seen, show(seen.observation), [seed]),
    ]
    said = [section.text[0] for section in sections if section.name == "failures"]
    return Report(
        title or type(probe.policy).__name__,
        (*facts, ("Maps", MAP_KINDS[probe.kind]), ("Seed", str(seed))),
        (*said, "One episode says nothing about others: `explain` gives verdicts, on many."),
        tuple(replace(section, verdict=None) for section in sections),
    )


def _stage(
    source: PolicyProbe | BaseAlgorithm | BasePolicy,
    env: Environment,
    seeds: Sequence[int],
    stack: int | None,
    max_steps: int,
    start_progress: StartProgress | None,
) -> tuple[_Stage, Show]:
    """Where it is played, and how frames are shown."""
    probe = source if isinstance(source, PolicyProbe) else probe_policy(source)
    if hasattr(probe.policy, "lstm_actor"):
        raise ValueError(
            f"{type(probe.policy).__name__} remembers what it saw, and these tests change single frames: "
            "explain a policy without memory"
        )
    show = Show(env, probe, stack)
    batch: Any = env if isinstance(env, VectorEnv) else BatchOfOne(env, max_steps)
    spec = attribute(env, "spec")
    horizon = getattr(batch, "horizon", None) or getattr(spec, "max_episode_steps", None) or max_steps
    return _Stage(probe, batch, seeds, horizon, start_progress), show


def explain_steps(
    probe: PolicyProbe, seen: StepBatch, pictures: NDArray[np.uint8], seeds: Sequence[int]
) -> list[Section]:
    """What can be told from steps that were kept, without playing on.

    Args:
        eyes: of the policy.
        seen: the steps.
        pictures: [N, H, W, 3] their frames, as they can be shown.
        seeds: of the episodes.
    """
    return [
        report_sections.failures_section(seen, pictures, seeds),
        report_sections.weights_section(probe, seen),
        report_sections.action_section(probe, seen),
        report_sections.gradients_section(probe, seen),
        report_sections.clusters_section(seen, pictures),
        report_sections.time_section(seen),
    ]


_ANSWERS: dict[str, dict[str, str]] = {
    "focus": {
        "yes": "attention is localised on the target",
        "no": "attention is not localised on the target",
        "undecided": "whether attention is localised on the target is undecided",
    },
    "faithful": {
        "yes": "the return depends on the attended pixels",
        "no": "the return does not depend on the attended pixels alone",
        "undecided": "whether the return depends on the attended pixels is undecided",
    },
    "reason": {
        "yes": "actions and attention respond to the target and not to distractors",
        "no": "actions and attention do not respond to the target alone",
        "undecided": "whether actions and attention respond to the target alone is undecided",
    },
    "weights": {
        "yes": "the maps depend on the learned weights",
        "no": "the maps hardly depend on the learned weights",
        "undecided": "whether the maps depend on the learned weights is undecided",
    },
}
"""What a section's verdict says of the policy."""


def _summary(probe: PolicyProbe, sections: Sequence[Section]) -> tuple[str, ...]:
    """The answer in sentences: what was found, where it fails, and of which maps that holds."""
    verdicts = {section.name: section.verdict for section in sections if section.verdict is not None}
    answers = [_ANSWERS[name][verdict.outcome] for name, verdict in verdicts.items()]
    said = [_sentence("; ".join(answers))] if answers else []
    failures = [section.text[0] for section in sections if section.name == "failures"]
    said += [f"Where it fails: {text}" for text in failures]
    if probe.kind != "attention":
        said.append(f"The maps are the {MAP_KINDS[probe.kind]}.")
    return tuple(said)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


@dataclass(frozen=True)
class _Stage:
    """Where everything is played: a policy, its environments and the episodes."""

    probe: PolicyProbe
    env: Any
    seeds: Sequence[int]
    horizon: int
    start_progress: StartProgress | None
    weights: NDArray[np.float64] | None = None
    """[heads] how much each counts; None for equal weights."""

    def part(self, name: str, keeper: StepCollector | None = None) -> Callable[[Step], None] | None:
        """What to call after each step of all episodes, the part called `name`; it may be kept."""
        after = (
            None if self.start_progress is None else self.start_progress(name, len(self.seeds) * self.horizon)
        )
        if keeper is None:
            return after

        def keep(step: Step) -> None:
            keeper(step)
            if after is not None:
                after(step)

        return keep

    @property
    def image(self) -> str:
        return self.probe.image or "image"

    def ablate_pixels(self, ablations: Sequence[str]) -> tuple[PixelAblation, StepBatch]:
        """Returns with a tenth of the pixels deleted, and the steps of the unchanged episodes."""
        act = random_actor(self.env.action_space)
        random = rollout_episodes(act, self.env, self.seeds, on_step=self.part("random actions")).returns
        keeper = StepCollector(self.horizon, len(self.seeds), self.probe.grid)

        def on_rollout(name: str) -> Callable[[Step], None] | None:
            words = PIXEL_ABLATIONS.get(name, "the episodes as they are")
            return self.part(words, keeper if name == "full" else None)

        wanted = dict.fromkeys([*report_sections.CURVE, *ablations])
        names = [name for name in wanted if name != "borrowed" or self.env.num_envs > 1]
        return self._play(random, names, SHARE, on_rollout), keeper.seen(self.weights)

    def ablate_share(self, share: float, random: NDArray[np.float64]) -> PixelAblation:
        """Returns with another share of the pixels deleted."""
        return self._play(
            random, report_sections.CURVE, share, lambda name: self.part(f"{share:.0%} of the pixels, {name}")
        )

    def _play(
        self, random: NDArray[np.float64], names: Sequence[str], share: float, on_rollout: OnRollout
    ) -> PixelAblation:
        return run_pixel_ablation(
            self.probe.act,
            self.env,
            self.seeds,
            self.probe.grid,
            random,
            names=names,
            share=share,
            weights=self.weights,
            image=self.image,
            on_rollout=on_rollout,
        )

    def edit(self) -> Mapping[tuple[Thing, str], InterventionEffect] | None:
        """Effects of one changed object; None where the environment renders no counterfactuals."""
        if ability(self.env, HasInterventions) is None:
            return None
        after = self.part("one thing changed")
        return measure_interventions(
            self.probe.act,
            self.env,
            self.seeds,
            self.probe.grid,
            weights=self.weights,
            image=self.image,
            on_step=after,
        )

    def weigh(self, seeds: Sequence[int]) -> NDArray[np.float64] | None:
        """How much each head changes the action in the episodes of `seeds`; None where that is not known."""
        silenced = replace(self, seeds=seeds).ablate_heads(returns=False) if seeds else None
        return None if silenced is None else silenced.weights

    def ablate_heads(self, *, returns: bool = True) -> HeadAblation | None:
        """What each head carries; None where heads cannot be told apart, or none carries anything."""
        heads = self._heads()
        if heads is None:
            return None
        try:
            return run_head_ablation(
                self.probe.act,
                self.env,
                self.seeds,
                heads,
                returns=returns,
                on_rollout=lambda name: self.part(f"heads: {name}"),
            )
        except InsensitivePolicyError:
            return None

    def _heads(self) -> HeadInputs | None:
        if self.probe.kind != "attention":
            return None
        try:
            return find_extractor(self.probe.policy).perception.head_inputs()
        except ValueError:
            return None
