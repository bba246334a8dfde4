"""The built-in families of perception modules, and the blocks for families of your own.

A built-in family is a file here and a line in `BUILTIN_FAMILIES`. A family of another package subclasses
`robot_attn.Perception`, uses these blocks as needed, and is registered with `robot_attn.register_family`:

- `Patches`: patch embedding of frames;
- `frame_coordinates`: positions of a grid's cells in the frame, in [-1, 1];
- `Readout`: attention with queries over a grid of tokens, and the features computed from its result;
- `Mixing`: base class of transformers over patches that are pooled by learned queries;
- `HeadInputs`: contribution of each head to the last layer, for `Perception.head_inputs`;
- `check_sizes`: validation of options that must be whole numbers of at least 1.
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
    "BUILTIN_FAMILIES",
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

BUILTIN_FAMILIES: Mapping[str, type[Perception]] = MappingProxyType(
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
"""The built-in families by name; `robot_attn.FAMILIES` also has those of other packages."""
