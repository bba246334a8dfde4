"""The families of perception modules, by name. A new one is a file here and a line in `FAMILIES`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from robot_attn.errors import unknown_name
from robot_attn.families._cnn import Cnn as Cnn
from robot_attn.families._dynamic import Dynamic as Dynamic
from robot_attn.families._hard_patches import HardPatches as HardPatches
from robot_attn.families._hierarchical import Hierarchical as Hierarchical
from robot_attn.families._instruction import Instruction as Instruction
from robot_attn.families._keypoints import Keypoints as Keypoints
from robot_attn.families._local import LocalAttention as LocalAttention
from robot_attn.families._mask import Mask as Mask
from robot_attn.families._query import Query as Query
from robot_attn.families._self import SelfAttention as SelfAttention
from robot_attn.families._slots import Slots as Slots
from robot_attn.perception import Perception

__all__ = [
    "FAMILIES",
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
    "build",
]

FAMILIES: Mapping[str, type[Perception]] = MappingProxyType(
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


def build(
    family: str | type[Perception], image_shape: tuple[int, int, int], context_dim: int = 0, **options: Any
) -> Perception:
    """A new module of a family, given by its name in `FAMILIES` or by its class.

    image_shape: (channels, height, width), height and width from 32 to 512 pixels; context_dim: how many
    numbers come with a frame; options: the family's own.
    Raises ValueError for a name or an option that is unknown (it gives the nearest), a class that is no
    Perception, and sizes that are none.
    """
    if isinstance(family, str):
        if family not in FAMILIES:
            raise unknown_name("perception family", family, FAMILIES)
        family = FAMILIES[family]
    elif not (isinstance(family, type) and issubclass(family, Perception)):
        raise ValueError(
            f"a perception family is a name or a subclass of robot_attn.Perception; {family!r} is neither."
        )
    known = [
        name for name in inspect.signature(family).parameters if name not in ("image_shape", "context_dim")
    ]
    for option in options:
        if option not in known:
            raise unknown_name(f"option of the family {family.__name__}", option, known)
    return family(image_shape, context_dim, **options)
