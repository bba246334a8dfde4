"""Parsing of NAME=VALUE options: those of an environment, a perception family or a preset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robot_attn_policies.training.presets import Json


def parse_pairs(pairs: Sequence[str]) -> dict[str, Json]:
    """Parse ["num_heads=4", "kind=soft"] into {"num_heads": 4, "kind": "soft"}.

    Args:
        pairs: NAME=VALUE each. A value that is not JSON is taken as text.

    Returns:
        The value of each name, in the order given.

    Raises:
        ValueError: a pair has no `=` or no name before it, or a name is repeated.
    """
    parsed: dict[str, Json] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise ValueError(f"expected NAME=VALUE, got {pair!r}")
        if name in parsed:
            repeated = [one for one in pairs if one.startswith(f"{name}=")]
            raise ValueError(f"expected {name} once, got it {len(repeated)} times: {', '.join(repeated)}")
        try:
            parsed[name] = json.loads(value)
        except ValueError:
            parsed[name] = value
    return parsed
