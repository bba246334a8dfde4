"""Private parts of mujoco_warp's ray caster: its bounding volume hierarchy and its compiled kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

import numpy as np
import warp as wp
from mujoco_warp._src.bvh import compute_bvh_group_roots


def give_own_hierarchy(context: Any, num_worlds: int, leaf_size: int) -> None:
    """Give a copied render context its own bounding volume hierarchy over `num_worlds` worlds.

    The ray caster finds a geom by its index in the hierarchy of its context. The bounds are those of the pose
    in which the context was made; `mujoco_warp.refit_bvh` updates them.

    Args:
        context: a shallow copy of a `RenderContext` for one world; modified in place.
        num_worlds: number of worlds.
        leaf_size: geoms in a leaf of the hierarchy.
    """
    for name in ("lower", "upper"):
        bounds = getattr(context, name).numpy()
        setattr(context, name, wp.array(np.tile(bounds, (num_worlds, 1)), dtype=wp.vec3))
    geoms = len(context.group)
    context.group = wp.array(np.repeat(np.arange(num_worlds), geoms), dtype=int)
    context.bvh = wp.Bvh(
        context.lower, context.upper, groups=context.group, constructor="sah", leaf_size=leaf_size
    )
    context.bvh_id = context.bvh.id
    context.group_root = wp.zeros(num_worlds, dtype=int)
    wp.launch(compute_bvh_group_roots, dim=num_worlds, inputs=[context.bvh_id], outputs=[context.group_root])


def kernel_key(context: Any) -> Hashable:
    """The fields of a render context that its kernel is specialised on: equal keys can share a kernel."""
    scalars = tuple(
        repr(getattr(context, field.name))
        for field in dataclasses.fields(context)
        if field.type in (int, bool, float, wp.uint32, wp.vec3)
    )
    return context.geom_ray_types, scalars


def compiled_kernel(context: Any) -> Any:
    """The kernel that a context compiled when it first rendered; None before."""
    return context._megakernel


def share_kernel(context: Any, kernel: Any) -> None:
    """Make a context render with the kernel of another context with the same `kernel_key`.

    Otherwise every context compiles its own copy of the same code.

    Args:
        context: the render context; modified in place.
        kernel: a result of `compiled_kernel`; None lets the context compile its own.
    """
    context._megakernel = kernel
