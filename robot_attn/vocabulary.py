"""The few words that an instruction is made of, as numbers: "the red ball" is a row of tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from robot_attn.errors import unknown_name

MAX_TOKENS = 16
"""Words an instruction may have: every row of tokens is as long, shorter texts end in PAD."""
PAD = 0
"""The token of no word."""

WORDS = (
    # A word's token is its place here, from 1, and saved weights know a word by its token: add at the end.
    *("the", "a", "and", "or", "not", "of", "to", "at", "in", "on", "from", "then"),
    *("red", "orange", "yellow", "green", "cyan", "blue", "purple", "magenta", "pink", "brown"),
    *("white", "grey", "black"),
    *("sphere", "box", "cylinder", "capsule", "ellipsoid", "cone", "ring", "object", "target", "goal"),
    *("left", "right", "up", "down", "above", "below", "front", "behind", "near", "far", "middle", "next"),
    *("small", "large", "dark", "bright", "long", "short"),
    *("find", "look", "follow", "go", "reach", "touch", "grasp", "lift", "put", "push", "pull", "turn"),
    *("avoid", "stop", "all", "other", "one", "two", "three", "first", "second", "third", "last"),
)
"""Each word by its one name; others that mean the same are in SYNONYMS."""

SYNONYMS: Mapping[str, str] = MappingProxyType(
    {
        **{"an": "a", "into": "in", "onto": "on", "towards": "to", "toward": "to"},
        **{"gray": "grey", "violet": "purple", "turquoise": "cyan"},
        **{"ball": "sphere", "cube": "box", "block": "box", "cuboid": "box", "tube": "cylinder"},
        **{"pill": "capsule", "egg": "ellipsoid", "torus": "ring", "thing": "object"},
        **{"top": "up", "bottom": "down", "over": "above", "under": "below", "beneath": "below"},
        **{"close": "near", "center": "middle", "centre": "middle"},
        **{"little": "small", "tiny": "small", "big": "large", "light": "bright"},
        **{"see": "look", "track": "follow", "chase": "follow", "grab": "grasp", "pick": "grasp"},
        **{"raise": "lift", "place": "put", "rotate": "turn", "every": "all"},
    }
)
"""Other names of some words, which get the same token."""

_TOKENS = {word: token for token, word in enumerate(WORDS, start=PAD + 1)}


def tokenize(text: str) -> Tensor:
    """An instruction as tokens, int64 [MAX_TOKENS], each from 1 to len(WORDS), then PAD up to the end.

    Capitals and the marks . , ; : ! ? do not count. Raises ValueError for a text that is no str, has no word
    or more than MAX_TOKENS, or for a word that is neither in WORDS nor in SYNONYMS (it gives the nearest).
    """
    if not isinstance(text, str):
        raise ValueError(f"an instruction must be a str; it is a {type(text).__name__}.")
    words = re.sub(r"[.,;:!?]", " ", text.lower()).split()
    if not 1 <= len(words) <= MAX_TOKENS:
        raise ValueError(f"an instruction must have 1 to {MAX_TOKENS} words; {text!r} has {len(words)}.")
    tokens = torch.full((MAX_TOKENS,), PAD)
    for place, word in enumerate(words):
        name = SYNONYMS.get(word, word)
        if name not in _TOKENS:
            raise unknown_name("word", word, {*WORDS, *SYNONYMS})
        tokens[place] = _TOKENS[name]
    return tokens


def detokenize(tokens: Tensor | Sequence[int]) -> str:
    """The text of one row of tokens [L], PADs left out: each word by its name in WORDS.

    Raises ValueError for tokens that are no whole numbers from 0 to len(WORDS).
    """
    row = torch.as_tensor(tokens)
    if row.ndim != 1:
        raise ValueError(f"tokens must be one row, [L]; their shape is {list(row.shape)}.")
    check_tokens(row)
    return " ".join(WORDS[token - PAD - 1] for token in row.long().tolist() if token != PAD)


def bag_of_words(tokens: Tensor) -> Tensor:
    """Which words are in each text: tokens int64 [B, L] -> float32 [B, len(WORDS)], 1 for each that is."""
    seen = torch.zeros(len(tokens), PAD + 1 + len(WORDS), device=tokens.device)
    return seen.scatter_(1, tokens, 1.0)[:, PAD + 1 :]


def check_tokens(tokens: Tensor) -> None:
    """ValueError unless tokens, of any shape and dtype, are whole numbers from 0 to len(WORDS)."""
    good = (tokens >= 0) & (tokens <= len(WORDS)) & (tokens == tokens.round())
    if not bool(good.all()):
        raise ValueError(
            f"tokens must be whole numbers from {PAD} to {len(WORDS)}, as robot_attn.tokenize gives them; "
            f"they hold {tokens[~good].flatten()[0].item():.6g}. Were they normalised?"
        )
