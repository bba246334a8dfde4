"""The report on a policy: what it attends to, whether that drives its actions, and where it fails.

`explain` runs episodes, unchanged and with ablations and interventions, and collects the findings in a
`Report`: one section per question, with figures and, where possible, a verdict. `explain_steps` makes the
sections that need recorded steps only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from robot_attn_policies.pages.report import Report, Section
from robot_attn_policies.probing import rollout_sections, step_sections
from robot_attn_policies.probing.causal_section import causal_section
from robot_attn_policies.probing.faithfulness import (
    PIXEL_ABLATIONS,
)
from robot_attn_policies.probing.mediation_section import mediation_section
from robot_attn_policies.probing.memory import Timing, has_memory, memory_section
from robot_attn_policies.probing.probe import MAP_KINDS, MapChoice, PolicyProbe, probe_cameras
from robot_attn_policies.probing.rounds import play_rounds
from robot_attn_policies.probing.sections import check_extra, guarded_section
from robot_attn_policies.probing.setup import Setup
from robot_attn_policies.probing.steps import StepBatch, StepCollector
from robot_attn_policies.probing.stories import stories_section
from robot_attn_policies.probing.summary import summarise
from robot_attn_policies.probing.things import things_section
from robot_attn_policies.recording.record import RGBConverter
from robot_attn_policies.rollouts.camera import at_camera
from robot_attn_policies.rollouts.env_batch import EnvBatch, Environment, attribute, seconds_of_step
from robot_attn_policies.rollouts.rollout import StartProgress
from robot_attn_policies.rollouts.thing_words import ThingWords
from robot_attn_policies.rollouts.things import thing_names

SHARES = (0.02, 0.05, 0.2, 0.4)
"""Fractions of the pixels in the curves of return, besides `SHARE`."""


def explain(
    source: PolicyProbe | Mapping[str | None, PolicyProbe] | BaseAlgorithm | BasePolicy,
    env: Environment,
    *,
    seeds: Sequence[int] = range(64),
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
        seeds: one episode per seed. They are the budget: episodes are run in rounds, in this order, until
            every verdict is decided. Fewer than 8 decide none. The report holds for these episodes; do not
            use seeds of the training.
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
    names = list(dict.fromkeys([*rollout_sections.CURVE_ABLATIONS, *ablations]))
    found = play_rounds(replace(setup, weights=weights), names)
    setup, steps = found.setup, found.steps

    def mediation() -> Section:
        found.raise_failure("mediation")
        return mediation_section(found.mediation)

    makers: dict[str, Callable[[], Section]] = {
        "focus": lambda: rollout_sections.focus_section(found),
        "things": lambda: things_section(steps, thing_names(setup.env)),
        "faithful": lambda: rollout_sections.faithfulness_section(found, SHARES if curves else ()),
        "mediation": mediation,
        "interventions": lambda: rollout_sections.interventions_section(
            found.effects, found.verdict("interventions")
        ),
    }
    if setup.heads is not None:
        makers["heads"] = lambda: rollout_sections.heads_section(setup.ablate_heads())
    sections = [guarded_section(name, make) for name, make in makers.items()]
    pictures, timing = to_rgb(steps.observation), Timing(to_rgb.stack, seconds_of_step(env))
    played = setup.seeds
    sections += explain_steps(probe, steps, pictures, played, setup.words, timing)
    episodes = f"{len(played)}, seeds {min(played)} to {max(played)}"
    if found.stopped:
        episodes += f"; of at most {len(seeds)}, since {found.stopped}"
    method = [("Maps", MAP_KINDS[probe.kind]), ("Heads", weighting), ("Episodes", episodes)]
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
    setup.play_unchanged(collector)
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
        guarded_section("mediation", lambda: mediation_section(setup.mediate(steps))),
        guarded_section(
            "interventions", lambda: rollout_sections.interventions_section(setup.intervene(), None)
        ),
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
) -> tuple[Setup, RGBConverter]:
    """Return what runs the episodes, and what converts their frames for pictures."""
    to_rgb = RGBConverter(env, probe, stack)
    batch: Any = env if isinstance(env, VectorEnv) else EnvBatch(env, max_steps)
    batch = at_camera(batch, probe.image, only=probe.only_camera)
    spec = attribute(env, "spec")
    horizon = getattr(batch, "horizon", None) or getattr(spec, "max_episode_steps", None) or max_steps
    words = ThingWords(batch, len(seeds))
    return Setup(probe, batch, seeds, horizon, start_progress, words), to_rgb


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
        "failures": lambda: step_sections.failures_section(steps, pictures, seeds, words),
        "weights": lambda: step_sections.weights_section(probe, steps),
        "actions": lambda: step_sections.action_section(probe, steps),
        "gradients": lambda: step_sections.gradients_section(probe, steps),
        "clusters": lambda: step_sections.clusters_section(steps, pictures),
        "time": lambda: step_sections.time_section(steps),
    }
    if probe.kind == "attention":
        makers["causal"] = lambda: causal_section(probe, steps)
    if has_memory(probe, timing):
        makers["memory"] = lambda: memory_section(probe, steps, timing)
    return [guarded_section(name, make) for name, make in makers.items()]


def _summary(probe: PolicyProbe, sections: Sequence[Section]) -> tuple[str, ...]:
    """Summarise the verdicts, the failures, and the kind of the maps in sentences."""
    verdicts = {section.name: section.verdict for section in sections if section.verdict is not None}
    claims = summarise(verdicts)
    sentences = [claims] if claims else []
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
