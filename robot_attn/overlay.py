"""Overlay of an attention map on a camera frame. For pictures of whole episodes see `robot_attn.drawing`."""

from __future__ import annotations

from robot_attn.drawing import overlay as overlay

__all__ = ["overlay"]
