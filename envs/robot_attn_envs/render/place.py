"""Kernels that place shapes in a view: their frames, their outlines, and the tiles that they touch."""

# Warp's type stubs do not cover what its types support inside a kernel.
# mypy: ignore-errors

from __future__ import annotations

import warp as wp

from robot_attn_envs.cores import has_avx2
from robot_attn_envs.render.rays import NEVER

# Loops over the pixels of a piece of a row become vector instructions of AVX2, on every processor that has
# them: so that frames do not depend on the processor either. Multiplications and additions are fused, as all
# of them can. Vectors on the stack are aligned to cache lines: otherwise a frame takes up to a quarter more
# time, depending on how deep in the stack it is drawn from, in threads more often than not.
_AVX2 = "-target-cpu x86-64-v3 -mstackrealign -mstack-alignment=64" if has_avx2() else "-march=native"
MODULE_OPTIONS = {
    "enable_backward": False,
    "max_unroll": 0,
    "cpu_compiler_flags": f"{_AVX2} -ffp-contract=fast -fno-signed-zeros -mllvm=-inline-threshold=9000 "
    "-mllvm=-inline-cold-callsite-threshold=3000 -mllvm=-slp-recursion-max-depth=4",
}
"""How Warp compiles the renderer."""
wp.set_module_options(MODULE_OPTIONS)

# `mjtGeom`.
PLANE, HEIGHT_FIELD, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX = (wp.constant(kind) for kind in range(7))
TILE_WIDTH = 32
"""Width of a tile in pixels: the pixels of a row that are drawn together."""
TILE_HEIGHT = 8
"""Height of a tile in pixels: rows that share a list of shapes."""
_NEAR = wp.constant(1.0e-5)  # m in front of the eye, from which on an outline is projected
_EVERYWHERE = wp.constant(1.0e6)
_BEYOND = wp.constant(
    1.0e5
)  # pixels: an outline that starts before is that of a shape around or beside the eye


@wp.struct
class Rays:
    """A camera's rays: through the centre of a pixel goes (x, y, -1)."""

    x: wp.vec2  # slope and value at column 0
    y: wp.vec2  # slope and value at row 0
    orthographic: int  # rays go along (0, 0, -1) from (x, y, 0)


@wp.struct
class Shape:
    """A shape as one view sees it."""

    kind: int
    texture: int
    left: float  # first and last column and row of its outline
    right: float
    top: float
    bottom: float
    o: wp.vec3  # the eye in the shape's frame
    g: wp.mat33  # rotation (and scale) from the camera's frame to the shape's
    axes: wp.mat33  # and back
    size: wp.vec3
    centre: wp.vec3  # of its box
    color: wp.vec3
    glow: wp.vec3  # the share of the colour that is there without any light on it


@wp.func
def _round_outline(axes: wp.mat33, c: wp.vec3, radii: wp.vec3, orthographic: int, bounds: wp.vec4) -> wp.vec4:
    """Grow (least x, least y, most x, most y) by the outline of an ellipsoid.

    The tangent planes of the dual conic: x is on the outline where x^2 (c_z^2 - a_z^2) - 2 x (c_x c_z - a_x
    a_z) + c_x^2 - a_x^2 = 0, with the rows a of the matrix of semi-axes.
    """
    a = wp.mat33(
        axes[0, 0] * radii[0],
        axes[0, 1] * radii[1],
        axes[0, 2] * radii[2],
        axes[1, 0] * radii[0],
        axes[1, 1] * radii[1],
        axes[1, 2] * radii[2],
        axes[2, 0] * radii[0],
        axes[2, 1] * radii[1],
        axes[2, 2] * radii[2],
    )
    thick = wp.length(a[2])
    for i in range(2):
        low = float(-_EVERYWHERE)
        high = float(_EVERYWHERE)
        if orthographic != 0:
            low = c[i] - wp.length(a[i])
            high = c[i] + wp.length(a[i])
        elif -c[2] - thick > _NEAR:
            q = c[2] * c[2] - wp.dot(a[2], a[2])
            b = c[i] * c[2] - wp.dot(a[i], a[2])
            k = c[i] * c[i] - wp.dot(a[i], a[i])
            s = wp.sqrt(wp.max(b * b - q * k, 0.0))
            low = -(b + s) / q
            high = -(b - s) / q
        bounds[i] = wp.min(bounds[i], low)
        bounds[2 + i] = wp.max(bounds[2 + i], high)
    return bounds


