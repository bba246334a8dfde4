"""The statistics of a LeRobotDataset, by which policies normalise: of each episode, and of all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Stats: TypeAlias = dict[str, NDArray[Any]]
"""min, max, mean, std, count, and the quantiles q01 to q99."""
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def vector_stats(array: NDArray[Any]) -> Stats:
    """Compute the statistics of each component.

    Args:
        array: [T, D], numbers or booleans.

    Returns:
        Arrays float64 [D]; `count` is int64 [1], the number of steps.
    """
    values = array.astype(np.float64)
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([len(values)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def image_stats(frames: NDArray[np.uint8]) -> Stats:
    """Compute the statistics of each channel over all pixels.

    Args:
        frames: [T, H, W, C] in [0, 255].

    Returns:
        Arrays float64 [C, 1, 1] in [0, 1]; `count` is int64 [1], the number of frames.
    """
    levels = np.arange(256) / 255
    channels = []
    for channel in np.moveaxis(frames, -1, 0):
        share = np.bincount(channel.reshape(-1), minlength=256) / channel.size
        present = np.flatnonzero(share)
        mean = share @ levels
        below = np.cumsum(share)
        at = np.searchsorted(below, np.array(list(QUANTILES.values())) * (1 - 1e-12))
        channels.append(
            [
                levels[present[0]],
                levels[present[-1]],
                mean,
                np.sqrt(share @ (levels - mean) ** 2),
                *levels[at],
            ]
        )
    names = ("min", "max", "mean", "std", *QUANTILES)
    table = np.array(channels)[..., None, None]
    return {name: table[:, i] for i, name in enumerate(names)} | {"count": np.array([len(frames)])}


def aggregate(episodes: Sequence[Mapping[str, Stats]]) -> dict[str, dict[str, Any]]:
    """Combine the statistics of episodes to those of a dataset, plain JSON.

    As in LeRobot, a quantile of the dataset is the mean of those of the episodes, weighted by their counts.

    Args:
        episodes: statistics of each episode, by feature.
    """
    combined: dict[str, dict[str, Any]] = {}
    for name in episodes[0]:
        each = {kind: np.stack([stats[name][kind] for stats in episodes]) for kind in episodes[0][name]}
        count = each.pop("count").sum(axis=1)
        weights = (count / count.sum()).reshape(-1, *(1,) * (each["mean"].ndim - 1))
        mean = (weights * each["mean"]).sum(axis=0)
        variance = (weights * (each["std"] ** 2 + (each["mean"] - mean) ** 2)).sum(axis=0)
        values = {
            "min": each["min"].min(axis=0),
            "max": each["max"].max(axis=0),
            "mean": mean,
            "std": np.sqrt(variance),
            "count": np.array([count.sum()]),
            **{kind: (weights * each[kind]).sum(axis=0) for kind in QUANTILES},
        }
        combined[name] = {kind: value.tolist() for kind, value in values.items()}
    return combined
