"""Language instructions such as "the blue box": named colours and shapes, held-out pairs, tokens."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

InstructionOption: TypeAlias = bool | Literal["held_out"]
"""A task's option `instruction`: False, True, or "held_out" for the pairs that training never shows."""

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
"""The (colour, shape) pairs that `instruction=True` never shows. "held_out" names these and no others."""

MAX_TOKENS = 16
"""Length of the observation's `tokens` entry; shorter instructions are padded with 0."""

# Token ids of robot_attn's vocabulary. This package does not import robot_attn; a test keeps the two equal.
TOKENS: Mapping[str, int] = MappingProxyType(
    {
        "the": 1,
        **{"red": 13, "yellow": 15, "green": 16, "cyan": 17, "blue": 18, "purple": 19},
        **{"sphere": 26, "box": 27, "cylinder": 28, "capsule": 29},
    }
)


def check_instruction(instruction: InstructionOption) -> InstructionOption:
    """Check the option `instruction` and return it.

    Raises:
        ValueError: it is not True, False or "held_out".
    """
    if isinstance(instruction, bool) or instruction == "held_out":
        return instruction
    raise ValueError(f'expected instruction to be True, False or "held_out", got {instruction!r}')


def may_be_distractor(color: str, shape: str, instruction: InstructionOption) -> bool:
    """Whether a distractor may have this colour and shape: held-out pairs never appear in training."""
    return instruction == "held_out" or (color, shape) not in HELD_OUT


def may_be_target(color: str, shape: str, instruction: InstructionOption) -> bool:
    """Whether an instruction may name this colour and shape as the target."""
    return ((color, shape) in HELD_OUT) == (instruction == "held_out")


def tokens(text: str) -> NDArray[np.int64]:
    """Tokenize an instruction, with the ids that `robot_attn.tokenize` gives.

    Args:
        text: words of `TOKENS`, separated by spaces.

    Returns:
        Token ids, int64 [MAX_TOKENS], padded with 0.
    """
    row = np.zeros(MAX_TOKENS, np.int64)
    words = text.split()
    row[: len(words)] = [TOKENS[word] for word in words]
    return row
