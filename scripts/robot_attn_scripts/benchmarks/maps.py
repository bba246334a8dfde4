"""Measure causal maps against gradient maps and attention: where they point, and what their pixels decide."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.status import Status

from robot_attn import AttentionGrid, AttentionMaps
from robot_attn.explain import (
    METHODS,
    ablate_pixels,
    action_curves,
    discs,
    gradient_maps,
    occlusion_map,
    random_places,
    spread,
    top_pixels,
)
from robot_attn.focus import PriorMap, pointing_game
from robot_attn_policies.evaluation.statistics import bootstrap_interval, ratio_of_sums
from robot_attn_policies.probing.decision import decision
from robot_attn_policies.probing.episode_intervals import mean_over_episodes
from robot_attn_policies.probing.policy_maps import FAST, PRECISE, frames_and_response, policy_causal_maps
from robot_attn_policies.probing.probe import (
    PolicyProbe,
    frames_of,
    image_module,
    probe_policy,
    with_frames,
)
from robot_attn_policies.probing.steps import StepBatch, StepCollector
from robot_attn_policies.rollouts.actor import ChangedActor, ObservationBatch
from robot_attn_policies.rollouts.rollout import random_actor, rollout_episodes
from robot_attn_policies.sb3.context import Context, predict
from robot_attn_scripts import _loaded_run, _report
from robot_attn_scripts._timing import one_thread
from robot_attn_scripts.options.benchmarks.maps import Options

PRIOR_EPISODES = 16
"""Other episodes in which the target's average place is measured."""
COST_FRAMES = 16
"""Frames on which the cost of a causal map is measured, one by one."""

PIXELWISE = ("saliency", "integrated")
"""Methods whose maps vary from pixel to pixel. A blur helps them, so they are measured with and without."""

MapOf: TypeAlias = Callable[[ObservationBatch, Context], NDArray[np.floating]]
"""Observations of B frames and their context -> pixel maps [B, H, W], 0 or more."""
Figure: TypeAlias = dict[str, Any]


def run(options: Options) -> dict[str, object]:
    """Measure, print the tables, write the JSON file of --json after every run, and return the figures.

    Raises:
        ValueError: a run cannot be loaded, or its environment gives no target masks.
        ModuleNotFoundError: the extra "explain" is not installed.
    """
    settings = {
        "episodes": _report.figure(options.episodes, "episodes"),
        "first_seed": options.seed,
        "steps": _report.figure(options.steps, "steps an episode"),
        "frames": _report.figure(options.frames, "frames"),
        "shares": list(options.shares),
    }
    figures: dict[str, Any] = {
        "benchmark": "maps",
        "machine": _report.machine("robot-attn", "torch", "captum"),
        **settings,
        "runs": {},
    }
    if options.resume and options.json is not None and options.json.is_file():
        before = json.loads(options.json.read_text())
        if {name: before.get(name) for name in settings} == settings:
            figures["runs"] = before["runs"]
    console = Console()

    def save() -> None:
        if options.json is not None:
            _report.write_json(options.json, figures)

    with one_thread(), console.status("measuring") as status:
        for folder in options.runs:
            name = f"{folder.parent.name}/{folder.name}"
            found = figures["runs"].setdefault(name, {"methods": {}})
            measure(folder, options, found, partial(_update, status, name), save)
    for name, found in figures["runs"].items():
        _show(name, found, console)
    return figures


def _update(status: Status, name: str, what: str) -> None:
    status.update(f"{name}: {what}")


