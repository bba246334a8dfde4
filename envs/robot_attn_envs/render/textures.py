"""Texture coordinates and texels, by MuJoCo's conventions, inside kernels."""

# Warp's type stubs do not cover what its types support inside a kernel.
# mypy: ignore-errors

from __future__ import annotations

import warp as wp

from robot_attn_envs.render.place import BOX, CAPSULE, CYLINDER

_TURN = wp.constant(0.15915494309189535)  # turns in a radian


@wp.struct
class Atlas:
    """All textures: 0xBBGGRR, one after the other."""

    texels: wp.array[wp.uint32]
    start: wp.array[wp.int32]
    width: wp.array[wp.int32]
    height: wp.array[wp.int32]
    cube: wp.array[wp.bool]


@wp.func
def _channel(texel: wp.uint32, shift: wp.uint32) -> float:
    return float(int((texel >> shift) & wp.uint32(255)))


@wp.func
def bilinear(texels: wp.array[wp.uint32], start: int, width: int, height: int, u: float, v: float) -> wp.vec3:
    """The colour in [0, 1] at (u, v) in texels, clamped at the edges."""
    u = wp.max(wp.min(u - 0.5, float(width - 1)), 0.0)
    v = wp.max(wp.min(v - 0.5, float(height - 1)), 0.0)
    column = int(wp.min(u, float(wp.max(width - 2, 0))))
    row = int(wp.min(v, float(wp.max(height - 2, 0))))
    right = wp.min(width - 1, 1)
    below = wp.min(height - 1, 1) * width
    fu = u - float(column)
    fv = v - float(row)
    here = start + row * width + column
    # The stride of an array that is made here is known to the compiler: no index is multiplied by it.
    dense = wp.array(ptr=texels.ptr, shape=(1,), dtype=wp.uint32)
    a = dense[here]
    b = dense[here + right]
    c = dense[here + below]
    d = dense[here + below + right]
    wa = (1.0 - fu) * (1.0 - fv)
    wb = fu * (1.0 - fv)
    wc = (1.0 - fu) * fv
    wd = fu * fv
    red = wp.uint32(0)
    green = wp.uint32(8)
    blue = wp.uint32(16)
    return wp.vec3(
        wa * _channel(a, red) + wb * _channel(b, red) + wc * _channel(c, red) + wd * _channel(d, red),
        wa * _channel(a, green) + wb * _channel(b, green) + wc * _channel(c, green) + wd * _channel(d, green),
        wa * _channel(a, blue) + wb * _channel(b, blue) + wc * _channel(c, blue) + wd * _channel(d, blue),
    ) * (1.0 / 255.0)


@wp.func
def wrapped(texels: wp.array[wp.uint32], start: int, width: int, height: int, u: float, v: float) -> wp.vec3:
    """The colour of a texture that repeats after u, v = 1."""
    return bilinear(
        texels, start, width, height, (u - wp.floor(u)) * float(width), (v - wp.floor(v)) * float(height)
    )


@wp.func
def cube_color(texels: wp.array[wp.uint32], start: int, width: int, height: int, d: wp.vec3) -> wp.vec3:
    """The colour of a cube in a direction, by the faces +x, -x, +y, -y, +z, -z of OpenGL.

    A square texture is that of every face.
    """
    x = wp.abs(d[0])
    y = wp.abs(d[1])
    z = wp.abs(d[2])
    on_x = x >= y and x >= z
    on_y = y >= z
    face = wp.where(
        on_x,
        wp.where(d[0] > 0.0, 0, 1),
        wp.where(on_y, wp.where(d[1] > 0.0, 2, 3), wp.where(d[2] > 0.0, 4, 5)),
    )
    across = wp.where(
        on_x, wp.where(d[0] > 0.0, -d[2], d[2]), wp.where(on_y, d[0], wp.where(d[2] > 0.0, d[0], -d[0]))
    )
    down = wp.where(on_x, -d[1], wp.where(on_y, wp.where(d[1] > 0.0, d[2], -d[2]), -d[1]))
    far = wp.where(on_x, x, wp.where(on_y, y, z))
    far = wp.max(far, 1.0e-12)
    side = float(width)
    u = (across / far + 1.0) * 0.5 * side
    v = (down / far + 1.0) * 0.5 * side
    face = wp.where(height == width, 0, face)
    return bilinear(texels, start + face * width * width, width, width, u, v)


@wp.func
def sky_color(atlas: Atlas, texture: int, d: wp.vec3) -> wp.vec3:
    """The sky box in a direction of the world; MuJoCo's is turned by 90 degrees about x."""
    turned = wp.vec3(d[0], d[2], -d[1])
    return cube_color(atlas.texels, atlas.start[texture], atlas.width[texture], atlas.height[texture], turned)


@wp.func
def solid_coordinates(kind: int, size: wp.vec3, p: wp.vec3, n: wp.vec3) -> wp.vec2:
    """Texture coordinates in [0, 1] of a point p with normal n on a solid."""
    turn = wp.atan2(p[1], p[0]) * _TURN
    turn = wp.where(turn < 0.0, turn + 1.0, turn)
    if kind == BOX:  # projected through it: opposite faces are mirror images
        ahead = wp.abs(n)
        x = 0.5 + p[0] / (2.0 * size[0])
        y = p[1] / (2.0 * size[1])
        z = 0.5 - p[2] / (2.0 * size[2])
        if ahead[2] >= ahead[0] and ahead[2] >= ahead[1]:
            return wp.vec2(x, 0.5 - y)
        if ahead[0] >= ahead[1]:
            return wp.vec2(0.5 + y, z)
        return wp.vec2(x, z)
    if kind == CYLINDER:
        if wp.abs(n[2]) > 0.7071:
            return wp.vec2(0.5 + 0.5 * p[0] / size[0], 0.5 + 0.5 * p[1] / size[0])
        return wp.vec2(turn, 0.5 - 0.5 * p[2] / size[1])
    if kind == CAPSULE:
        if wp.abs(p[2]) > size[1]:
            up = wp.asin(wp.clamp((wp.abs(p[2]) - size[1]) / size[0], 0.0, 1.0)) * 4.0 * _TURN
            return wp.vec2(turn, wp.where(p[2] > 0.0, 1.0 - up, up))
        return wp.vec2(turn, 0.5 - 0.5 * p[2] / size[1])
    # A sphere or an ellipsoid: azimuth and elevation on the unit sphere.
    d = wp.normalize(wp.cw_div(p, size))
    turn = wp.atan2(d[1], d[0]) * _TURN
    turn = wp.where(turn < 0.0, turn + 1.0, turn)
    return wp.vec2(turn, 0.5 - wp.asin(wp.clamp(d[2], -1.0, 1.0)) * 2.0 * _TURN)
