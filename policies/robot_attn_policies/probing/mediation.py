"""Mediation: force a policy's attention inside its forward pass, and measure whether the action follows.

Frames of two different episodes are compared. The policy acts on the one, and on the other, and

- on the other with its attention held at that of the one: what is left of the change in action did not pass
  through the map (the natural direct effect of Vig et al. 2020, https://arxiv.org/abs/2004.12265, section 3);
- on the one with its attention forced to that of the other: what follows passed through the map alone (the
  natural indirect effect);
- on the one with uniform attention, with attention moved elsewhere, and with attention on a distractor.

Each is measured for all heads at once and for each head alone, and for the return of whole episodes. A map
that is only shown changes neither the action nor the return. Shi et al. 2026,
https://arxiv.org/abs/2605.30117, cut attention of vision-language-action models, and call it knockout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from robot_attn import Forcing, Perception
from robot_attn.explain import InsensitivePolicyError
from robot_attn.forcing import Point
from robot_attn_policies.evaluation.evaluate import normalised_score
from robot_attn_policies.evaluation.statistics import Interval, ratio_of_sums
from robot_attn_policies.probing.episode_intervals import interval_over_episodes
from robot_attn_policies.probing.faithfulness import OnRollout
from robot_attn_policies.probing.probe import PolicyProbe, frames_of, with_frames
from robot_attn_policies.probing.steps import StepBatch, take_rows
from robot_attn_policies.rollouts.actor import ObservationBatch, peek
from robot_attn_policies.rollouts.rollout import rollout_episodes
from robot_attn_policies.sb3.context import Context
from robot_attn_policies.sb3.extractor import find_extractor

FRAMES = 512
"""Most frames whose attention is forced, evenly spaced over the episodes."""
BATCH = 64
"""Frames in one forward pass."""

FORCED: dict[str, str] = {
    "held": "another frame, with the attention of this one",
    "borrowed": "this frame, with the attention of another one",
    "uniform": "this frame, with uniform attention",
    "moved": "this frame, with its attention moved by half the frame",
    "distracted": "this frame, with the attention on the distractors",
}
"""What a frame or its attention is replaced by, with a description of each."""
RETURNS = ("borrowed", "uniform")
"""What attention is forced to in whole episodes."""


@dataclass(frozen=True)
class Effect:
    """Change in action by forced attention, as sums over the frames of each of E episodes.

    Attributes:
        frames: float64 [E], number of frames.
        size: float64 [E], sum of the lengths of the changes.
        along: float64 [E], sum of the scalar products with the changes by the other frame.
    """

    frames: NDArray[np.float64]
    size: NDArray[np.float64]
    along: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        change: NDArray[np.float64],
        total: NDArray[np.float64],
        index: NDArray[np.int64],
        episodes: int,
        counts: NDArray[np.bool_] | None = None,
    ) -> Effect:
        """Sum over the frames of each episode.

        Args:
            change: float64 [N, A], changes in action.
            total: float64 [N, A], changes in action by the other frame.
            index: int64 [N], episode of each frame.
            episodes: E.
            counts: bool [N], the frames that count; None for all.
        """
        rows = np.ones(len(change)) if counts is None else counts.astype(np.float64)
        terms = (rows, np.linalg.norm(change, axis=1) * rows, (change * total).sum(axis=1) * rows)
        return cls(*(np.bincount(index, term, episodes).astype(np.float64) for term in terms))


@dataclass(frozen=True)
class Mediation:
    """Effects of forced attention in E episodes.

    Attributes:
        point: where the attention was forced, as `robot_attn.Forcing` says.
        total: the effect of another frame, without forced attention.
        effects: the effect of each of `FORCED`, all heads at once; "distracted" where a distractor is known.
        heads: for each head alone, the effects of "held", "borrowed" and "uniform".
        shown: the effect of another frame on the maps, and with the attention held. Equal, for all that is
            forced is shown, unless a map is computed from the weights for display.
        full: float64 [E], returns of the unchanged episodes; empty if only actions were compared.
        random: float64 [E], returns of random actions; likewise.
        returns: float64 [E], returns with each of `RETURNS`; empty likewise.
    """

    point: Point
    total: Effect
    effects: dict[str, Effect]
    heads: tuple[dict[str, Effect], ...]
    shown: tuple[Effect, Effect]
    full: NDArray[np.float64]
    random: NDArray[np.float64]
    returns: dict[str, NDArray[np.float64]]

    def follows(self, name: str, head: int | None = None) -> Interval:
        """Share of the change in action by another frame that is made by one of `FORCED`, in its direction.

        Args:
            name: a key of `FORCED`.
            head: a head, of which alone the attention is forced; None for all.
        """
        effect = self._effect(name, head)
        return interval_over_episodes(np.stack([effect.along, self.total.along], axis=1), ratio_of_sums)

    def mediated(self, head: int | None = None) -> Interval:
        """Share of the change in action by another frame that is lost if the attention is held.

        Args:
            head: a head, of which alone the attention is held; None for all.
        """
        return interval_over_episodes(self.action_rows(head), ratio_of_sums)

    def action_rows(self, head: int | None = None) -> NDArray[np.float64]:
        """What `mediated` is the ratio of: numerators and denominators, float64 [E, 2]."""
        return _lost(self._effect("held", head), self.total)

    @property
    def map_rows(self) -> NDArray[np.float64]:
        """The change in the shown map by another frame that is lost if the attention is held, and all of it.

        float64 [E, 2]; zeros for a map that is the same for all frames.
        """
        total, held = self.shown
        return _lost(held, total)

    def relative_size(self, name: str, head: int | None = None) -> Interval:
        """Mean change in action by forced attention, divided by that of another frame."""
        effect = self._effect(name, head)
        rows = np.stack([effect.size, effect.frames, self.total.size, self.total.frames], axis=1)
        return interval_over_episodes(rows, _ratio_of_means)

    def remaining_return(self, name: str) -> Interval:
        """Return with the attention forced, on a scale from 0 (random actions) to 1 (unchanged).

        Args:
            name: one of `RETURNS`.

        Raises:
            ValueError: the unchanged return does not exceed that of random actions.
        """
        return normalised_score(self.returns[name], self.random, self.full)

    def joined(self, later: Mediation) -> Mediation:
        """Append the returns of later episodes; the effects are those of `later`, which has all steps."""
        return replace(
            later,
            full=np.concatenate([self.full, later.full]),
            random=np.concatenate([self.random, later.random]),
            returns={
                name: np.concatenate([returns, later.returns[name]]) for name, returns in self.returns.items()
            },
        )

    def _effect(self, name: str, head: int | None) -> Effect:
        return self.effects[name] if head is None else self.heads[head][name]


def _lost(held: Effect, total: Effect) -> NDArray[np.float64]:
    return np.stack([total.along - held.along, total.along], axis=1)


def _ratio_of_means(rows: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Ratio of two means, of rows [..., 4] with the sum and the number of each, summed over `axis`."""
    ours, theirs = ratio_of_sums(rows[..., :2], axis), ratio_of_sums(rows[..., 2:], axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(theirs > 0, ours / theirs, np.nan)


def run_mediation(
    probe: PolicyProbe,
    steps: StepBatch,
    *,
    distractors: Sequence[int] = (),
    frames: int = FRAMES,
    seed: int = 0,
) -> Mediation:
    """Force the attention of a policy in frames of its episodes, and measure the change in action.

    A recurrent policy acts with the memory that it has at that step, and remembers none of this.

    Args:
        probe: the policy; its maps are attention.
        steps: steps of its episodes.
        distractors: labels in `steps.things` of the distractors.
        frames: most frames to use.
        seed: random seed of the pairs of frames.

    Returns:
        The effects on actions, without returns.

    Raises:
        InsensitivePolicyError: the actions are the same for the frames of other episodes.
        ValueError: a policy whose maps are not attention, whose cameras share a module, or fewer than two
            frames; an error of `Perception.attention_forced`.
    """
    run = _Forced(probe)
    sample = steps.subsample(frames)
    if len(sample) < 2:
        raise ValueError(f"expected at least two frames to compare, got {len(sample)}: run a longer episode")
    rng = np.random.default_rng(seed)
    partner = _partners(sample.episode, rng)
    observation, context = sample.observation, sample.context
    image = probe.image or "image"
    others = frames_of(take_rows(observation, partner), image, probe.grid)
    changed = with_frames(observation, image, probe.grid, others)

    actions, maps, own = run.record(observation, context)
    other_actions, other_maps, theirs = run.record(changed, context)
    total = other_actions - actions
    if not total.any():
        raise InsensitivePolicyError("the actions are the same for the frames of other episodes")
    held_actions, held_maps = run.forced(changed, context, own)
    height, width = own.shape[2:]
    forced: dict[str, Tensor] = {
        "borrowed": theirs,
        "uniform": torch.full_like(own, 1 / (height * width)),
        "moved": own.roll((height // 2, width // 2), (2, 3)),
    }
    _, index = np.unique(sample.episode, return_inverse=True)
    episodes = int(index.max()) + 1

    def effect(others: NDArray[np.float64], counts: NDArray[np.bool_] | None = None) -> Effect:
        return Effect.of(others - actions, total, index, episodes, counts)

    effects = {"held": effect(held_actions)}
    for name, weights in forced.items():
        effects[name] = effect(run.forced(observation, context, weights)[0])
    if sample.things is not None and len(distractors):
        weights, counts = _on_labels(sample.things, distractors, own, probe)
        if counts.any():
            effects["distracted"] = effect(run.forced(observation, context, weights)[0], counts)

    heads = []
    for head in range(own.shape[1] if own.shape[1] > 1 else 0):
        alone = {name: own.clone() for name in ("borrowed", "uniform")}
        for name, weights in alone.items():
            weights[:, head] = forced[name][:, head]
        kept = theirs.clone()
        kept[:, head] = own[:, head]
        heads.append(
            {"held": effect(run.forced(changed, context, kept)[0])}
            | {name: effect(run.forced(observation, context, weights)[0]) for name, weights in alone.items()}
        )
    moved_maps = other_maps - maps
    shown = tuple(Effect.of(each - maps, moved_maps, index, episodes) for each in (other_maps, held_maps))
    none = np.empty(0)
    return Mediation(
        run.point,
        Effect.of(total, total, index, episodes),
        effects,
        tuple(heads),
        (shown[0], shown[1]),
        none,
        none,
        {},
    )


def run_forced_episodes(
    probe: PolicyProbe,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    steps: StepBatch,
    *,
    seed: int = 0,
    on_rollout: OnRollout | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Run episodes with the attention forced in every frame.

    Args:
        probe: the policy; its maps are attention.
        env: its environments.
        seeds: one episode per seed.
        steps: steps of its episodes, of which a random one lends its attention for "borrowed".
        seed: random seed of the steps that lend their attention.
        on_rollout: called with each of `RETURNS`.

    Returns:
        float64 [E], the returns with each of `RETURNS`.

    Raises:
        ValueError: an error of `run_mediation` or `rollout_episodes`.
    """
    run = _Forced(probe)
    on_rollout = on_rollout or (lambda name: None)
    sample = steps.subsample(FRAMES)
    _, _, bank = run.record(sample.observation, sample.context)
    rng = np.random.default_rng(seed)

    def borrow(weights: Tensor) -> Tensor:
        return bank[rng.integers(len(bank), size=len(weights))].to(weights)

    def flatten(weights: Tensor) -> Tensor:
        return torch.full_like(weights, 1 / weights[0, 0].numel())

    returns = {}
    for name, change in (("borrowed", borrow), ("uniform", flatten)):
        with run.perception.attention_forced(change):
            returns[name] = rollout_episodes(probe.act, env, seeds, on_step=on_rollout(name)).returns
    return returns


class _Forced:
    """A policy that acts on recorded observations, with its attention recorded or forced."""

    def __init__(self, probe: PolicyProbe) -> None:
        if probe.kind != "attention":
            raise ValueError(
                f"expected a policy with attention, got maps of the kind {probe.kind!r}: they are computed "
                "beside the policy, and there is nothing in it to force"
            )
        extractor = find_extractor(probe.policy)
        modules = [extractor.perception_of(key) for key in extractor.image_keys]
        if len({id(module) for module in modules}) < len(modules):
            raise ValueError(
                "expected a perception module for each camera, got one that cameras share: it would be "
                "forced at all of them"
            )
        self.probe = probe
        self.point: Point = "none"
        self.perception: Perception = extractor.perception_of(probe.image)

    def record(
        self, observation: ObservationBatch, context: Context
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Tensor]:
        """Return actions [N, A], shown maps [N, cells], and the weights in use [N, heads, rows, cols]."""
        weights: list[Tensor] = []

        def keep(computed: Tensor) -> Tensor:
            latest.append(computed.detach().clone())
            return computed

        actions, maps = [], []
        for rows in _batches(observation):
            latest: list[Tensor] = []
            with self.perception.attention_forced(keep) as forcing:
                action, shown = self._act(observation, context, rows)
            self._check(forcing)
            actions.append(action)
            maps.append(shown)
            weights.append(latest[-1])
        return np.concatenate(actions), np.concatenate(maps), torch.cat(weights)

    def forced(
        self, observation: ObservationBatch, context: Context, weights: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return actions [N, A] and shown maps [N, cells] with the weights [N, heads, rows, cols] in use."""
        actions, maps = [], []
        for rows in _batches(observation):
            used = weights[rows]
            with self.perception.attention_forced(lambda _, used=used: used):  # type: ignore[misc]
                action, shown = self._act(observation, context, rows)
            actions.append(action)
            maps.append(shown)
        return np.concatenate(actions), np.concatenate(maps)

    def _act(
        self, observation: ObservationBatch, context: Context, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        actions, percept = peek(self.probe.act, take_rows(observation, rows), context.take(rows))
        assert percept is not None  # the maps are attention
        shown = percept.attention.flatten(1).double().numpy(force=True)
        return _as_vectors(actions, self.probe.policy.action_space), shown

    def _check(self, forcing: Forcing) -> None:
        if forcing.point is None:
            raise ValueError(
                f"expected {type(self.perception).__name__} to run when the policy acts, got no call of it: "
                "use a policy that is not compiled"
            )
        self.point = forcing.point


def _batches(observation: ObservationBatch) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of about `BATCH` observations at a time."""
    entries = list(observation.values()) if isinstance(observation, Mapping) else [observation]
    for start in range(0, len(entries[0]), BATCH):
        yield np.arange(start, min(start + BATCH, len(entries[0])))


def _partners(episode: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose a frame of another episode for each frame, or of the same one if there is no other."""
    every = np.arange(len(episode))
    single = len(np.unique(episode)) == 1
    return np.array(
        [rng.choice(every[(every != row) if single else (episode != episode[row])]) for row in every]
    )


def _on_labels(
    things: NDArray[np.uint8], labels: Sequence[int], like: Tensor, probe: PolicyProbe
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Make maps on what has these labels in frames [N, H, W], and find the frames that show it, bool [N]."""
    down, across = probe.grid.box_shares
    mass = down @ np.isin(things, labels).astype(np.float64) @ across.T
    total = mass.sum(axis=(1, 2), keepdims=True)
    maps = np.where(total > 0, mass / np.where(total > 0, total, 1), 1 / mass[0].size)
    return torch.from_numpy(maps).to(like)[:, None].expand_as(like).contiguous(), total[:, 0, 0] > 0


def _as_vectors(actions: NDArray[Any], space: spaces.Space[Any]) -> NDArray[np.float64]:
    """Return actions as vectors [N, A] that can be subtracted: one-hot if they are discrete."""
    flat = np.asarray(actions).reshape(len(actions), -1)
    if isinstance(space, spaces.Discrete):
        return np.asarray(np.eye(int(space.n))[flat[:, 0] - int(space.start)])
    if isinstance(space, spaces.MultiDiscrete):
        sizes = space.nvec.reshape(-1)
        return np.concatenate(
            [np.eye(int(size))[column] for size, column in zip(sizes, flat.T, strict=True)], axis=1
        )
    return flat.astype(np.float64)