def measure(
    folder: Path,
    options: Options,
    found: Figure,
    on_progress: Callable[[str], object],
    save: Callable[[], None],
) -> None:
    """Measure every method on one run that is not yet in `found`, and save after each."""
    policy = _loaded_run.load(folder, "best")
    scene = {**policy.config.env, "max_episode_steps": options.steps}
    probe = policy.probe
    seeds = range(options.seed, options.seed + options.episodes)
    with closing(policy.make_env(policy.config.task, scene, options.episodes)) as env:
        on_progress("the unchanged episodes")
        prior = average_place(probe, env, range(seeds.stop, seeds.stop + PRIOR_EPISODES))
        maps_of = methods(probe, prior)
        if maps_of.keys() == found["methods"].keys():
            return
        steps, full = play(probe, env, seeds)
        random = rollout_episodes(random_actor(env.action_space), env, seeds).returns
        sample = steps.subsample(options.frames)
        found |= {
            "task": policy.config.task,
            "perception": policy.config.perception,
            "return": _report.interval(bootstrap_interval(full), "reward an episode"),
            "random_return": _report.interval(bootstrap_interval(random), "reward an episode"),
            "cost": cost(probe, sample),
        }
        for name, map_of in maps_of.items():
            if name in found["methods"]:
                continue
            on_progress(name)
            returns = ablated_returns(probe, env, seeds, map_of, options.shares)
            above = {key: values - random for key, values in returns.items()}
            found["methods"][name] = {
                **score_frames(probe, sample, map_of),
                **{key: _share_of(values, full - random) for key, values in above.items()},
                "return_above_random": {key: values.tolist() for key, values in above.items()},
            }
            if name != "causal":
                causal = found["methods"]["causal"]["return_above_random"]
                found["methods"][name]["causal_better_by"] = {
                    key: _share_of(
                        (1 if key.startswith("insertion") else -1) * (np.array(causal[key]) - values),
                        full - random,
                    )
                    for key, values in above.items()
                }
            save()


def _share_of(values: NDArray[np.float64], full: NDArray[np.float64]) -> Figure:
    """Interval of the mean of `values` [E], as a share of the mean of `full` [E], paired by episode."""
    rows = np.stack([values, full], axis=1)
    return _report.interval(bootstrap_interval(rows, ratio_of_sums), "share of the return above random")


def methods(probe: PolicyProbe, prior: NDArray[np.float64]) -> dict[str, MapOf]:
    """Make the maps to compare, by name."""
    policy, image = probe.policy, probe.image
    rng = np.random.default_rng(0)
    size = probe.grid.image_size

    def causal(observation: ObservationBatch, context: Context) -> NDArray[np.floating]:
        maps = policy_causal_maps(policy, observation, image, context=context, sampling=FAST)
        return blurred(maps.importance)

    def occlusion(observation: ObservationBatch, context: Context) -> NDArray[np.floating]:
        frames, respond = frames_and_response(policy, observation, image, context=context)
        return blurred(occlusion_map(respond, frames, stride=max(1, round(min(size) / 8))))

    def gradient(method: Any, blur: Callable[[NDArray[np.floating]], NDArray[np.floating]]) -> MapOf:
        def maps(observation: ObservationBatch, context: Context) -> NDArray[np.floating]:
            frames, decide = decision(policy, observation, image, context=context)
            return blur(gradient_maps(decide, frames, method, module=image_module(probe)))

        return maps

    def attention(observation: ObservationBatch, context: Context) -> NDArray[np.floating]:
        percept = attending.act(observation)[1]
        assert percept is not None, "a probe returns a percept"
        weights = percept.attention.numpy(force=True).astype(np.float64)
        return spread(AttentionMaps(weights, attending.grid))

    def somewhere(observation: ObservationBatch, context: Context) -> NDArray[np.floating]:
        count = len(frames_of(observation, image or "image", probe.grid))
        return np.asarray(discs(random_places(count, size, rng), size, 0.1), np.float64)

    def average(observation: ObservationBatch, context: Context) -> NDArray[np.floating]:
        count = len(frames_of(observation, image or "image", probe.grid))
        return np.broadcast_to(prior, (count, *size))

    found: dict[str, MapOf] = {"causal": causal}
    attending = probe_policy(policy, image=image, maps="attention")
    if not attending.uniform:
        found["attention"] = attention
    found |= {"random place": somewhere, "average place": average}
    for method, title in METHODS.items():
        found[title] = gradient(method, blurred)
        if method in PIXELWISE:
            found[f"{title}, not blurred"] = gradient(method, lambda maps: maps)
    return found | {"occlusion": occlusion}


