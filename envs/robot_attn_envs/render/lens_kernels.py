"""Warp kernels of the lens: a thread processes some rows of one view's frame.

The pixels of a row are processed in pieces of a constant length, in loops without branches, which the
compiler turns into vector instructions.
"""

# Warp's type stubs do not cover what its types support inside a kernel.
# mypy: ignore-errors

from __future__ import annotations

import warp as wp

from robot_attn_envs.render.pixels import PATCH_ID, Colors, Floats, Ints, Output, store_colors
from robot_attn_envs.render.place import MODULE_OPTIONS, TILE_HEIGHT, TILE_WIDTH, Rays

PICTURE_SIDE = 128  # texels, a power of two; pictures repeat after it
PATCHES = 3
NOISE_LENGTH = 1 << 16  # length of the table of noise samples
NOISE_UNIT = 32.0  # standard deviation of the table

wp.set_module_options(MODULE_OPTIONS)

_LANES = wp.constant(TILE_WIDTH)
_PATCH_ID = wp.constant(PATCH_ID)
_Wide = wp.types.vector(TILE_WIDTH + 2, wp.uint32)
PatchFloats = wp.types.vector(PATCHES, wp.float32)
PatchColors = wp.types.vector(PATCHES, wp.uint32)


@wp.struct
class LensSettings:
    """The effects on one world's frame.

    Lengths are in frame heights, measured from the middle of the frame, x to the right and y down.
    """

    picture: wp.int32  # index of the picture painted over the scenery
    paint: wp.int32  # opacity of the picture, 0 to 256
    zoom: wp.float32  # texels per unit of tangent
    offset: wp.vec2  # texels, not negative
    patch_x: PatchFloats  # centres of the patches
    patch_y: PatchFloats
    patch_width: PatchFloats  # half the width; 0: no patch
    patch_height: PatchFloats  # half the height
    patch_round: PatchFloats  # 1: an ellipse, 0: a rectangle
    patch_color: PatchColors  # 0xRRGGBB
    gain: wp.vec3  # factors of red, green, blue
    blur: wp.float32  # weight of the blurred frame, 0 to 1
    noise: wp.float32  # standard deviation, as a fraction of full scale
    seed: wp.uint32  # of this frame's noise


@wp.func
def _texel(direction: wp.vec3, zoom: float, offset: wp.vec2) -> int:
    """The picture's texel in a direction: it is mapped onto each face of a cube around the camera."""
    x = wp.abs(direction[0])
    y = wp.abs(direction[1])
    z = wp.abs(direction[2])
    ahead = z >= wp.max(x, y)
    on_x = x >= y
    far = wp.where(ahead, z, wp.where(on_x, x, y))
    u = wp.where(on_x, wp.where(direction[0] < 0.0, direction[1], -direction[1]), direction[0])
    u = wp.where(on_x, u, wp.where(direction[1] < 0.0, -direction[0], direction[0]))
    u = wp.where(ahead, direction[1], u)
    v = wp.where(ahead, direction[0], -direction[2])
    texels = zoom / far
    column = wp.int32(u * texels + offset[0]) & (PICTURE_SIDE - 1)
    row = wp.int32(v * texels + offset[1]) & (PICTURE_SIDE - 1)
    return row * PICTURE_SIDE + column


@wp.func
def _mix(one: wp.uint32, other: wp.uint32, share: wp.uint32) -> wp.uint32:
    """Blend two packed colours, two channels at a time; `share` / 256 is the weight of `other`."""
    mask = wp.uint32(0xFF00FF)
    ends = one & mask
    middle = (one >> wp.uint32(8)) & mask
    # Differences may borrow from the channel above; the sums are exact again.
    ends = ((ends << wp.uint32(8)) + ((other & mask) - ends) * share) >> wp.uint32(8)
    middle = (middle << wp.uint32(8)) + (((other >> wp.uint32(8)) & mask) - middle) * share
    return (ends & mask) | (middle & (mask << wp.uint32(8)))


