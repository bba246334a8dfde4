"""What a task can be told: "the blue box", the pairs of colour and shape that are named, and their tokens."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Instruct: TypeAlias = bool | Literal["held_out"]

COLORS: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "red": (0.85, 0.12, 0.10),
        "yellow": (0.90, 0.80, 0.12),
        "green": (0.15, 0.65, 0.20),
        "cyan": (0.15, 0.75, 0.80),
        "blue": (0.15, 0.25, 0.85),
        "purple": (0.60, 0.18, 0.75),
    }
)
"""The colours that have a name, RGB in [0, 1]."""

SHAPES = ("sphere", "box", "cylinder", "capsule")
"""The shapes that have a name, as MuJoCo calls them."""

HELD_OUT = frozenset(
    {
        ("red", "capsule"),
        ("yellow", "sphere"),
        ("green", "box"),
        ("cyan", "cylinder"),
        ("blue", "capsule"),
        ("purple", "sphere"),
    }
)
"""The pairs that `instruction=True` neither asks for nor shows; `instruction="held_out"` asks for them."""

MAX_TOKENS = 16
"""Length of the `tokens` entry; what a text leaves over is 0."""

# The tokens of robot_attn's vocabulary, which this package does not import: tests keep the two equal.
TOKENS: Mapping[str, int] = MappingProxyType(
    {
        "the": 1,
        **{"red": 13, "yellow": 15, "green": 16, "cyan": 17, "blue": 18, "purple": 19},
        **{"sphere": 26, "box": 27, "cylinder": 28, "capsule": 29},
    }
)


def check_instruct(instruction: Instruct) -> Instruct:
    """The option `instruction`, or a ValueError that says what it may be."""
    if isinstance(instruction, bool) or instruction == "held_out":
        return instruction
    raise ValueError(f'instruction is True, False or "held_out", got {instruction!r}')


def may_show(color: str, shape: str, instruction: Instruct) -> bool:
    """Whether a distractor of an instructed task may be this: in training none is of a held-out pair."""
    return instruction == "held_out" or (color, shape) not in HELD_OUT


def may_ask(color: str, shape: str, instruction: Instruct) -> bool:
    """Whether the target of an instructed task may be this."""
    return ((color, shape) in HELD_OUT) == (instruction == "held_out")


def tokens(text: str) -> NDArray[np.int64]:
    """The tokens of an instruction, int64 [MAX_TOKENS], as `robot_attn.tokenize` gives them."""
    row = np.zeros(MAX_TOKENS, np.int64)
    words = text.split()
    row[: len(words)] = [TOKENS[word] for word in words]
    return row
