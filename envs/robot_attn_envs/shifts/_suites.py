"""Standard suites of shifts, for comparable results.

| suite       | distractors | colors | lookalikes | background | lighting | camera | noise | occlusion |
|-------------|-------------|--------|------------|------------|----------|--------|-------|-----------|
| `easy-v0`   |             | 0.3    |            |            | 0.3      |        | 0.25  |           |
| `medium-v0` | 0.17        | 0.5    | 0.25       | 0.4        | 0.5      | 0.4    | 0.4   |           |
| `hard-v0`   | 0.2         | 0.7    | 0.5        | 0.6        | 0.7      | 0.6    | 0.6   | 0.6       |

A suite never changes: a change makes a new version.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_NAMES = ("distractors", "colors", "lookalikes", "background", "lighting", "camera", "noise", "occlusion")


def _suite(*intensities: float) -> Mapping[str, float]:
    return MappingProxyType({name: x for name, x in zip(_NAMES, intensities, strict=True) if x > 0.0})


SUITES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "easy-v0": _suite(0.0, 0.3, 0.0, 0.0, 0.3, 0.0, 0.25, 0.0),
        "medium-v0": _suite(0.17, 0.5, 0.25, 0.4, 0.5, 0.4, 0.4, 0.0),
        "hard-v0": _suite(0.2, 0.7, 0.5, 0.6, 0.7, 0.6, 0.6, 0.6),
    }
)
"""The intensity of each shift in each suite."""
