"""The families of perception modules, and the blocks that a family of your own can be made of.

A new family of robot-attn is a file here and a line in `OURS`; one of another package subclasses
`robot_attn.Perception`, takes what it likes of the blocks, and is registered (`robot_attn.register_family`):

- `Patches`: a frame as a grid of patches;
- `frame_coordinates`: where the cells of a grid lie in the frame, in [-1, 1];
- `Readout`: queries that meet keys on a grid, and the features that come of what they read;
- `Mixing`: the base of families whose patches first attend to each other, then are pooled by queries;
- `HeadInputs`: what each head hands to the last layer, for `Perception.head_inputs`;
- `check_sizes`: one error for options that must be whole numbers of at least 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from robot_attn.families._cnn import Cnn as Cnn
from robot_attn.families._dynamic import Dynamic as Dynamic
from robot_attn.families._hard_patches import HardPatches as HardPatches
from robot_attn.families._hierarchical import Hierarchical as Hierarchical
from robot_attn.families._instruction import Instruction as Instruction
from robot_attn.families._keypoints import Keypoints as Keypoints
from robot_attn.families._local import LocalAttention as LocalAttention
from robot_attn.families._mask import Mask as Mask
from robot_attn.families._mixing import Mixing as Mixing
from robot_attn.families._patches import Patches as Patches
from robot_attn.families._patches import frame_coordinates as frame_coordinates
from robot_attn.families._query import Query as Query
from robot_attn.families._readout import Readout as Readout
from robot_attn.families._self import SelfAttention as SelfAttention
from robot_attn.families._slots import Slots as Slots
from robot_attn.head_inputs import HeadInputs as HeadInputs
from robot_attn.perception import Perception
from robot_attn.perception import check_sizes as check_sizes

__all__ = [
    "OURS",
    "Cnn",
    "Dynamic",
    "HardPatches",
    "Hierarchical",
    "Instruction",
    "Keypoints",
    "LocalAttention",
    "Mask",
    "Query",
    "SelfAttention",
    "Slots",
    "HeadInputs",
    "Mixing",
    "Patches",
    "Readout",
    "check_sizes",
    "frame_coordinates",
]

OURS: Mapping[str, type[Perception]] = MappingProxyType(
    {
        "cnn": Cnn,
        "dynamic": Dynamic,
        "hierarchical": Hierarchical,
        "instruction": Instruction,
        "keypoints": Keypoints,
        "local": LocalAttention,
        "mask": Mask,
        "patches": HardPatches,
        "query": Query,
        "self": SelfAttention,
        "slots": Slots,
    }
)
"""The families of robot-attn by name; `robot_attn.FAMILIES` has those of other packages too."""
