"""The mechanisms of attention, each a function or a module of its own: a file here, a line below."""

from __future__ import annotations

from robot_attn.attention._attend import Attended as Attended
from robot_attn.attention._attend import attend as attend
from robot_attn.attention._dynamic import DynamicAttention as DynamicAttention
from robot_attn.attention._local import attend_local as attend_local
from robot_attn.attention._local import attend_local_grid as attend_local_grid
from robot_attn.attention._local import spread_local as spread_local
from robot_attn.attention._local import spread_local_grid as spread_local_grid
from robot_attn.attention._scores import LEARNED_SCORES as LEARNED_SCORES
from robot_attn.attention._scores import SCORES as SCORES
from robot_attn.attention._scores import Score as Score
from robot_attn.attention._scores import build_score as build_score

__all__ = [
    "LEARNED_SCORES",
    "SCORES",
    "Attended",
    "DynamicAttention",
    "Score",
    "attend",
    "attend_local",
    "attend_local_grid",
    "build_score",
    "spread_local",
    "spread_local_grid",
]
