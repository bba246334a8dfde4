"""Warp kernels of the lens: each processes one row of one world's frame."""

# Warp's type stubs do not cover what its types support inside a kernel.
# mypy: ignore-errors

from __future__ import annotations

import warp as wp

PICTURE_SIDE = 128  # texels, a power of two; pictures repeat after it
PATCHES = 3
NOISE_LENGTH = 1 << 16  # length of the table of noise samples
NOISE_UNIT = 32.0  # standard deviation of the table

wp.set_module_options({"enable_backward": False})

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
def _texel(
    direction: wp.vec3, picture: int, zoom: float, offset: wp.vec2, pictures: wp.array3d[wp.uint32]
) -> wp.uint32:
    """The picture's colour in a direction: it is mapped onto each face of a cube around the camera."""
    ahead = wp.abs(direction)
    u = direction[1]
    v = direction[0]
    far = ahead[2]
    if ahead[2] < wp.max(ahead[0], ahead[1]):
        v = -direction[2]
        if ahead[0] >= ahead[1]:
            far = ahead[0]
            u = -direction[1] * wp.sign(direction[0])
        else:
            far = ahead[1]
            u = direction[0] * wp.sign(direction[1])
    texels = zoom / far
    column = wp.int32(u * texels + offset[0]) & (PICTURE_SIDE - 1)
    row = wp.int32(v * texels + offset[1]) & (PICTURE_SIDE - 1)
    return pictures[picture, row, column]


@wp.func
def _mix(one: wp.uint32, other: wp.uint32, share: wp.uint32) -> wp.uint32:
    """Blend two packed colours, two channels at a time; `share` / 256 is the weight of `other`."""
    rest = wp.uint32(256) - share
    mask = wp.uint32(0xFF00FF)
    red_blue = ((one & mask) * rest + (other & mask) * share) >> wp.uint32(8)
    green = (((one >> wp.uint32(8)) & mask) * rest + ((other >> wp.uint32(8)) & mask) * share) >> wp.uint32(8)
    return (red_blue & mask) | ((green & mask) << wp.uint32(8))


@wp.kernel
def paint(
    width: int,
    rays: wp.array[wp.vec3],
    cameras: wp.array[wp.int32],
    cam_xmat: wp.array2d[wp.mat33],
    hits: wp.array2d[wp.vec2i],
    scenery: wp.array[wp.bool],
    pictures: wp.array3d[wp.uint32],
    settings: wp.array[LensSettings],
    packed: wp.array2d[wp.uint32],
    geom_id: wp.array2d[wp.int32],
) -> None:
    """Paint the picture over a row's scenery and the patches over everything; patches have geom id -1."""
    world, row = wp.tid()
    view = settings[world]
    first = row * width
    height = float(rays.shape[0] // width)
    share = wp.uint32(view.paint)
    # At equal depth along the optical axis, the ray directions are linear along the row.
    mat = cam_xmat[world, cameras[0]]
    start = mat @ (rays[first] / -rays[first][2])
    step = mat @ (rays[first + 1] / -rays[first + 1][2]) - start
    for x in range(width):
        geom = hits[world, first + x][0]
        geom_id[world, first + x] = geom
        if share > wp.uint32(0) and scenery[geom + 1]:
            texel = _texel(start + step * float(x), view.picture, view.zoom, view.offset, pictures)
            packed[world, first + x] = _mix(packed[world, first + x], texel, share)

    for i in range(PATCHES):
        below = ((float(row) + 0.5) / height - 0.5 - view.patch_y[i]) / wp.max(view.patch_height[i], 1.0e-6)
        if wp.abs(below) < 1.0:
            middle = 0.5 * float(width) + view.patch_x[i] * height - 0.5
            reach = view.patch_width[i] * height
            if view.patch_round[i] > 0.0:
                reach *= wp.sqrt(1.0 - below * below)
            left = wp.max(wp.int32(wp.ceil(middle - reach)), 0)
            right = wp.min(wp.int32(wp.floor(middle + reach)) + 1, width)
            for x in range(left, right):
                packed[world, first + x] = view.patch_color[i]
                geom_id[world, first + x] = -1


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
def _column(
    packed: wp.array2d[wp.uint32], world: int, above: int, middle: int, below: int, x: int
) -> wp.uint32:
    return _binomial(packed[world, above + x], packed[world, middle + x], packed[world, below + x])


@wp.kernel
def blur_row(width: int, stride: int, packed: wp.array2d[wp.uint32], blurred: wp.array2d[wp.uint32]) -> None:
    """Blur a row with a 3 x 3 binomial kernel whose taps are `stride` pixels apart."""
    world, row = wp.tid()
    height = packed.shape[1] // width
    above, middle, below = (
        wp.max(row - stride, 0) * width,
        row * width,
        wp.min(row + stride, height - 1) * width,
    )
    for x in range(width):
        blurred[world, middle + x] = _binomial(
            _column(packed, world, above, middle, below, wp.max(x - stride, 0)),
            _column(packed, world, above, middle, below, x),
            _column(packed, world, above, middle, below, wp.min(x + stride, width - 1)),
        )


@wp.func
def _scramble(value: wp.uint32) -> wp.uint32:
    """Hash in which flipping one input bit flips about half of the output bits (Wellons' hash prospector)."""
    value = (value ^ (value >> wp.uint32(16))) * wp.uint32(0x21F0AAAD)
    value = (value ^ (value >> wp.uint32(15))) * wp.uint32(0x735A2D97)
    return value ^ (value >> wp.uint32(15))


@wp.kernel
def expose(
    width: int,
    sensor: wp.vec2i,
    packed: wp.array2d[wp.uint32],
    sharper: wp.array2d[wp.uint32],
    table: wp.array[wp.int8],
    settings: wp.array[LensSettings],
    rgb: wp.array3d[wp.uint8],
) -> None:
    """Apply the last blur of a row, at stride 1, then gain and noise, and write RGB."""
    world, row = wp.tid()
    view = settings[world]
    height = packed.shape[1] // width
    above, middle, below = wp.max(row - 1, 0) * width, row * width, wp.min(row + 1, height - 1) * width
    share = wp.uint32(view.blur * 256.0)
    sigma = view.noise * wp.static(255.0 / NOISE_UNIT)
    start = wp.int32(_scramble(view.seed + wp.uint32(row * sensor[0] // height)))
    columns = (sensor[1] << 16) // width  # sensor columns per frame column, in 1 / 65536
    before = _column(sharper, world, above, middle, below, 0)
    here = before
    for x in range(width):
        color = packed[world, middle + x]
        if share > wp.uint32(0):
            after = _column(sharper, world, above, middle, below, wp.min(x + 1, width - 1))
            color = _mix(color, _binomial(before, here, after), share)
            before = here
            here = after
        cell = start + 3 * ((x * columns + (columns >> 1)) >> 16)
        for channel in range(3):
            value = float((color >> wp.uint32(16 - 8 * channel)) & wp.uint32(255)) * view.gain[channel]
            value += sigma * float(table[(cell + channel) & (NOISE_LENGTH - 1)])
            rgb[world, middle + x, channel] = wp.uint8(wp.clamp(value + 0.5, 0.0, 255.0))
