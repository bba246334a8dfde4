"""NAME=VALUE options: of an environment, a family or a preset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robot_attn_policies.training.presets import Json


def parse_pairs(pairs: Sequence[str]) -> dict[str, Json]:
    """["num_heads=4", "kind=soft"] -> {"num_heads": 4, "kind": "soft"}: values are JSON, or else text.

    Raises:
        ValueError: no `=`, or no name before it.
    """
    parsed: dict[str, Json] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise ValueError(f"expected NAME=VALUE, got {pair!r}")
        try:
            parsed[name] = json.loads(value)
        except ValueError:
            parsed[name] = value
    return parsed
