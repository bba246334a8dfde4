"""The heat of an attention map over a camera frame, in one call. Pictures of whole episodes: `drawing`."""

from __future__ import annotations

from robot_attn.drawing import overlay as overlay

__all__ = ["overlay"]
