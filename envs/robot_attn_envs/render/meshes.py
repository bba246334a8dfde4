"""Kernels that find the nearest triangle at each pixel: a depth buffer over meshes and height fields."""

# Warp's type stubs do not cover what its types support inside a kernel.
# mypy: ignore-errors

from __future__ import annotations

import warp as wp

from robot_attn_envs.render.place import MODULE_OPTIONS, Rays, Shape
from robot_attn_envs.render.scene import BATCH

wp.set_module_options(MODULE_OPTIONS)

_BATCH = wp.constant(BATCH)
Ints = wp.types.vector(BATCH, wp.int32)
Range = wp.types.vector(4, wp.int32)
SAME_DEPTH = 1.0e-6
"""By how much depths at which two shapes are equally far can differ, as a share of them."""
_REACH = wp.constant(1.0 + SAME_DEPTH)
_EYE = wp.constant(-1.0e-6)  # m: z of what is just in front of the eye
_MARGIN = wp.constant(0.001)  # pixels: more than rounding can move a vertex by


@wp.struct
class Mesh:
    """The triangles of a scene."""

    vertices: wp.array[wp.vec3]
    faces: wp.array[wp.vec3i]
    corners: wp.array2d[wp.float32]  # x, y, z of three vertices: in rows, which can be read as vectors
    face_shape: wp.array[wp.int32]
    normals: wp.array[wp.vec3]
    face_normals: wp.array[wp.vec3i]
    uv: wp.array[wp.vec2]
    face_uv: wp.array[wp.vec3i]
    ranges: wp.array[Range]


@wp.func
def _on_screen(s: Shape, width: int, height: int) -> bool:
    """Whether the outline of a shape reaches into the frame."""
    across = s.right >= 0.0 and s.left <= float(width - 1)
    return across and s.bottom >= 0.0 and s.top <= float(height - 1)


@wp.func
def _place(mesh: Mesh, vertex: int, s: Shape, orthographic: int) -> wp.vec4:
    """A point (x, y, z) on the ray of a vertex, with z = -1 if rays are parallel, and its depth."""
    p = s.axes * (mesh.vertices[vertex] - s.o)
    return wp.vec4(p[0], p[1], wp.where(orthographic != 0, -1.0, p[2]), -p[2])


@wp.func
def _edge(i: int, j: int, a: wp.vec3, b: wp.vec3) -> wp.vec3:
    """The edge function of an edge, linear in the ray: a x b.

    From the difference of the ends, which keeps the digits of short edges, and in one order of the vertices,
    so that neighbours agree on it to the bit and leave no gap between them.
    """
    return wp.where(i < j, wp.cross(a, b - a), wp.cross(a - b, b))


@wp.func
def _in_view(a: wp.vec3, b: wp.vec3, c: wp.vec3, lens: Rays, width: int, height: int) -> bool:
    """Whether no side of the frame has all three corners beyond it, those behind the eye included."""
    left = lens.x[1] - 0.5 * lens.x[0]
    right = left + lens.x[0] * float(width)
    top = lens.y[1] - 0.5 * lens.y[0]
    bottom = top + lens.y[0] * float(height)
    beyond_left = wp.max(wp.max(a[0] + left * a[2], b[0] + left * b[2]), c[0] + left * c[2]) < 0.0
    beyond_right = wp.min(wp.min(a[0] + right * a[2], b[0] + right * b[2]), c[0] + right * c[2]) > 0.0
    above = wp.min(wp.min(a[1] + top * a[2], b[1] + top * b[2]), c[1] + top * c[2]) > 0.0
    below = wp.max(wp.max(a[1] + bottom * a[2], b[1] + bottom * b[2]), c[1] + bottom * c[2]) < 0.0
    return not (beyond_left or beyond_right or above or below)


@wp.func
def corner_weights(mesh: Mesh, face: int, s: Shape, orthographic: int, d: wp.vec3) -> wp.vec3:
    """Barycentric coordinates of the point where a ray meets a triangle."""
    f = mesh.faces[face]
    p0 = _place(mesh, f[0], s, orthographic)
    p1 = _place(mesh, f[1], s, orthographic)
    p2 = _place(mesh, f[2], s, orthographic)
    a = wp.vec3(p0[0], p0[1], p0[2])
    b = wp.vec3(p1[0], p1[1], p1[2])
    c = wp.vec3(p2[0], p2[1], p2[2])
    w = wp.vec3(
        wp.dot(d, _edge(f[1], f[2], b, c)),
        wp.dot(d, _edge(f[2], f[0], c, a)),
        wp.dot(d, _edge(f[0], f[1], a, b)),
    )
    return w / (w[0] + w[1] + w[2])