@wp.kernel
def place_shapes(
    kinds: wp.array[wp.int32],
    geoms: wp.array[wp.int32],
    sizes: wp.array[wp.vec3],
    centres: wp.array[wp.vec3],
    mat_rgba: wp.array[wp.vec4],
    glow: wp.array[wp.vec3],
    textures: wp.array[wp.int32],
    rays: wp.array[Rays],
    geom_xpos: wp.array2d[wp.vec3],
    geom_xmat: wp.array2d[wp.mat33],
    geom_rgba: wp.array2d[wp.vec4],
    eye_xpos: wp.array2d[wp.vec3],
    eye_xmat: wp.array2d[wp.mat33],
    shapes: wp.array2d[Shape],
) -> None:
    """Place a shape in a view: its frame, its colour, its outline."""
    view, i = wp.tid()
    world = view // rays.shape[0]
    camera = view - world * rays.shape[0]
    geom = geoms[i]
    kind = kinds[i]
    size = sizes[i]
    lens = rays[camera]
    s = Shape()
    s.kind = kind
    s.texture = textures[i]
    s.size = size
    s.centre = centres[i]
    # MuJoCo's rule: a geom with the default colour has that of its material.
    color = geom_rgba[world, geom]
    if mat_rgba[i][0] >= 0.0 and color == wp.vec4(0.5, 0.5, 0.5, 1.0):
        color = mat_rgba[i]
    s.color = wp.vec3(color[0], color[1], color[2])
    s.glow = glow[i]
    to_shape = wp.transpose(geom_xmat[world, geom])
    s.g = to_shape * eye_xmat[world, camera]
    s.o = to_shape * (eye_xpos[world, camera] - geom_xpos[world, geom])
    axes = wp.inverse(s.g)
    s.axes = axes
    middle = axes * (centres[i] - s.o)
    bounds = wp.vec4(_EVERYWHERE, _EVERYWHERE, -_EVERYWHERE, -_EVERYWHERE)
    reach = wp.length(size)
    capsule = kind == CAPSULE
    if kind == PLANE:
        flat = wp.vec3(size[0], size[1], 0.0)
        if size[0] > 0.0 and size[1] > 0.0:
            for k in range(4):
                corner = wp.vec3(
                    wp.where((k & 1) != 0, flat[0], -flat[0]), wp.where((k & 2) != 0, flat[1], -flat[1]), 0.0
                )
                bounds = _round_outline(axes, axes * (corner - s.o), wp.vec3(), lens.orthographic, bounds)
        else:
            bounds = -bounds
            reach = NEVER
    elif kind == SPHERE:
        reach = size[0]
        bounds = _round_outline(axes, middle, wp.vec3(size[0]), lens.orthographic, bounds)
    elif kind == ELLIPSOID:
        bounds = _round_outline(axes, middle, size, lens.orthographic, bounds)
    elif capsule or kind == CYLINDER:
        reach = size[0] + size[1]
        ends = wp.vec3(size[0], size[0], wp.where(capsule, size[0], 0.0))
        along = wp.vec3(axes[0, 2], axes[1, 2], axes[2, 2]) * size[1]
        bounds = _round_outline(axes, middle + along, ends, lens.orthographic, bounds)
        bounds = _round_outline(axes, middle - along, ends, lens.orthographic, bounds)
    else:  # a box, or the box around a mesh
        for k in range(8):
            corner = wp.vec3(
                wp.where((k & 1) != 0, size[0], -size[0]),
                wp.where((k & 2) != 0, size[1], -size[1]),
                wp.where((k & 4) != 0, size[2], -size[2]),
            )
            bounds = _round_outline(axes, middle + axes * corner, wp.vec3(), lens.orthographic, bounds)
    # Invisible, or all of it behind the eye.
    if color[3] == 0.0 or middle[2] > reach * wp.length(wp.vec3(axes[2, 0], axes[2, 1], axes[2, 2])):
        bounds = wp.vec4(1.0, 1.0, -1.0, -1.0) * _EVERYWHERE
    # y falls from row to row. A hundredth of a pixel is more than rounding can be off by.
    s.left = (bounds[0] - lens.x[1]) / lens.x[0] - 0.01
    s.right = (bounds[2] - lens.x[1]) / lens.x[0] + 0.01
    s.top = (bounds[3] - lens.y[1]) / lens.y[0] - 0.01
    s.bottom = (bounds[1] - lens.y[1]) / lens.y[0] + 0.01
    shapes[view, i] = s


