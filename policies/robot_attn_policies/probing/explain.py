"""The report on a policy: what it attends to, whether that drives its actions, and where it fails.

`explain` runs episodes, unchanged and with ablations and interventions, and collects the findings in a
`Report`: one section per question, with figures and, where possible, a verdict. `explain_steps` makes the
sections that need recorded steps only.
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
from robot_attn_policies.probing import rollout_sections, step_sections
from robot_attn_policies.probing.faithfulness import (
    PIXEL_ABLATIONS,
    REDUNDANT_HEADS,
    SHARE,
    HeadAblation,
    OnRollout,
    PixelAblation,
    run_head_ablation,
    run_pixel_ablation,
)
from robot_attn_policies.probing.interventions import InterventionEffect, measure_interventions
from robot_attn_policies.probing.memory import Timing, has_memory, memory_section
from robot_attn_policies.probing.probe import MAP_KINDS, MapChoice, PolicyProbe, probe_cameras
from robot_attn_policies.probing.sections import check_extra, guarded_section
from robot_attn_policies.probing.steps import StepBatch, StepCollector
from robot_attn_policies.probing.stories import stories_section
from robot_attn_policies.probing.things import things_section
from robot_attn_policies.recording.record import RGBConverter
from robot_attn_policies.rollouts.camera import at_camera
from robot_attn_policies.rollouts.env_batch import EnvBatch, Environment, attribute, seconds_of_step
from robot_attn_policies.rollouts.protocols import HasInterventions, Thing, ability
from robot_attn_policies.rollouts.rollout import StartProgress, Step, random_actor, rollout_episodes
from robot_attn_policies.rollouts.thing_words import ThingWords
from robot_attn_policies.rollouts.things import thing_names
from robot_attn_policies.sb3.extractor import find_extractor
from robot_attn_policies.sb3.images import image_entries

SHARES = (0.02, 0.05, 0.2, 0.4)
"""Fractions of the pixels in the curves of return, besides `SHARE`."""


def explain(
    source: PolicyProbe | Mapping[str | None, PolicyProbe] | BaseAlgorithm | BasePolicy,
    env: Environment,
    *,
    seeds: Sequence[int] = range(16),
    maps: MapChoice | None = None,
    title: str = "",
    facts: Sequence[tuple[str, str]] = (),
    calibration: Sequence[int] = (),
    curves: bool = True,
    ablations: Sequence[str] = tuple(PIXEL_ABLATIONS),
    stack: int | None = None,
    max_steps: int = 10_000,
    start_progress: StartProgress | None = None,
) -> Report:
    """Run the episodes of `seeds` and report what drives a policy's actions.

        report = explain(PPO("CnnPolicy", env).learn(100_000), env)
        write_report("explanation.html", report)

    The report omits what the environment cannot provide, and says so: target masks in its infos (focus),
    `render_counterfactual` (interventions), two environments or more (maps of other episodes).

    A policy with several cameras is explained at each of them in turn: pixels are ablated in one camera's
    frames, and those of the others stay. The infos of an environment with several cameras have
    `target_mask/NAME` for the image NAME.

    Args:
        source: a policy of Stable-Baselines3 or sb3-contrib, its algorithm, its probe, or the probes of its
            cameras, such as `probe_cameras` returns.
        env: the policy's environment: a batch (a Gymnasium `VectorEnv` or a `VecEnv`), or a single one, which
            is slower. It is not closed. Normalising wrappers keep their statistics.
        seeds: one episode per seed. The report holds for these episodes; do not use seeds of the training.
        maps: kind of the maps, as `probe_policy` takes it; not used if `source` is a probe. Causal maps have
            fewer masks here than in `record`, since they are needed at every step of every rollout.
        title: heading of the report; the policy's class by default.
        facts: names and values to list below the heading.
        calibration: seeds of other episodes, on which each head is weighted by how much it changes the action
            (`HeadAblation.weights`). If empty, all heads have equal weight.
        curves: whether to measure the curves of return, which take 16 more runs of all episodes.
        ablations: which of `PIXEL_ABLATIONS` to run besides "deleted", "kept", "random" and "centred", which
            the verdict needs.
        stack: number of frames in one observation, as `record` takes it.
        max_steps: an episode that does not end by itself is truncated after this many steps.
        start_progress: called before each set of rollouts, for a progress bar.

    Returns:
        The report.

    Raises:
        ValueError: an error of `rollout_episodes`, or a policy whose actions do not depend on its
            observations.
        ModuleNotFoundError: the extra "explain" is not installed.
    """
    shared = sorted(set(calibration) & set(seeds))
    if shared:
        raise ValueError(
            f"expected calibration seeds other than the report's, got {shared} in both: use other seeds"
        )
    check_extra()
    probes = _probes(source, maps)
    if len(probes) > 1:
        options: dict[str, Any] = {"curves": curves, "ablations": ablations, "stack": stack}
        options |= {"seeds": seeds, "calibration": calibration, "max_steps": max_steps}
        options |= {"title": title, "facts": facts, "start_progress": start_progress}
        return _join({key: explain(probe, env, **options) for key, probe in probes.items()})
    probe = next(iter(probes.values())).with_fast_maps()
    setup, to_rgb = _set_up(probe, env, seeds, stack, max_steps, start_progress)
    weights, weighting = setup.weigh_heads(calibration)
    setup = replace(setup, weights=weights)

    ablation, steps = setup.ablate_pixels(ablations)
    by_share = {SHARE: ablation}
    if curves:
        by_share |= {share: setup.ablate_share(share, ablation.random) for share in SHARES}
    shares = dict(sorted(by_share.items()))
    makers: dict[str, Callable[[], Section]] = {
        "focus": lambda: rollout_sections.focus_section(steps, ablation, len(seeds), setup.words),
        "things": lambda: things_section(steps, thing_names(setup.env)),
        "faithful": lambda: rollout_sections.faithfulness_section(ablation, shares),
        "interventions": lambda: rollout_sections.interventions_section(setup.intervene()),
    }
    if setup.heads is not None:
        makers["heads"] = lambda: rollout_sections.heads_section(setup.ablate_heads())
    sections = [guarded_section(name, make) for name, make in makers.items()]
    pictures, timing = to_rgb(steps.observation), Timing(to_rgb.stack, seconds_of_step(env))
    sections += explain_steps(probe, steps, pictures, seeds, setup.words, timing)
    method = [
        ("Maps", MAP_KINDS[probe.kind]),
        ("Heads", weighting),
        ("Episodes", f"{len(seeds)}, seeds {min(seeds)} to {max(seeds)}"),
    ]
    title = title or type(probe.policy).__name__
    return Report(title, (*facts, *method), _summary(probe, sections), tuple(sections))


def explain_episode(
    source: PolicyProbe | Mapping[str | None, PolicyProbe] | BaseAlgorithm | BasePolicy,
    env: Environment,
    seed: int,
    *,
    maps: MapChoice | None = None,
    title: str = "",
    facts: Sequence[tuple[str, str]] = (),
    stack: int | None = None,
    max_steps: int = 10_000,
    start_progress: StartProgress | None = None,
) -> Report:
    """Report on one episode, in seconds: everything but returns with ablations.

    It has no verdicts, since one episode does not generalise to others.

    Args:
        source: a policy, its algorithm, or its probe, as `explain` takes it.
        env: the policy's environment, as `explain` takes it.
        seed: seed of the episode.
        maps: kind of the maps, as `explain` takes it.
        title: heading of the report; the policy's class by default.
        facts: names and values to list below the heading.
        stack: number of frames in one observation, as `record` takes it.
        max_steps: an episode that does not end by itself is truncated after this many steps.
        start_progress: called before each set of rollouts, for a progress bar.

    Returns:
        The report.

    Raises:
        ValueError: an error of `explain`.
        ModuleNotFoundError: the extra "explain" is not installed.
    """
    check_extra()
    probes = _probes(source, maps)
    if len(probes) > 1:
        options: dict[str, Any] = {"stack": stack, "max_steps": max_steps}
        options |= {"title": title, "facts": facts, "start_progress": start_progress}
        return _join({key: explain_episode(probe, env, seed, **options) for key, probe in probes.items()})
    (probe,) = probes.values()
    setup, to_rgb = _set_up(probe, env, [seed], stack, max_steps, start_progress)
    collector = StepCollector(probe.grid)
    rollout_episodes(probe.act, setup.env, [seed], on_step=setup.on_step("the unchanged episode", collector))
    head_ablation = None

    def heads_section() -> Section:
        nonlocal head_ablation
        head_ablation = setup.ablate_heads(returns=False)
        return rollout_sections.heads_section(head_ablation)

    heads = [] if setup.heads is None else [guarded_section("heads", heads_section)]
    steps = collector.batch(None if head_ablation is None else head_ablation.weights)
    setup = replace(setup, weights=steps.weights)
    pictures, timing = to_rgb(steps.observation), Timing(to_rgb.stack, seconds_of_step(env))
    sections = [
        guarded_section("interventions", lambda: rollout_sections.interventions_section(setup.intervene())),
        *heads,
        guarded_section("things", lambda: things_section(steps, thing_names(setup.env))),
        *explain_steps(probe, steps, pictures, [seed], setup.words, timing),
    ]
    return Report(
        title or type(probe.policy).__name__,
        (*facts, ("Maps", MAP_KINDS[probe.kind]), ("Seed", str(seed))),
        (
            *_failure_sentences(sections),
            "One episode does not generalise to others: `explain` gives verdicts over many.",
        ),
        tuple(replace(section, verdict=None) for section in sections),
    )


def _probes(
    source: PolicyProbe | Mapping[str | None, PolicyProbe] | BaseAlgorithm | BasePolicy,
    maps: MapChoice | None,
) -> Mapping[str | None, PolicyProbe]:
    """Return the probe of each camera."""
    if isinstance(source, PolicyProbe):
        return {source.image: source}
    return source if isinstance(source, Mapping) else probe_cameras(source, maps=maps)


def _join(reports: Mapping[str | None, Report]) -> Report:
    """Join the reports at the cameras of one policy; that of a single camera stays as it is."""
    first = next(iter(reports.values()))
    if len(reports) == 1:
        return first
    facts = [fact for fact in first.facts if all(fact in report.facts for report in reports.values())]
    own = [
        (f"{name}, camera {key}", value)
        for key, report in reports.items()
        for name, value in report.facts
        if (name, value) not in facts
    ]
    sections = [
        replace(section, name=f"camera-{number}-{section.name}", title=f"Camera {key}. {section.title}")
        for number, (key, report) in enumerate(reports.items(), start=1)
        for section in report.sections
    ]
    summary = [f"Camera {key}: {line}" for key, report in reports.items() for line in report.summary]
    cameras = ("Cameras", ", ".join(map(str, reports)))
    return Report(first.title, (*facts, cameras, *own), tuple(summary), tuple(sections))


def _set_up(
    probe: PolicyProbe,
    env: Environment,
    seeds: Sequence[int],
    stack: int | None,
    max_steps: int,
    start_progress: StartProgress | None,
) -> tuple[_Setup, RGBConverter]:
    """Return what runs the episodes, and what converts their frames for pictures."""
    to_rgb = RGBConverter(env, probe, stack)
    batch: Any = env if isinstance(env, VectorEnv) else EnvBatch(env, max_steps)
    batch = at_camera(batch, probe.image, only=probe.only_camera)
    spec = attribute(env, "spec")
    horizon = getattr(batch, "horizon", None) or getattr(spec, "max_episode_steps", None) or max_steps
    words = ThingWords(batch, len(seeds))
    return _Setup(probe, batch, seeds, horizon, start_progress, words), to_rgb


def explain_steps(
    probe: PolicyProbe,
    steps: StepBatch,
    pictures: NDArray[np.uint8],
    seeds: Sequence[int],
    words: ThingWords,
    timing: Timing,
) -> list[Section]:
    """Make the sections that need recorded steps only.

    Args:
        probe: the policy.
        steps: its steps.
        pictures: uint8 [N, H, W, 3], the frame of each step as RGB.
        seeds: seed of each episode.
        words: what the labels of the steps stand for.
        timing: frames of an observation, and seconds of a step.
    """
    makers: dict[str, Callable[[], Section]] = {
        "captured": lambda: stories_section(steps, pictures, seeds, words),
        "failures": lambda: step_sections.failures_section(steps, pictures, seeds),
        "weights": lambda: step_sections.weights_section(probe, steps),
        "actions": lambda: step_sections.action_section(probe, steps),
        "gradients": lambda: step_sections.gradients_section(probe, steps),
        "clusters": lambda: step_sections.clusters_section(steps, pictures),
        "time": lambda: step_sections.time_section(steps),
    }
    if has_memory(probe, timing):
        makers["memory"] = lambda: memory_section(probe, steps, timing)
    return [guarded_section(name, make) for name, make in makers.items()]


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
    "interventions": {
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
"""Sentences of the summary, by section and by its verdict's outcome."""


