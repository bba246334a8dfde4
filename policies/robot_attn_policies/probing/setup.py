"""A policy, its environment and its episodes, with the runs that explanations are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_attn.explain import HeadInputs, InsensitivePolicyError
from robot_attn.things import thing_kind
from robot_attn_policies.probing.faithfulness import (
    PIXEL_ABLATIONS,
    REDUNDANT_HEADS,
    SHARE,
    HeadAblation,
    PixelAblation,
    run_head_ablation,
    run_pixel_ablation,
)
from robot_attn_policies.probing.interventions import InterventionEffect, measure_interventions
from robot_attn_policies.probing.mediation import FORCED, Mediation, run_forced_episodes, run_mediation
from robot_attn_policies.probing.probe import PolicyProbe
from robot_attn_policies.probing.steps import StepBatch, StepCollector
from robot_attn_policies.rollouts.protocols import HasInterventions, Thing, ability
from robot_attn_policies.rollouts.rollout import StartProgress, Step, random_actor, rollout_episodes
from robot_attn_policies.rollouts.thing_words import ThingWords
from robot_attn_policies.rollouts.things import thing_names
from robot_attn_policies.sb3.extractor import find_extractor
from robot_attn_policies.sb3.images import image_entries


@dataclass(frozen=True)
class Setup:
    """A policy, its environments and the seeds of its episodes.

    Attributes:
        probe: the policy.
        env: a batch of environments.
        seeds: one episode per seed.
        horizon: longest possible episode, in steps.
        start_progress: called before each set of rollouts, or None.
        words: what the labels in the infos stand for, in the unchanged episodes.
        weights: float64 [heads], weight of each head; None for equal weights.
        sinks: bool [heads, rows, cols], cells whose mass is left out of maps; None for none.
        prefix: start of the names of rollouts.
    """

    probe: PolicyProbe
    env: Any
    seeds: Sequence[int]
    horizon: int
    start_progress: StartProgress | None
    words: ThingWords
    weights: NDArray[np.float64] | None = None
    sinks: NDArray[np.bool_] | None = None
    prefix: str = ""

    def on_step(self, name: str) -> Callable[[Step], None] | None:
        """Start the progress of the rollouts `name`, and return their `on_step`."""
        if self.start_progress is None:
            return None
        return self.start_progress(f"{self.prefix}{name}", len(self.seeds) * self.horizon)

    @property
    def image(self) -> str:
        return self.probe.image or "image"

    def play_random(self) -> NDArray[np.float64]:
        """Run random actions, and return their returns, float64 [E]."""
        act = random_actor(self.env.action_space)
        return rollout_episodes(act, self.env, self.seeds, on_step=self.on_step("random actions")).returns

    def play_unchanged(self, collector: StepCollector, first: int = 0) -> NDArray[np.float64]:
        """Run the unchanged episodes, and return their returns, float64 [E].

        Args:
            collector: gets the steps.
            first: index of the first of these episodes in the collector's.
        """
        progress = self.on_step("the unchanged episodes")

        def collect(step: Step) -> None:
            step = step._replace(episode=step.episode + first)
            collector(step)
            self.words(step)
            if progress is not None:
                progress(step)

        return rollout_episodes(self.probe.act, self.env, self.seeds, on_step=collect).returns

    def ablate_pixels(
        self,
        names: Sequence[str],
        full: NDArray[np.float64],
        random: NDArray[np.float64],
        share: float = SHARE,
        seed: int = 0,
    ) -> PixelAblation:
        """Ablate a share of the pixels.

        Args:
            names: which of `PIXEL_ABLATIONS` to run; "borrowed" is left out with a single environment.
            full: float64 [E], returns of the unchanged episodes.
            random: float64 [E], returns of random actions.
            share: fraction of the pixels.
            seed: random seed of discs and ties.
        """
        curve = "" if share == SHARE else f"{share:.0%} of the pixels, "
        return run_pixel_ablation(
            self.probe.act,
            self.env,
            self.seeds,
            self.probe.grid,
            random,
            full=full,
            names=[name for name in names if name != "borrowed" or self.env.num_envs > 1],
            share=share,
            weights=self.weights,
            sinks=self.sinks,
            image=self.image,
            seed=seed,
            on_rollout=lambda name: self.on_step(f"{curve}{name}" if curve else PIXEL_ABLATIONS[name]),
        )

    def mediate(
        self,
        steps: StepBatch,
        full: NDArray[np.float64] | None = None,
        random: NDArray[np.float64] | None = None,
        seed: int = 0,
    ) -> Mediation | None:
        """Force the attention in steps, and in these episodes; None for maps that are not attention.

        Args:
            steps: steps of unchanged episodes, of these and maybe of others.
            full: float64 [E], returns of the unchanged episodes; None to compare only actions.
            random: float64 [E], returns of random actions; None likewise.
            seed: random seed of the frames that are compared.
        """
        if self.probe.kind != "attention":
            return None
        names = thing_names(self.env)
        distractors = [label for label, name in enumerate(names) if thing_kind(name) == "distractors"]
        mediation = run_mediation(self.probe, steps, distractors=distractors, seed=seed)
        if full is None or random is None:
            return mediation
        returns = run_forced_episodes(
            self.probe,
            self.env,
            self.seeds,
            steps,
            seed=seed,
            on_rollout=lambda name: self.on_step(FORCED[name]),
        )
        return replace(mediation, full=full, random=random, returns=returns)

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
            sinks=self.sinks,
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