@wp.kernel
def paint(
    width: int,
    height: int,
    rays: wp.array[Rays],
    eye_xmat: wp.array2d[wp.mat33],
    pictures: wp.array[wp.uint32],
    settings: wp.array[LensSettings],
    packed: wp.array2d[Colors],
    output: Output,
) -> None:
    """Paint the picture over the scenery and the patches over everything; patches have geom id `PATCH_ID`."""
    view, tile = wp.tid()
    cameras = rays.shape[0]
    world = view // cameras
    camera = view - world * cameras
    effects = settings[world]
    lens = rays[camera]
    mat = eye_xmat[world, camera]
    step = mat @ wp.vec3(lens.x[0], 0.0, 0.0)
    share = wp.uint32(effects.paint)
    # The stride of an array that is made here is known to the compiler: no index is multiplied by it.
    dense = wp.array(ptr=pictures.ptr, shape=(1,), dtype=wp.uint32)
    picture = effects.picture * PICTURE_SIDE * PICTURE_SIDE
    pieces = (width + TILE_WIDTH - 1) // TILE_WIDTH
    for row in range(tile * TILE_HEIGHT, wp.min((tile + 1) * TILE_HEIGHT, height)):
        if share > wp.uint32(0):
            # At equal depth along the optical axis, the ray directions are linear along the row.
            start = mat @ wp.vec3(lens.x[1], lens.y[0] * float(row) + lens.y[1], -1.0)
            for piece in range(pieces):
                color = packed[view, row * pieces + piece]
                begin = start + step * float(piece * TILE_WIDTH)
                # Where texels lie is worked out together, before they are read one by one.
                place = Ints(0)
                for j in range(_LANES):
                    place[j] = picture + _texel(begin + step * float(j), effects.zoom, effects.offset)
                texel = Colors(wp.uint32(0))
                for j in range(_LANES):
                    texel[j] = dense[place[j]]
                for j in range(_LANES):
                    weight = wp.where(color[j] >= wp.uint32(1 << 24), share, wp.uint32(0))
                    color[j] = _mix(color[j], texel[j], weight)
                packed[view, row * pieces + piece] = color
        for i in range(PATCHES):
            below = (float(row) + 0.5) / float(height) - 0.5 - effects.patch_y[i]
            below = below / wp.max(effects.patch_height[i], 1.0e-6)
            if wp.abs(below) < 1.0:
                middle = 0.5 * float(width) + effects.patch_x[i] * float(height) - 0.5
                reach = effects.patch_width[i] * float(height)
                if effects.patch_round[i] > 0.0:
                    reach *= wp.sqrt(1.0 - below * below)
                left = wp.max(wp.int32(wp.ceil(middle - reach)), 0)
                right = wp.min(wp.int32(wp.floor(middle + reach)) + 1, width)
                for piece in range(left // TILE_WIDTH, (right + TILE_WIDTH - 1) // TILE_WIDTH):
                    color = packed[view, row * pieces + piece]
                    for j in range(_LANES):
                        x = piece * TILE_WIDTH + j
                        inside = x >= left and x < right
                        color[j] = wp.where(inside, effects.patch_color[i], color[j])
                    packed[view, row * pieces + piece] = color
                for x in range(left, right):
                    output.geom_id[view, row * width + x] = _PATCH_ID


@wp.func
def _below_average(one: wp.uint32, other: wp.uint32) -> wp.uint32:
    """The mean of each of four bytes, rounded down."""
    return (one & other) + (((one ^ other) >> wp.uint32(1)) & wp.uint32(0x7F7F7F7F))


@wp.func
def _above_average(one: wp.uint32, other: wp.uint32) -> wp.uint32:
    """The mean of each of four bytes, rounded up."""
    return (one | other) - (((one ^ other) >> wp.uint32(1)) & wp.uint32(0x7F7F7F7F))


@wp.func
def _binomial(one: wp.uint32, middle: wp.uint32, other: wp.uint32) -> wp.uint32:
    """(1 2 1) / 4 of each byte; one mean rounds up and the other down, so that frames do not get darker."""
    return _below_average(_above_average(one, other), middle)


@wp.func
def _pixel(packed: wp.array2d[Colors], view: int, row: int, x: int) -> wp.uint32:
    """A pixel of a row, which begins at a piece."""
    return packed[view, row + x // TILE_WIDTH][x % TILE_WIDTH]


@wp.func
def _column(packed: wp.array2d[Colors], view: int, above: int, middle: int, below: int, x: int) -> wp.uint32:
    return _binomial(
        _pixel(packed, view, above, x), _pixel(packed, view, middle, x), _pixel(packed, view, below, x)
    )


@wp.kernel
def blur(
    width: int, height: int, stride: int, packed: wp.array2d[Colors], blurred: wp.array2d[Colors]
) -> None:
    """Blur rows with a 3 x 3 binomial kernel whose taps are `stride` pixels apart."""
    view, tile = wp.tid()
    pieces = (width + TILE_WIDTH - 1) // TILE_WIDTH
    for row in range(tile * TILE_HEIGHT, wp.min((tile + 1) * TILE_HEIGHT, height)):
        above = wp.max(row - stride, 0) * pieces
        middle = row * pieces
        below = wp.min(row + stride, height - 1) * pieces
        for piece in range(pieces):
            soft = Colors(wp.uint32(0))
            for j in range(wp.min(_LANES, width - piece * TILE_WIDTH)):
                x = piece * TILE_WIDTH + j
                soft[j] = _binomial(
                    _column(packed, view, above, middle, below, wp.max(x - stride, 0)),
                    _column(packed, view, above, middle, below, x),
                    _column(packed, view, above, middle, below, wp.min(x + stride, width - 1)),
                )
            blurred[view, middle + piece] = soft


@wp.func
def _scramble(value: wp.uint32) -> wp.uint32:
    """Hash in which flipping one input bit flips about half of the output bits (Wellons' hash prospector)."""
    value = (value ^ (value >> wp.uint32(16))) * wp.uint32(0x21F0AAAD)
    value = (value ^ (value >> wp.uint32(15))) * wp.uint32(0x735A2D97)
    return value ^ (value >> wp.uint32(15))


@wp.func
def _noise(table: wp.array2d[wp.int8], start: int, first: int, columns: int, sigma: float) -> Floats:
    """The noise of a channel of a piece of a row that begins at column `first`.

    Pixel x takes every third sample from `start` on: those are next to each other in the table, whose rows
    are the samples 0, 3, 6, ..., then 1, 4, 7, ..., then 2, 5, 8, ...
    """
    noise = Floats(0.0)
    if sigma > 0.0:
        at = (start % 3) * table.shape[1] + start // 3
        # As in `paint`; the samples of a piece are next to each other from its beginning on.
        samples = wp.array(ptr=table.ptr + wp.uint64(at), shape=(1,), dtype=wp.int8)
        if columns == 65536:
            piece = wp.array(ptr=table.ptr + wp.uint64(at + first), shape=(1,), dtype=wp.int8)
            for j in range(_LANES):
                noise[j] = sigma * float(piece[j])
        else:
            for j in range(_LANES):
                noise[j] = sigma * float(samples[((first + j) * columns + (columns >> 1)) >> 16])
    return noise


@wp.func
def _exposed(color: wp.uint32, shift: wp.uint32, gain: float, noise: float) -> int:
    """A channel of a colour after gain and noise, 0 to 255."""
    value = float(int((color >> shift) & wp.uint32(255))) * gain + noise
    return int(wp.min(wp.max(value + 0.5, 0.0), 255.0))


@wp.kernel
def expose(
    width: int,
    height: int,
    cameras: int,
    sensor: wp.vec2i,
    packed: wp.array2d[Colors],
    sharper: wp.array2d[Colors],
    table: wp.array2d[wp.int8],
    settings: wp.array[LensSettings],
    output: Output,
) -> None:
    """Apply the last blur, at stride 1, then gain and noise, and write RGB."""
    view, tile = wp.tid()
    effects = settings[view // cameras]
    gain = effects.gain
    share = wp.uint32(effects.blur * 256.0)
    sigma = effects.noise * wp.static(255.0 / NOISE_UNIT)
    columns = (sensor[1] << 16) // width  # sensor columns per frame column, in 1 / 65536
    red = wp.uint32(16)
    green = wp.uint32(8)
    blue = wp.uint32(0)
    pieces = (width + TILE_WIDTH - 1) // TILE_WIDTH
    for row in range(tile * TILE_HEIGHT, wp.min((tile + 1) * TILE_HEIGHT, height)):
        above = wp.max(row - 1, 0) * pieces
        middle = row * pieces
        below = wp.min(row + 1, height - 1) * pieces
        start = wp.int32(
            _scramble(effects.seed + wp.uint32(row * sensor[0] // height)) & wp.uint32(NOISE_LENGTH - 1)
        )
        # The blurred column to the left of a piece's first pixel.
        before = wp.uint32(0)
        if share > wp.uint32(0):
            before = _column(sharper, view, above, middle, below, 0)
        for piece in range(pieces):
            first = piece * TILE_WIDTH
            lanes = wp.min(_LANES, width - first)
            color = packed[view, middle + piece]
            if share > wp.uint32(0):
                top = sharper[view, above + piece]
                centre = sharper[view, middle + piece]
                bottom = sharper[view, below + piece]
                # Columns -1 to 32 of the piece.
                wide = _Wide(before)
                for j in range(_LANES):
                    wide[j + 1] = _binomial(top[j], centre[j], bottom[j])
                before = wide[_LANES]
                wide[lanes + 1] = wide[lanes]
                if first + lanes < width:
                    wide[lanes + 1] = _column(sharper, view, above, middle, below, first + lanes)
                for j in range(_LANES):
                    color[j] = _mix(color[j], _binomial(wide[j], wide[j + 1], wide[j + 2]), share)
            noise_red = _noise(table, start, first, columns, sigma)
            noise_green = _noise(table, start + 1, first, columns, sigma)
            noise_blue = _noise(table, start + 2, first, columns, sigma)
            for j in range(_LANES):
                r = _exposed(color[j], red, gain[0], noise_red[j])
                g = _exposed(color[j], green, gain[1], noise_green[j])
                b = _exposed(color[j], blue, gain[2], noise_blue[j])
                color[j] = wp.uint32((b << 16) | (g << 8) | r)
            store_colors(output, color, lanes, view, row * width + first)
