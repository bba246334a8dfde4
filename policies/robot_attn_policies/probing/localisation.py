"""Measure whether attention is on the target, against references that also know where it usually is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from robot_attn.explain import attention_delay, best_lag, peak_places, spread, target_places
from robot_attn.focus import FocusMeter, FocusTotals, PriorMap, center_bias_map
from robot_attn_policies.evaluation.statistics import Interval, bootstrap_interval
from robot_attn_policies.probing.faithfulness import clean_maps
from robot_attn_policies.probing.steps import StepBatch

CHUNK = 64
"""Frames whose maps are enlarged to pixels at a time."""


@dataclass(frozen=True)
class Localisation:
    """Focus in E episodes, over the frames in which the target is visible.

    The *average place* is the mean mask of the target in the other episodes. A frame is *off place* if most
    of the target is outside the smallest region that holds half of the average place's mass. There, a map
    that has only learned where targets usually are misses the target.

    Attributes:
        heads: focus of each head, of the combined map (index -2, for its maximum), and of the average place
            (-1), in all frames. Mass in sinks is left out.
        centre: focus of the centre-bias map.
        off_place: focus of the combined map (0) and of the average place (1), in frames off place.
        weights: float64 [heads], weight of each head in the combined map.
        delays: float64 [E, lags, 4], `Delay.sums` of the combined map.
        stride: steps from one frame to the next.
        sinks: phrases that name the sinks that were taken out.
    """

    heads: FocusTotals
    centre: FocusTotals
    off_place: FocusTotals
    weights: NDArray[np.float64]
    delays: NDArray[np.float64]
    stride: int
    sinks: tuple[str, ...] = ()

    @property
    def num_heads(self) -> int:
        """Number of heads."""
        return len(self.weights)

    @property
    def mass(self) -> NDArray[np.float64]:
        """float64 [E], sum of the combined map's mass on the target."""
        return np.asarray(self.heads.mass[:, : self.num_heads] @ self.weights)

    @property
    def references(self) -> dict[str, NDArray[np.float64]]:
        """float64 [E] for each reference map, sum of its mass on the target."""
        return {
            "chance": self.heads.chance,
            "a centre-bias map": self.centre.mass[:, 0],
            "the target's average place": self.heads.mass[:, -1],
        }

    @property
    def hardest(self) -> str:
        """The reference with the most mass on the target."""
        return max(self.references, key=lambda name: float(self.references[name].sum()))

    @property
    def delay(self) -> Interval:
        """Steps by which the map's maximum follows the target; NaN where unknown."""
        if not np.isfinite(best_lag(self.delays.sum(axis=0))):
            return Interval(*[float("nan")] * 3)
        steps = bootstrap_interval(self.delays, lambda sums, axis: best_lag(sums.sum(axis=axis)))
        return Interval(*(self.stride * end for end in steps))


def measure_localisation(
    steps: StepBatch,
    episodes: int,
    *,
    sinks: NDArray[np.bool_] | None = None,
    names: tuple[str, ...] = (),
) -> Localisation | None:
    """Measure focus in recorded steps.

    Args:
        steps: the steps of unchanged episodes.
        episodes: E, number of episodes.
        sinks: bool [heads, rows, cols], cells whose mass is left out, as `find_sinks` returns them.
        names: phrases that name them.

    Returns:
        The focus; None where the environment gives no target masks.
    """
    if steps.masks is None:
        return None
    maps, weights = steps.maps, steps.weights
    if sinks is not None and sinks.any():
        maps, weights = clean_maps(maps, weights, sinks)
    size = maps.grid.image_size
    heads = FocusMeter(episodes, len(weights) + 2)
    centre, off_place = FocusMeter(episodes, 1), FocusMeter(episodes, 2)
    center_bias = center_bias_map(size)
    bounds = np.searchsorted(steps.episode, np.arange(episodes + 1))
    everywhere = PriorMap(size)
    everywhere.add(steps.masks)
    for first, end in pairwise(bounds):
        prior = everywhere.without(steps.masks[first:end])
        usual = _usual_region(prior)
        for start in range(first, end, CHUNK):
            rows = slice(start, min(start + CHUNK, end))
            episode, masks = steps.episode[rows], steps.masks[rows]
            combined = spread(maps[rows], weights)
            priors = np.broadcast_to(prior, combined.shape)
            pair = np.stack([combined, priors], axis=1)
            heads.add(episode, np.concatenate([maps[rows].upsampled(), pair], axis=1), masks)
            centre.add(episode, np.broadcast_to(center_bias, combined.shape)[:, None], masks)
            visible = masks.sum(axis=(1, 2))
            off = (masks & ~usual).sum(axis=(1, 2)) > visible / 2
            off_place.add(episode[off], pair[off], masks[off])
    peaks = peak_places(maps.mean_over_heads(weights))
    between = np.diff(steps.step)
    return Localisation(
        heads.totals(),
        centre.totals(),
        off_place.totals(),
        weights,
        attention_delay(peaks, target_places(steps.masks), steps.episode).sums,
        int(between[between > 0].min()) if (between > 0).any() else 1,
        names,
    )


def _usual_region(prior: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Select the fewest pixels [H, W] that hold half of the mass of a map."""
    values = np.sort(prior, axis=None)[::-1]
    cumulated = values.cumsum()
    return np.asarray(prior >= values[np.searchsorted(cumulated, cumulated[-1] / 2)])
