"""Draw attention: heat over frames, replays of episodes, contact sheets. All pictures are RGB.

Needs opencv (`pip install "robot-attn[video]"`), imported only when something is drawn.
"""

from __future__ import annotations

from robot_attn.drawing._contact_sheet import contact_sheet as contact_sheet
from robot_attn.drawing._contact_sheet import moments as moments
from robot_attn.drawing._heat import HEAT_LINE as HEAT_LINE
from robot_attn.drawing._heat import HeatScale as HeatScale
from robot_attn.drawing._heat import blend_heat as blend_heat
from robot_attn.drawing._heat import heat_palette as heat_palette
from robot_attn.drawing._layout import MIN_SIZE as MIN_SIZE
from robot_attn.drawing._layout import Box as Box
from robot_attn.drawing._layout import Image as Image
from robot_attn.drawing._layout import Layout as Layout
from robot_attn.drawing._layout import plan as plan
from robot_attn.drawing._overlay import overlay as overlay
from robot_attn.drawing._replay import Replay as Replay
from robot_attn.drawing._shapes import draw_curve as draw_curve
from robot_attn.drawing._shapes import draw_outline as draw_outline
from robot_attn.drawing._shapes import draw_text as draw_text
from robot_attn.drawing._shapes import find_outline as find_outline
from robot_attn.drawing._shapes import fit_text as fit_text
from robot_attn.drawing._shapes import place_curve as place_curve
from robot_attn.drawing._shapes import scale_frame as scale_frame
from robot_attn.drawing._shapes import write_png as write_png
from robot_attn.drawing.colors import Color as Color