@wp.kernel
def draw_triangles(
    mesh: Mesh,
    shapes: wp.array2d[Shape],
    rays: wp.array[Rays],
    width: int,
    height: int,
    farthest: float,
    depth: wp.array2d[wp.float32],
    nearest: wp.array2d[wp.int32],
) -> None:
    """Draw a view's triangles into its depth buffer: depth, and the index of the nearest triangle or -1.

    Triangles are drawn by their homogeneous edge functions (Olano and Greer, Triangle scan conversion using
    2D homogeneous coordinates, 1997), so that those that reach behind the eye need no clipping.
    """
    view = wp.tid()
    lens = rays[view % rays.shape[0]]
    for pixel in range(width * height):
        depth[view, pixel] = farthest
        nearest[view, pixel] = -1
    for k in range(mesh.ranges.shape[0]):
        own = mesh.ranges[k]
        if _on_screen(shapes[view, own[0]], width, height):
            s = shapes[view, own[0]]
            m = s.axes
            shift = m * (-s.o)
            across = float(width - 1)
            down = float(height - 1)
            # From x / z to columns, from y / z to rows; and what is in front.
            to_column = -1.0 / lens.x[0]
            column = -lens.x[1] / lens.x[0]
            to_row = -1.0 / lens.y[0]
            row_zero = -lens.y[1] / lens.y[0]
            parallel = lens.orthographic != 0
            for batch in range(own[1], own[2], _BATCH):
                # Most triangles cover no pixel or show their back. They are told apart together, without
                # branches.
                x0 = Ints(0)
                x1 = Ints(0)
                y0 = Ints(0)
                y1 = Ints(0)
                place = own[3] + batch - own[1]
                for j in range(_BATCH):
                    x = mesh.corners[0, place + j]
                    y = mesh.corners[1, place + j]
                    z = mesh.corners[2, place + j]
                    az = wp.where(parallel, -1.0, m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + shift[2])
                    ax = column + to_column * (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + shift[0]) / az
                    ay = row_zero + to_row * (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + shift[1]) / az
                    x = mesh.corners[3, place + j]
                    y = mesh.corners[4, place + j]
                    z = mesh.corners[5, place + j]
                    bz = wp.where(parallel, -1.0, m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + shift[2])
                    bx = column + to_column * (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + shift[0]) / bz
                    by = row_zero + to_row * (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + shift[1]) / bz
                    x = mesh.corners[6, place + j]
                    y = mesh.corners[7, place + j]
                    z = mesh.corners[8, place + j]
                    cz = wp.where(parallel, -1.0, m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + shift[2])
                    cx = column + to_column * (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + shift[0]) / cz
                    cy = row_zero + to_row * (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + shift[1]) / cz
                    behind = wp.max(wp.max(az, bz), cz) > _EYE
                    in_front = wp.min(wp.min(az, bz), cz) <= _EYE
                    # Rows run down: a triangle that shows its front turns to the left.
                    front = (bx - ax) * (cy - ay) < (by - ay) * (cx - ax)
                    left = wp.ceil(wp.min(wp.min(ax, bx), cx) - _MARGIN)
                    right = wp.floor(wp.max(wp.max(ax, bx), cx) + _MARGIN)
                    top = wp.ceil(wp.min(wp.min(ay, by), cy) - _MARGIN)
                    bottom = wp.floor(wp.max(wp.max(ay, by), cy) + _MARGIN)
                    x0[j] = int(wp.where(behind, 0.0, wp.min(wp.max(left, 0.0), across + 1.0)))
                    x1[j] = int(wp.where(behind, across, wp.max(wp.min(right, across), -1.0)))
                    y0[j] = int(wp.where(behind, 0.0, wp.min(wp.max(top, 0.0), down + 1.0)))
                    last = wp.where(behind, down, wp.max(wp.min(bottom, down), -1.0))
                    y1[j] = int(wp.where(in_front and (front or behind), last, -1.0))
                for j in range(wp.min(_BATCH, own[2] - batch)):
                    if x0[j] <= x1[j] and y0[j] <= y1[j]:
                        face = batch + j
                        f = mesh.faces[face]
                        p0 = _place(mesh, f[0], s, lens.orthographic)
                        p1 = _place(mesh, f[1], s, lens.orthographic)
                        p2 = _place(mesh, f[2], s, lens.orthographic)
                        a = wp.vec3(p0[0], p0[1], p0[2])
                        b = wp.vec3(p1[0], p1[1], p1[2])
                        c = wp.vec3(p2[0], p2[1], p2[2])
                        if wp.dot(a, wp.cross(b - a, c - a)) < 0.0 and _in_view(a, b, c, lens, width, height):
                            ea = _edge(f[1], f[2], b, c)
                            eb = _edge(f[2], f[0], c, a)
                            ec = _edge(f[0], f[1], a, b)
                            for row in range(y0[j], y1[j] + 1):
                                ray_y = lens.y[0] * float(row) + lens.y[1]
                                for pixel_column in range(x0[j], x1[j] + 1):
                                    d = wp.vec3(lens.x[0] * float(pixel_column) + lens.x[1], ray_y, -1.0)
                                    wa = wp.dot(d, ea)
                                    wb = wp.dot(d, eb)
                                    wc = wp.dot(d, ec)
                                    if wa <= 0.0 and wb <= 0.0 and wc <= 0.0:
                                        t = (wa * p0[3] + wb * p1[3] + wc * p2[3]) / (wa + wb + wc)
                                        pixel = row * width + pixel_column
                                        if t > 0.0 and t <= depth[view, pixel] * _REACH:
                                            depth[view, pixel] = t
                                            nearest[view, pixel] = face


@wp.func
def _corner_normal(n: wp.vec3, face: wp.vec3) -> wp.vec3:
    """MuJoCo's rule: a corner's normal more than about 37 degrees off the triangle's is not used."""
    return wp.where(wp.dot(n, face) < 0.8, face, n)


@wp.func
def mesh_normal(mesh: Mesh, face: int, weights: wp.vec3) -> wp.vec3:
    """The normal at a point of a triangle, in the shape's frame, interpolated between its corners."""
    f = mesh.faces[face]
    a = mesh.vertices[f[0]]
    flat = wp.normalize(wp.cross(mesh.vertices[f[1]] - a, mesh.vertices[f[2]] - a))
    k = mesh.face_normals[face]
    if k[0] < 0:
        return flat
    return wp.normalize(
        weights[0] * _corner_normal(mesh.normals[k[0]], flat)
        + weights[1] * _corner_normal(mesh.normals[k[1]], flat)
        + weights[2] * _corner_normal(mesh.normals[k[2]], flat)
    )
