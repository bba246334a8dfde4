"""Report section on memory: how far back a frame matters to a recurrent or stacked policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_attn.explain import (
    MAX_FRAME_LAG,
    MIN_FRAME_EFFECT,
    MIN_SPAN_EPISODES,
    LagEffects,
    frame_lag_effects,
    memory_span,
    other_episodes,
)
from robot_attn_policies.evaluation.statistics import Interval, ratio_of_sums
from robot_attn_policies.pages.report import Chart, Section, Series
from robot_attn_policies.probing.episode_intervals import interval_over_episodes, interval_series
from robot_attn_policies.probing.probe import PolicyProbe, frames_of, with_frames
from robot_attn_policies.probing.sections import TITLES
from robot_attn_policies.probing.steps import StepBatch, take_rows
from robot_attn_policies.sb3.context import Memory, is_recurrent, predict

NEARLY_ALL = 0.9
"""Share of the change with all frames replaced from which the last frames count as nearly all."""


class Timing(NamedTuple):
    """Which steps an observation holds, and how long one is.

    Attributes:
        stack: number of frames in one observation.
        dt: seconds of a step; None if unknown.
    """

    stack: int = 1
    dt: float | None = None


def has_memory(probe: PolicyProbe, timing: Timing) -> bool:
    """Whether a policy acts on earlier frames: it is recurrent, or observes a stack of several."""
    return is_recurrent(probe.policy) or timing.stack > 1


def memory_section(probe: PolicyProbe, steps: StepBatch, timing: Timing) -> Section:
    """Report how far back a frame matters.

    Args:
        probe: a policy that `has_memory`.
        steps: its steps.
        timing: frames of an observation, and seconds of a step.

    Raises:
        ValueError: some steps were left out.
    """
    recurrent, (stack, dt) = is_recurrent(probe.policy), timing
    same_episode = steps.episode[1:] == steps.episode[:-1]
    if (np.diff(steps.step)[same_episode] != 1).any():
        raise ValueError(
            "expected every step of the episodes, got some of them, as the frames of all take too much "
            "memory: explain fewer episodes"
        )
    longest = int(steps.step.max()) + 1
    max_lag = min(MAX_FRAME_LAG, longest // 2) if recurrent else stack - 1
    effects = _measure(probe, steps, max_lag, stack)
    main = next(iter(effects.values()))
    if np.nansum(main.total) == 0:
        name = next(iter(effects))
        text = f"The actions are the same with all frames replaced by {name}."
        return Section("memory", TITLES["memory"], (text,))
    return Section(
        "memory",
        TITLES["memory"],
        (
            *_answer(main, recurrent, dt),
            _method(main, recurrent),
        ),
        charts=(
            Chart(
                "Change in action by the age of the replaced frame",
                "age of the frame, in steps" + ("" if dt is None else f" of {dt:g} s"),
                "change in action",
                tuple(_series(effects)),
                limits=((f"{MIN_FRAME_EFFECT:.0%}: remembered", MIN_FRAME_EFFECT),),
            ),
        ),
    )


def _method(effects: LagEffects, recurrent: bool) -> str:
    count = len(effects.total_by_episode)
    return (
        f"In {count} episode{'s' * (count > 1)}, {len(effects.alone)} frames were replaced one at a time. "
        "Later frames and all other inputs stayed as recorded"
        f"{', and the memory was computed again' if recurrent else ''}. A change of 1 is that with all "
        "frames since the start of the episode replaced. Another episode's frame, of the same step, is as "
        "likely an input as the policy's own; a blank one, of the frame's mean colour, is not."
    )


def _measure(probe: PolicyProbe, steps: StepBatch, max_lag: int, stack: int) -> Mapping[str, LagEffects]:
    """Measure the effects, by what a frame is replaced by; the first is what the answer is based on."""
    image = probe.image or "image"
    frames = frames_of(steps.observation, image, probe.grid)

    def advance(
        changed: NDArray[Any], rows: NDArray[np.int64], memory: Memory | None
    ) -> tuple[NDArray[Any], Memory | None]:
        context = steps.context.take(rows)
        context = context if memory is None else replace(context, memory=memory)
        observation = with_frames(take_rows(steps.observation, rows), image, probe.grid, changed)
        return predict(probe.policy, observation, context)

    mean = frames.mean(axis=(1, 2), keepdims=True)
    blank = np.round(mean) if np.issubdtype(frames.dtype, np.integer) else mean
    replacements = {"a blank frame": np.broadcast_to(blank.astype(frames.dtype), frames.shape)}
    if len(np.unique(steps.episode)) > 1:
        replacements = {"another episode's frame": other_episodes(frames, steps.episode)} | replacements
    return {
        name: frame_lag_effects(advance, frames, others, steps.episode, max_lag=max_lag, stack=stack)
        for name, others in replacements.items()
    }


def _answer(effects: LagEffects, recurrent: bool, dt: float | None) -> list[str]:
    """Say how far back a frame matters, in sentences."""
    count = len(effects.total_by_episode)
    if count < MIN_SPAN_EPISODES:
        return [
            f"At least {MIN_SPAN_EPISODES} episodes are needed to say how far back a frame matters, "
            f"got {count}."
        ]
    span = memory_span(effects)
    verb = "It remembers" if recurrent else "It uses frames"
    none = f"changes the action by more than {MIN_FRAME_EFFECT:.0%} of the change with all frames replaced"
    if span.lag is None:
        first = f"It is undecided how far back a frame matters: no single frame surely {none}."
    elif span.lag == 0:
        first = f"It acts on the current frame only: no earlier one surely {none}."
    elif span.lag < span.max_lag:
        first = f"{verb} back to {_duration(span.lag, dt)}: no earlier frame surely {none}."
    elif recurrent:
        first = f"{verb} back to at least {_duration(span.lag, dt)}, the largest lag that was measured."
    else:
        first = f"{verb} back to {_duration(span.lag, dt)}, the oldest frame of its stack."
    answer = [first]
    if span.half_lag is not None:
        answer.append(
            f"Half of what single frames change is due to frames at most {_duration(span.half_lag, dt)} old. "
            f"{_together(effects)}"
        )
    return answer


def _together(effects: LagEffects) -> str:
    """Say how many of the last frames are needed to change the action, whatever each of them does alone."""
    together, total = (
        np.nanmean(values, axis=0) for values in (effects.together_by_episode, effects.total_by_episode)
    )
    enough = np.flatnonzero(together >= NEARLY_ALL * total)
    if not len(enough):
        return (
            f"The last {len(total)} frames together give less than {NEARLY_ALL:.0%} of the change with all "
            "frames replaced: the policy remembers more than single frames show."
        )
    last = f"the last {enough[0] + 1} frames together" if enough[0] else "the current frame alone"
    return f"Replacing {last} gives {NEARLY_ALL:.0%} of the change with all frames replaced."


def _duration(lag: int, dt: float | None) -> str:
    """A lag in steps, and in seconds if known."""
    steps = f"{lag} step{'s' * (lag != 1)}"
    return steps if dt is None else f"{steps} ({lag * dt:.2g} s)"


def _series(effects: Mapping[str, LagEffects]) -> list[Series]:
    lags = list(range(next(iter(effects.values())).alone.shape[1]))
    series = []
    for name, found in effects.items():
        series.append(interval_series(name, lags, _shares(found.alone_by_episode, found.total_by_episode)))
    name, found = next(iter(effects.items()))
    together = _shares(found.together_by_episode, found.total_by_episode)
    series.append(interval_series(f"{name}, and all since", lags, together))
    return series


def _shares(effects: NDArray[np.float64], total: NDArray[np.float64]) -> list[Interval]:
    """Mean effects [E, K + 1] relative to the mean `total`, with an interval over episodes, by lag."""
    pairs = np.stack([effects, total], axis=2).transpose(1, 0, 2)
    return [interval_over_episodes(rows[np.isfinite(rows[:, 0])], ratio_of_sums) for rows in pairs]