@wp.func
def _corner(low: wp.vec2, high: wp.vec2, k: int) -> wp.vec3:
    """The ray at a corner of a tile, clockwise from the upper left, so that sides turn inward."""
    return wp.vec3(wp.where(k == 1 or k == 2, high[0], low[0]), wp.where(k < 2, low[1], high[1]), -1.0)


@wp.func
def _plane_meets_tile(s: Shape, low: wp.vec2, high: wp.vec2) -> bool:
    """Whether a ray of a tile may meet the plane.

    With q = 1 / t, a ray meets it where q > 0 and |o q + v| <= size q: five functions that are linear in the
    pixel, of each of which one corner of the tile has the most.
    """
    front = float(-NEVER)
    x0 = float(-NEVER)
    x1 = float(-NEVER)
    y0 = float(-NEVER)
    y1 = float(-NEVER)
    for k in range(4):
        v = s.g * _corner(low, high, k)
        q = -v[2] / s.o[2]
        front = wp.max(front, q)
        x = s.o[0] * q + v[0]
        y = s.o[1] * q + v[1]
        x0 = wp.max(x0, s.size[0] * q - x)
        x1 = wp.max(x1, s.size[0] * q + x)
        y0 = wp.max(y0, s.size[1] * q - y)
        y1 = wp.max(y1, s.size[1] * q + y)
    meets = front > 0.0
    if s.size[0] > 0.0:
        meets = meets and x0 >= 0.0 and x1 >= 0.0
    if s.size[1] > 0.0:
        meets = meets and y0 >= 0.0 and y1 >= 0.0
    return meets


@wp.func
def _box_meets_tile(s: Shape, low: wp.vec2, high: wp.vec2) -> bool:
    """Whether the box around a shape reaches into the pyramid of a tile's rays, tested on its four sides."""
    extent = s.size
    if s.kind == SPHERE:
        extent = wp.vec3(s.size[0])
    if s.kind == CAPSULE or s.kind == CYLINDER:
        extent = wp.vec3(s.size[0], s.size[0], s.size[1] + wp.where(s.kind == CAPSULE, s.size[0], 0.0))
    meets = wp.bool(True)
    for side in range(4):
        inward = wp.cross(s.g * _corner(low, high, side), s.g * _corner(low, high, (side + 1) % 4))
        most = wp.abs(inward[0]) * extent[0] + wp.abs(inward[1]) * extent[1] + wp.abs(inward[2]) * extent[2]
        if wp.dot(inward, s.centre - s.o) < -1.0001 * most:
            meets = False
    return meets


@wp.kernel
def list_tiles(
    shapes: wp.array2d[Shape],
    rays: wp.array[Rays],
    tiles_across: int,
    tiles: wp.array3d[wp.int16],
) -> None:
    """List the shapes whose outline touches a tile: their number, then their indices, rising."""
    view, tile = wp.tid()
    camera = view % rays.shape[0]
    column = float((tile % tiles_across) * TILE_WIDTH)
    row = float((tile // tiles_across) * TILE_HEIGHT)
    last_column = column + float(TILE_WIDTH - 1)
    last_row = row + float(TILE_HEIGHT - 1)
    lens = rays[camera]
    low = wp.vec2(lens.x[0] * column + lens.x[1], lens.y[0] * row + lens.y[1])
    high = wp.vec2(lens.x[0] * last_column + lens.x[1], lens.y[0] * last_row + lens.y[1])
    count = wp.int32(0)
    for i in range(shapes.shape[1]):
        kind = shapes[view, i].kind
        touches = (
            shapes[view, i].left <= last_column
            and shapes[view, i].right >= column
            and shapes[view, i].top <= last_row
            and shapes[view, i].bottom >= row
        )
        if touches and kind == PLANE and lens.orthographic == 0:
            touches = shapes[view, i].o[2] > 0.0 and _plane_meets_tile(shapes[view, i], low, high)
        if touches and kind != PLANE and lens.orthographic == 0 and shapes[view, i].left < -_BEYOND:
            touches = _box_meets_tile(shapes[view, i], low, high)
        if touches and kind != HEIGHT_FIELD and kind <= BOX:
            count += 1
            tiles[view, tile, count] = wp.int16(i)
    tiles[view, tile, 0] = wp.int16(count)
