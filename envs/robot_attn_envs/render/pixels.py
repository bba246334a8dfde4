"""Pixels in memory. Pieces of a row are written as vectors or words, where the layout allows it."""

# Warp's type stubs do not cover what its types support inside a kernel.
# mypy: ignore-errors

from __future__ import annotations

from typing import Any

import numpy as np
import warp as wp
from numpy.typing import NDArray

from robot_attn_envs.render.place import TILE_WIDTH

PATCH_ID = -2
"""What is in a pixel in place of a geom's id where a patch of the lens covers it; -1 is where nothing is."""

_MASK = wp.constant(TILE_WIDTH - 1)
_FOURS = wp.constant(TILE_WIDTH // 4)
_WORDS = wp.constant(TILE_WIDTH * 3 // 4)
Colors = wp.types.vector(TILE_WIDTH, wp.uint32)
"""Colours of the pixels of a piece of a row."""
Ints = wp.types.vector(TILE_WIDTH, wp.int32)
Floats = wp.types.vector(TILE_WIDTH, wp.float32)
_Bytes = wp.types.vector(TILE_WIDTH * 3 // 4, wp.uint32)


@wp.struct
class Output:
    """A camera's arrays, [views, H * W]."""

    rgb: wp.array3d[wp.uint8]
    geom_id: wp.array2d[wp.int32]
    depth: wp.array2d[wp.float32]
    with_depth: int
    in_words: int  # rows begin at a multiple of 4 bytes


def make_output(pixels: dict[str, NDArray[Any]], width: int, device: Any) -> Output:
    """The output arrays of some views.

    Args:
        pixels: `rgb` uint8 [views, H * W, 3], `geom_id` int32 [views, H * W] and, if wanted, `depth` float32
            [views, H * W]: contiguous.
        width: W.
        device: Warp device.

    Returns:
        The output; on a CPU its arrays share the memory of `pixels`.
    """
    output = Output()
    output.in_words = int(device.is_cpu and width % 4 == 0)
    output.with_depth = int("depth" in pixels)
    for name, dtype in (("rgb", wp.uint8), ("geom_id", wp.int32), ("depth", wp.float32)):
        # Warp wants an array where there is none too.
        values = pixels.get(name, np.zeros((1, 1), np.float32))
        setattr(output, name, wp.array(values, dtype=dtype, device=device, copy=False))
    return output


@wp.func
def reversed_color(color: wp.uint32) -> wp.uint32:
    """0xRRGGBB of 0xBBGGRR, and the other way around."""
    ends = ((color & wp.uint32(255)) << wp.uint32(16)) | ((color >> wp.uint32(16)) & wp.uint32(255))
    return ends | (color & wp.uint32(0xFF00))


@wp.func
def store_colors(output: Output, colors: Colors, lanes: int, view: int, pixel: int) -> None:
    """Store the first colours, 0xBBGGRR, of a piece of a row that begins at a pixel."""
    if output.in_words != 0:
        # Masks, as an index that could be negative would count from the end.
        words = Colors(wp.uint32(0))
        for k in range(_FOURS):
            a = colors[(4 * k) & _MASK]
            b = colors[(4 * k + 1) & _MASK]
            c = colors[(4 * k + 2) & _MASK]
            d = colors[(4 * k + 3) & _MASK]
            words[(3 * k) & _MASK] = a | (b << wp.uint32(24))
            words[(3 * k + 1) & _MASK] = (b >> wp.uint32(8)) | (c << wp.uint32(16))
            words[(3 * k + 2) & _MASK] = (c >> wp.uint32(16)) | (d << wp.uint32(8))
        place = output.rgb.ptr + wp.uint64(3) * _pixels_before(output, view, pixel)
        if lanes == TILE_WIDTH:
            whole = _Bytes(wp.uint32(0))
            for k in range(_WORDS):
                whole[k] = words[k]
            piece = wp.array(ptr=place, shape=(1,), dtype=_Bytes)
            piece[0] = whole
        else:
            row = wp.array(ptr=place, shape=(1,), dtype=wp.uint32)
            for k in range(lanes * 3 // 4):
                row[k] = words[k]
    else:
        for j in range(lanes):
            output.rgb[view, pixel + j, 0] = wp.uint8(colors[j])
            output.rgb[view, pixel + j, 1] = wp.uint8(colors[j] >> wp.uint32(8))
            output.rgb[view, pixel + j, 2] = wp.uint8(colors[j] >> wp.uint32(16))


@wp.func
def store_hits(output: Output, ids: Ints, depth: Floats, lanes: int, view: int, pixel: int) -> None:
    """Store the first geom ids and depths of a piece of a row that begins at a pixel."""
    before = wp.uint64(4) * _pixels_before(output, view, pixel)
    if lanes == TILE_WIDTH:
        piece = wp.array(ptr=output.geom_id.ptr + before, shape=(1,), dtype=Ints)
        piece[0] = ids
        if output.with_depth != 0:
            depths = wp.array(ptr=output.depth.ptr + before, shape=(1,), dtype=Floats)
            depths[0] = depth
    else:
        for j in range(lanes):
            output.geom_id[view, pixel + j] = ids[j]
            if output.with_depth != 0:
                output.depth[view, pixel + j] = depth[j]


@wp.func
def _pixels_before(output: Output, view: int, pixel: int) -> wp.uint64:
    """Pixels in memory before one of a view."""
    return wp.uint64(view) * wp.uint64(output.geom_id.shape[1]) + wp.uint64(pixel)
