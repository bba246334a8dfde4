"""Attention mechanisms, one file each, usable without the perception families."""

from __future__ import annotations

from robot_attn.attention._attend import Attended as Attended
from robot_attn.attention._attend import attend as attend
from robot_attn.attention._blockwise import attend_blockwise as attend_blockwise
from robot_attn.attention._dynamic import DynamicAttention as DynamicAttention
from robot_attn.attention._folded import attend_folded as attend_folded
from robot_attn.attention._hierarchical import attend_hierarchical as attend_hierarchical
from robot_attn.attention._local import attend_local as attend_local
from robot_attn.attention._local import attend_local_grid as attend_local_grid
from robot_attn.attention._local import spread_local as spread_local
from robot_attn.attention._local import spread_local_grid as spread_local_grid
from robot_attn.attention._low_rank import Linformer as Linformer
from robot_attn.attention._low_rank import attend_linformer as attend_linformer
from robot_attn.attention._low_rank import attend_nystrom as attend_nystrom
from robot_attn.attention._multi_head import MultiHeadAttention as MultiHeadAttention
from robot_attn.attention._sampled import attend_sampled as attend_sampled
from robot_attn.attention._scores import LEARNED_SCORES as LEARNED_SCORES
from robot_attn.attention._scores import SCORES as SCORES
from robot_attn.attention._scores import Score as Score
from robot_attn.attention._scores import build_score as build_score

__all__ = [
    "LEARNED_SCORES",
    "SCORES",
    "Attended",
    "DynamicAttention",
    "Linformer",
    "MultiHeadAttention",
    "Score",
    "attend",
    "attend_blockwise",
    "attend_folded",
    "attend_hierarchical",
    "attend_linformer",
    "attend_local",
    "attend_local_grid",
    "attend_nystrom",
    "attend_sampled",
    "build_score",
    "spread_local",
    "spread_local_grid",
]