def blurred(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Blur the positive part of pixel maps [B, H, W] by the kernel that is the same for all methods."""
    size = (maps.shape[1], maps.shape[2])
    return spread(AttentionMaps(np.maximum(maps, 0.0)[:, None], AttentionGrid.even(size, size)))


def average_place(probe: PolicyProbe, env: Any, seeds: Sequence[int]) -> NDArray[np.float64]:
    """Average the target's mask over the unchanged episodes of other seeds, float64 [H, W]."""
    prior = PriorMap(probe.grid.image_size)
    rollout_episodes(
        probe.act, env, seeds, on_step=lambda step: prior.add(step.info["target_mask"][step.running])
    )
    return prior.map()


def play(probe: PolicyProbe, env: Any, seeds: Sequence[int]) -> tuple[StepBatch, NDArray[np.float64]]:
    """Run the unchanged episodes, and return their steps and returns."""
    collector = StepCollector(probe.grid)
    returns = rollout_episodes(probe.act, env, seeds, on_step=collector).returns
    return collector.batch(), returns


def cost(probe: PolicyProbe, steps: StepBatch) -> Figure:
    """Measure the processor time of the causal map of one frame at the default error."""
    milliseconds, masks = [], []
    for row in range(min(COST_FRAMES, len(steps))):
        one = steps.take(np.array([row]))
        started = time.process_time()
        maps = policy_causal_maps(probe.policy, one.observation, probe.image, context=one.context)
        milliseconds.append(1e3 * (time.process_time() - started))
        masks.append(float(maps.masks))
    return {
        "causal_map": {**_report.spread(milliseconds, "ms of one core a frame"), "target": "<= 150"},
        "masks": _report.spread(masks, "masks a frame"),
        "error": PRECISE.error,
    }


def score_frames(probe: PolicyProbe, steps: StepBatch, map_of: MapOf) -> Figure:
    """Play the pointing game on frames, and measure deletion and insertion on their actions."""
    image = probe.image or "image"
    maps = map_of(steps.observation, steps.context)
    assert steps.masks is not None, "our tasks give target masks"
    visible = steps.masks.any(axis=(1, 2))
    hits = pointing_game(maps[visible][:, None], steps.masks[visible])[:, 0]

    def act(frames: NDArray[Any]) -> NDArray[Any]:
        changed: Any = with_frames(steps.observation, image, probe.grid, frames)
        return predict(probe.policy, changed, steps.context)[0]

    curves = action_curves(act, frames_of(steps.observation, image, probe.grid), maps)
    return {
        "pointing": _report.interval(mean_over_episodes(hits, steps.episode[visible]), "share of frames"),
        **{
            f"action_{name}": _report.interval(
                mean_over_episodes(rows["attended"].mean(axis=1), steps.episode),
                "mean change in action over the shares; 1: all pixels deleted",
            )
            for name, rows in (("deletion", curves.deleted), ("insertion", curves.inserted))
        },
    }


def ablated_returns(
    probe: PolicyProbe, env: Any, seeds: Sequence[int], map_of: MapOf, shares: Sequence[float]
) -> dict[str, NDArray[np.float64]]:
    """Run the episodes with the selected pixels deleted, and with all others deleted."""
    actor: Any = probe.act
    image, found = probe.image or "image", {}
    for share in shares:
        for name in ("deletion", "insertion"):
            rng = np.random.default_rng(0)

            def act(
                observation: ObservationBatch, name: str = name, share: float = share, rng: Any = rng
            ) -> Any:
                chosen = top_pixels(map_of(observation, actor.context), share, rng)
                frames = frames_of(observation, image, probe.grid)
                left = ablate_pixels(frames, chosen if name == "deletion" else ~chosen)
                return actor(with_frames(observation, image, probe.grid, left))

            found[f"{name}_{share:g}"] = rollout_episodes(ChangedActor(actor, act), env, seeds).returns
    return found


def _show(name: str, found: Mapping[str, Any], console: Console) -> None:
    causal = found["methods"]["causal"]
    keys = list(causal["return_above_random"])
    frames = [key for key, figure in causal.items() if "value" in figure and key not in keys]
    for what, columns in (("frames", frames), ("return", keys)):
        table = _report.figure_table("", *columns, title=f"{name}, {found['perception']}: {what}")
        for method, figures in found["methods"].items():
            table.add_row(method, *(_report.interval_text(figures[column], 2) for column in columns))
        console.print(table)
    table = _report.figure_table("causal better than", *keys, title=f"{name}: paired by episode")
    for method, figures in found["methods"].items():
        if method != "causal":
            better = figures["causal_better_by"]
            table.add_row(method, *(_report.interval_text(better[key], 2, sign="+") for key in keys))
    console.print(table)
    cost = found["cost"]
    console.print(
        f"a causal map takes {cost['causal_map']['median']:.0f} ms of one core, "
        f"{cost['masks']['median']:.0f} masks",
        highlight=False,
    )
