"""Vocabulary and tokenizer of the language instructions: "the red ball" -> a row of token ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from robot_attn.errors import unknown_name

MAX_TOKENS = 16
"""Length of a token row, and largest number of words of an instruction; shorter ones are padded with PAD."""
PAD = 0
"""Token id of padding."""

WORDS = (
    # The id of a word is its position here, from 1. Saved weights depend on it: append new words at the end.
    *("the", "a", "and", "or", "not", "of", "to", "at", "in", "on", "from", "then"),
    *("red", "orange", "yellow", "green", "cyan", "blue", "purple", "magenta", "pink", "brown"),
    *("white", "grey", "black"),
    *("sphere", "box", "cylinder", "capsule", "ellipsoid", "cone", "ring", "object", "target", "goal"),
    *("left", "right", "up", "down", "above", "below", "front", "behind", "near", "far", "middle", "next"),
    *("small", "large", "dark", "bright", "long", "short"),
    *("find", "look", "follow", "go", "reach", "touch", "grasp", "lift", "put", "push", "pull", "turn"),
    *("avoid", "stop", "all", "other", "one", "two", "three", "first", "second", "third", "last"),
)
"""Words of the vocabulary, one per id; synonyms are in SYNONYMS."""

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
"""Synonyms: each maps to the word of WORDS whose token id it shares."""

_TOKENS = {word: token for token, word in enumerate(WORDS, start=PAD + 1)}


def tokenize(text: str) -> Tensor:
    """Convert an instruction to token ids.

    Case and the punctuation marks . , ; : ! ? are ignored.

    Args:
        text: an instruction of 1 to MAX_TOKENS words in WORDS or SYNONYMS, such as "the red ball".

    Returns:
        int64 [MAX_TOKENS], ids from 1 to len(WORDS), padded with PAD.

    Raises:
        ValueError: not a str, no word or too many, or an unknown word; the message suggests the nearest.
    """
    if not isinstance(text, str):
        raise ValueError(f"expected an instruction of type str, got {type(text).__name__}")
    words = re.sub(r"[.,;:!?]", " ", text.lower()).split()
    if not 1 <= len(words) <= MAX_TOKENS:
        raise ValueError(f"expected an instruction of 1 to {MAX_TOKENS} words, got {len(words)}: {text!r}")
    tokens = torch.full((MAX_TOKENS,), PAD)
    for place, word in enumerate(words):
        name = SYNONYMS.get(word, word)
        if name not in _TOKENS:
            raise unknown_name("word", word, {*WORDS, *SYNONYMS})
        tokens[place] = _TOKENS[name]
    return tokens


def detokenize(tokens: Tensor | Sequence[int]) -> str:
    """Convert one row of token ids to text, with each word's name in WORDS and without padding.

    Args:
        tokens: whole numbers [L], from 0 to len(WORDS).

    Raises:
        ValueError: more than one row, or numbers that are not token ids.
    """
    row = torch.as_tensor(tokens)
    if row.ndim != 1:
        raise ValueError(f"expected one row of tokens [L], got shape {list(row.shape)}")
    check_tokens(row)
    return " ".join(WORDS[token - PAD - 1] for token in row.long().tolist() if token != PAD)


def bag_of_words(tokens: Tensor) -> Tensor:
    """Multi-hot encoding: tokens int64 [B, L] -> float32 [B, len(WORDS)], 1 for each word in the text."""
    present = torch.zeros(len(tokens), PAD + 1 + len(WORDS), device=tokens.device)
    return present.scatter_(1, tokens, 1.0)[:, PAD + 1 :]


def check_tokens(tokens: Tensor) -> None:
    """Check that tokens, of any shape and dtype, are whole numbers from 0 to len(WORDS).

    Raises:
        ValueError: they are not.
    """
    good = (tokens >= 0) & (tokens <= len(WORDS)) & (tokens == tokens.round())
    if not bool(good.all()):
        raise ValueError(
            f"expected tokens as whole numbers from {PAD} to {len(WORDS)}, as returned by "
            f"robot_attn.tokenize, got {tokens[~good].flatten()[0].item():.6g}: "
            "pass them without normalisation"
        )
