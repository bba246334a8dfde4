"""The parts of mujoco_warp's ray caster without a public interface: its hierarchy and its compiled kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

import numpy as np
import warp as wp
from mujoco_warp._src.bvh import compute_bvh_group_roots


def give_own_hierarchy(context: Any, num_worlds: int, leaf_size: int) -> None:
    """Give a copied render context a bounding volume hierarchy over `num_worlds` worlds, and no other.

    The ray caster finds a geom by its place in the hierarchy of its context. The bounds are of the pose that
    the context was made in; `mujoco_warp.refit_bvh` brings them up to date.

    Args:
        context: a shallow copy of a `RenderContext` for one world, which is written to.
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
    """What of a render context its kernel is specialised on: contexts of equal keys can share a kernel."""
    scalars = tuple(
        repr(getattr(context, field.name))
        for field in dataclasses.fields(context)
        if field.type in (int, bool, float, wp.uint32, wp.vec3)
    )
    return context.geom_ray_types, scalars


def compiled_kernel(context: Any) -> Any:
    """The render kernel that a context compiled when it was first drawn with; None before."""
    return context._megakernel


def share_kernel(context: Any, kernel: Any) -> None:
    """Have a context draw with a kernel that another one of the same `kernel_key` compiled.

    Left alone, every context compiles its own copy of the same code.

    Args:
        context: the render context.
        kernel: what `compiled_kernel` gave; None: the context compiles its own.
    """
    context._megakernel = kernel
