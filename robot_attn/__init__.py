"""Attention-based perception modules for a robot's camera frames. Needs torch and numpy only."""

from __future__ import annotations

from robot_attn.attention import SCORES as SCORES
from robot_attn.attention import Attended as Attended
from robot_attn.attention import attend as attend
from robot_attn.attention import build_score as build_score
from robot_attn.episode import Episode as Episode
from robot_attn.episode import EpisodeError as EpisodeError
from robot_attn.forcing import Forcing as Forcing
from robot_attn.forcing import forceable as forceable
from robot_attn.frames import to_channels_first as to_channels_first
from robot_attn.frames import to_float as to_float
from robot_attn.maps import AttentionGrid as AttentionGrid
from robot_attn.maps import AttentionMaps as AttentionMaps
from robot_attn.maps import upsample_attention as upsample_attention
from robot_attn.percept import Percept as Percept
from robot_attn.perception import Perception as Perception
from robot_attn.registry import FAMILIES as FAMILIES
from robot_attn.registry import build as build
from robot_attn.registry import find_family as find_family
from robot_attn.registry import register_family as register_family
from robot_attn.vocabulary import MAX_TOKENS as MAX_TOKENS
from robot_attn.vocabulary import detokenize as detokenize
from robot_attn.vocabulary import tokenize as tokenize

__version__ = "0.1.0"
"""Equal to the version in pyproject.toml."""

__all__ = [
    "FAMILIES",
    "MAX_TOKENS",
    "SCORES",
    "Attended",
    "AttentionGrid",
    "AttentionMaps",
    "Episode",
    "EpisodeError",
    "Forcing",
    "Percept",
    "Perception",
    "attend",
    "build",
    "build_score",
    "detokenize",
    "find_family",
    "forceable",
    "register_family",
    "to_channels_first",
    "to_float",
    "tokenize",
    "upsample_attention",
]
