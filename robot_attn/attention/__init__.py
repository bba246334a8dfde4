"""The mechanisms of attention, each a function or a module of its own: a file here, a line below."""

from __future__ import annotations

from robot_attn.attention._attend import Attended as Attended
from robot_attn.attention._attend import attend as attend
from robot_attn.attention._scores import LEARNED_SCORES as LEARNED_SCORES
from robot_attn.attention._scores import SCORES as SCORES
from robot_attn.attention._scores import Score as Score
from robot_attn.attention._scores import build_score as build_score

__all__ = ["LEARNED_SCORES", "SCORES", "Attended", "Score", "attend", "build_score"]