def _summary(probe: PolicyProbe, sections: Sequence[Section]) -> tuple[str, ...]:
    """Summarise the verdicts, the failures, and the kind of the maps in sentences."""
    verdicts = {section.name: section.verdict for section in sections if section.verdict is not None}
    answers = "; ".join(_ANSWERS[name][verdict.outcome] for name, verdict in verdicts.items())
    sentences = [f"{answers[0].upper()}{answers[1:]}."] if answers else []
    sentences += _failure_sentences(sections)
    sentences += [f"Memory: {section.text[0]}" for section in sections if section.name == "memory"]
    if probe.kind != "attention":
        sentences.append(f"Maps: {MAP_KINDS[probe.kind]}.")
    return tuple(sentences)


def _failure_sentences(sections: Sequence[Section]) -> list[str]:
    """Say where the policy fails, and what captures its attention if anything does."""
    by_name = {section.name: section for section in sections}
    captured = by_name["captured"]
    parts = [
        f"Where it fails: {by_name['failures'].text[0]}",
        *([captured.text[0]] if captured.tables else []),
    ]
    return [" ".join(parts)]


@dataclass(frozen=True)
class _Setup:
    """A policy, its environments and the seeds of its episodes.

    Attributes:
        probe: the policy.
        env: a batch of environments.
        seeds: one episode per seed.
        horizon: longest possible episode, in steps.
        start_progress: called before each set of rollouts, or None.
        words: what the labels in the infos stand for, in the unchanged episodes.
        weights: float64 [heads], weight of each head; None for equal weights.
    """

    probe: PolicyProbe
    env: Any
    seeds: Sequence[int]
    horizon: int
    start_progress: StartProgress | None
    words: ThingWords
    weights: NDArray[np.float64] | None = None

    def on_step(self, name: str, collector: StepCollector | None = None) -> Callable[[Step], None] | None:
        """Start the progress of the rollouts `name`, and return their `on_step`, which may collect steps."""
        progress = (
            None if self.start_progress is None else self.start_progress(name, len(self.seeds) * self.horizon)
        )
        if collector is None:
            return progress

        def collect(step: Step) -> None:
            collector(step)
            self.words(step)
            if progress is not None:
                progress(step)

        return collect

    @property
    def image(self) -> str:
        return self.probe.image or "image"

    def ablate_pixels(self, ablations: Sequence[str]) -> tuple[PixelAblation, StepBatch]:
        """Ablate a tenth of the pixels; also return the steps of the unchanged episodes."""
        act = random_actor(self.env.action_space)
        random = rollout_episodes(act, self.env, self.seeds, on_step=self.on_step("random actions")).returns
        collector = StepCollector(self.probe.grid)

        def on_rollout(name: str) -> Callable[[Step], None] | None:
            description = PIXEL_ABLATIONS.get(name, "the unchanged episodes")
            return self.on_step(description, collector if name == "full" else None)

        requested = dict.fromkeys([*rollout_sections.CURVE_ABLATIONS, *ablations])
        names = [name for name in requested if name != "borrowed" or self.env.num_envs > 1]
        return self._ablate(random, names, SHARE, on_rollout), collector.batch(self.weights)

    def ablate_share(self, share: float, random: NDArray[np.float64]) -> PixelAblation:
        """Ablate another fraction of the pixels."""
        return self._ablate(
            random,
            rollout_sections.CURVE_ABLATIONS,
            share,
            lambda name: self.on_step(f"{share:.0%} of the pixels, {name}"),
        )

    def _ablate(
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

    def intervene(self) -> Mapping[tuple[Thing, str], InterventionEffect] | None:
        """Measure the interventions; None if the environment renders no counterfactuals of this camera."""
        simulator = ability(self.env, HasInterventions)
        if simulator is None or self.image != self._counterfactual_camera(simulator):
            return None
        return measure_interventions(
            self.probe.act,
            self.env,
            self.seeds,
            self.probe.grid,
            weights=self.weights,
            image=self.image,
            on_step=self.on_step("interventions"),
        )

    def _counterfactual_camera(self, simulator: HasInterventions) -> str:
        """Return the key of the image to which the masks of counterfactuals belong."""
        images = image_entries(self.probe.policy.observation_space)
        if len(images) == 1:
            return self.image
        self.env.reset(seed=[int(self.seeds[0])] * self.env.num_envs)
        found = simulator.render_counterfactual("target", removed=True)
        return next((name for name in found if name in images), "image")

    def weigh_heads(self, seeds: Sequence[int]) -> tuple[NDArray[np.float64] | None, str]:
        """Weight each head by its effect on the action on `seeds`.

        Returns:
            The weights, None for equal ones; and how heads are weighted, in words.
        """
        if not seeds or self.heads is None:
            return None, "equal weights"
        try:
            ablation = replace(self, seeds=seeds).ablate_heads(returns=False)
        except InsensitivePolicyError:
            return None, "equal weights: no head affects the actions"
        if ablation.redundant:
            return None, f"equal weights: {REDUNDANT_HEADS}"
        return ablation.weights, "weighted by their effect on the action"

    def ablate_heads(self, *, returns: bool = True) -> HeadAblation:
        """Ablate each of `heads`."""
        assert self.heads is not None
        return run_head_ablation(
            self.probe.act,
            self.env,
            self.seeds,
            self.heads,
            returns=returns,
            on_rollout=lambda name: self.on_step(f"heads: {name}"),
        )

    @property
    def heads(self) -> HeadInputs | None:
        """The inputs of the policy's heads; None if they cannot be ablated singly."""
        if self.probe.kind != "attention":
            return None
        try:
            return find_extractor(self.probe.policy).perception_of(self.probe.image).head_inputs()
        except ValueError:
            return None
