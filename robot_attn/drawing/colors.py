"""Colours of all pictures, as RGB from 0 to 255. The style sheet of the pages defines its own."""

from __future__ import annotations

Color = tuple[int, int, int]

BACKGROUND: Color = (18, 20, 26)
PANEL: Color = (29, 32, 41)
BAR: Color = (46, 50, 61)
"""Range of an action bar."""
LINE: Color = (58, 63, 76)
"""Bottom and top line of a plot."""
FAINT: Color = (84, 91, 108)
"""Part of a curve after the current step."""
TEXT: Color = (226, 230, 238)
DIM: Color = (142, 149, 164)
BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)

ACCENT: Color = (255, 196, 84)
BLUE: Color = (96, 172, 255)
GREEN: Color = (106, 214, 150)
RED: Color = (246, 108, 100)
TARGET: Color = (64, 255, 214)
"""Outline of the target."""
HIDDEN: Color = (66, 40, 46)
"""Steps in which the target is not visible."""

HEADS: tuple[Color, ...] = (
    ACCENT,
    BLUE,
    GREEN,
    (255, 127, 157),
    (199, 155, 255),
    (79, 216, 224),
    (255, 158, 94),
    (207, 213, 226),
)
"""Colours of the heads, in order; the pages use the same."""
