"""The kernel that draws: the nearest shape at each pixel, then its normal, texture and light."""

# Warp's type stubs do not cover what its types support inside a kernel.
# mypy: ignore-errors

from __future__ import annotations

import functools
from typing import Any

import warp as wp

from robot_attn_envs.render.meshes import SAME_DEPTH, Mesh, corner_weights, mesh_normal
from robot_attn_envs.render.pixels import (
    Colors,
    Floats,
    Ints,
    Output,
    reversed_color,
    store_colors,
    store_hits,
)
from robot_attn_envs.render.place import (
    BOX,
    CAPSULE,
    CYLINDER,
    ELLIPSOID,
    HEIGHT_FIELD,
    MODULE_OPTIONS,
    PLANE,
    SPHERE,
    TILE_HEIGHT,
    TILE_WIDTH,
    Rays,
    Shape,
)
from robot_attn_envs.render.rays import (
    NEVER,
    hit_ball,
    hit_capsule,
    hit_cylinder,
    normal_box,
    normal_cylinder,
    normal_round,
)
from robot_attn_envs.render.textures import (
    Atlas,
    cube_color,
    sky_color,
    solid_coordinates,
    wrapped,
)

_LANES = wp.constant(TILE_WIDTH)
_SPOT, _DIRECTIONAL = wp.constant(0), wp.constant(1)  # `mjtLightType`
# Of two shapes at the same depth the later is drawn, as with MuJoCo's depth test.
_TIE = wp.constant(1.0 - SAME_DEPTH)


@wp.struct
class Lights:
    """The scene's active lights."""

    index: wp.array[wp.int32]  # in the model
    kind: wp.array[wp.int32]
    attenuation: wp.array[wp.vec3]
    cone: wp.array[wp.vec2]  # cosine of the cutoff, exponent
    headlight: wp.vec3


@wp.struct
class Maps:
    """Where shapes take their texture from."""

    plane: wp.array[wp.vec4]  # factor and offset of u and v
    cube: wp.array[wp.vec3]  # factors of x, y and z


@wp.struct
class Face:
    """Linear functions of the pixel of a row, as value and slope: see `flat_face`."""

    q0: float
    dq: float
    a0: float
    da: float
    b0: float
    db: float
    u0: float
    du: float
    w0: float
    dw: float


@wp.func
def _packed(r: float, g: float, b: float) -> wp.uint32:
    """0xBBGGRR of a colour that is not negative."""
    red = int(wp.min(r, 1.0) * 255.0)
    green = int(wp.min(g, 1.0) * 255.0)
    blue = int(wp.min(b, 1.0) * 255.0)
    return wp.uint32((blue << 16) | (green << 8) | red)


@functools.cache
def draw_kernel(orthographic: bool) -> Any:
    """The drawing kernel for cameras with rays from one point, or for cameras with parallel rays."""

    @wp.func
    def start(o: wp.vec3, g: wp.mat33, x: float, y: float) -> wp.vec3:
        """Where the ray (x, y) starts, in the frame of a shape."""
        if wp.static(orthographic):
            return wp.vec3(
                o[0] + g[0, 0] * x + g[0, 1] * y,
                o[1] + g[1, 0] * x + g[1, 1] * y,
                o[2] + g[2, 0] * x + g[2, 1] * y,
            )
        else:
            return o

    @wp.func
    def along(g: wp.mat33, x: float, y: float) -> wp.vec3:
        """Where the ray (x, y) goes, in the frame of a shape."""
        if wp.static(orthographic):
            return wp.vec3(-g[0, 2], -g[1, 2], -g[2, 2])
        else:
            return wp.vec3(
                g[0, 0] * x + (g[0, 1] * y - g[0, 2]),
                g[1, 0] * x + (g[1, 1] * y - g[1, 2]),
                g[2, 0] * x + (g[2, 1] * y - g[2, 2]),
            )

    @wp.func
    def depth_inverse(value: float) -> float:
        if wp.static(orthographic):
            return 1.0 / value
        else:
            return value

    @wp.func
    def is_facing(o: wp.vec3, g: wp.mat33, size: wp.vec3, axis: int) -> bool:
        """Whether one of a box's two faces along an axis is turned to the eye."""
        if wp.static(orthographic):
            return g[axis, 2] != 0.0
        else:
            return wp.abs(o[axis]) > size[axis]

    @wp.func
    def flat_face(
        kind: int, axis: int, o: wp.vec3, g: wp.mat33, size: wp.vec3, x: float, y: float, dx: float
    ) -> Face:
        """Where the rays from (x, y) on, in steps of dx, meet a face of a box or a plane.

        With s the face's coordinate along its axis, a ray o + t v meets it at 1 / t = v / (s - o), within
        the face where |o / t + v| <= size / t along the other two axes: all linear in x, if rays start at
        one point.
        If they are parallel, t and o + t v are.
        """
        first = (axis + 1) % 3
        second = (axis + 2) % 3
        s = wp.where(o[axis] > 0.0, size[axis], -size[axis])
        long = size[first]
        wide = size[second]
        if kind == PLANE:
            s = 0.0
            long = wp.where(long > 0.0, long, NEVER)
            wide = wp.where(wide > 0.0, wide, NEVER)
        face = Face()
        if wp.static(orthographic):
            v = wp.vec3(-g[0, 2], -g[1, 2], -g[2, 2])
            if kind != PLANE:
                s = wp.where(v[axis] < 0.0, size[axis], -size[axis])
            p = wp.vec3(
                o[0] + g[0, 0] * x + g[0, 1] * y,
                o[1] + g[1, 0] * x + g[1, 1] * y,
                o[2] + g[2, 0] * x + g[2, 1] * y,
            )
            face.q0 = (s - p[axis]) / v[axis]
            face.dq = -g[axis, 0] * dx / v[axis]
            face.a0 = p[first] + face.q0 * v[first]
            face.da = g[first, 0] * dx + face.dq * v[first]
            face.b0 = p[second] + face.q0 * v[second]
            face.db = g[second, 0] * dx + face.dq * v[second]
            face.u0 = long
            face.w0 = wide
            if kind == PLANE and v[2] >= 0.0:
                face.u0 = -1.0  # from below
        else:
            v = wp.vec3(
                g[0, 0] * x + (g[0, 1] * y - g[0, 2]),
                g[1, 0] * x + (g[1, 1] * y - g[1, 2]),
                g[2, 0] * x + (g[2, 1] * y - g[2, 2]),
            )
            near = 1.0 / (s - o[axis])
            face.q0 = v[axis] * near
            face.dq = g[axis, 0] * dx * near
            face.a0 = o[first] * face.q0 + v[first]
            face.da = o[first] * face.dq + g[first, 0] * dx
            face.b0 = o[second] * face.q0 + v[second]
            face.db = o[second] * face.dq + g[second, 0] * dx
            face.u0 = long * face.q0
            face.du = long * face.dq
            face.w0 = wide * face.q0
            face.dw = wide * face.dq
        return face

    @wp.kernel(module="unique", module_options=MODULE_OPTIONS)
    def draw(
        shapes: wp.array2d[Shape],
        geoms: wp.array[wp.int32],
        tiles: wp.array3d[wp.int16],
        rays: wp.array[Rays],
        width: int,
        height: int,
        tiles_across: int,
        farthest: float,
        sky: int,
        skybox: int,
        geom_xmat: wp.array2d[wp.mat33],
        eye_xpos: wp.array2d[wp.vec3],
        eye_xmat: wp.array2d[wp.mat33],
        light_xpos: wp.array2d[wp.vec3],
        light_xdir: wp.array2d[wp.vec3],
        light_diffuse: wp.array2d[wp.vec3],
        lights: Lights,
        maps: Maps,
        atlas: Atlas,
        mesh: Mesh,
        mesh_depth: wp.array2d[wp.float32],
        mesh_face: wp.array2d[wp.int32],
        scenery: wp.array[wp.uint32],
        for_lens: int,
        packed: wp.array2d[Colors],
        output: Output,
    ) -> None:
        view, tile_row, tile_column = wp.tid()
        cameras = rays.shape[0]
        world = view // cameras
        camera = view - world * cameras
        tile = tile_row * tiles_across + tile_column
        count = int(tiles[view, tile, 0])
        first = tile_column * TILE_WIDTH
        lanes = wp.min(TILE_WIDTH, width - first)
        lens = rays[camera]
        dx = lens.x[0]
        x0 = lens.x[0] * float(first) + lens.x[1]
        eye = eye_xmat[world, camera]
        back = wp.vec3(eye[0, 2], eye[1, 2], eye[2, 2])
        meshes = mesh.ranges.shape[0]
        # A thread draws the rows of a tile: what Warp does before a thread costs as much as a row.
        for row in range(tile_row * TILE_HEIGHT, wp.min((tile_row + 1) * TILE_HEIGHT, height)):
            line = float(row)
            y = lens.y[0] * line + lens.y[1]
            start_pixel = row * width + first

            # The nearest shape, by inverse depth: of flat faces it is linear along the row.
            best = Floats(1.0 / farthest)
            who = Ints(-1)
            if meshes > 0:
                for j in range(lanes):
                    best[j] = 1.0 / mesh_depth[view, start_pixel + j]
                    face = mesh_face[view, start_pixel + j]
                    if face >= 0:
                        who[j] = mesh.face_shape[face]
            for k in range(1, count + 1):
                i = int(tiles[view, tile, k])
                if shapes[view, i].top <= line and shapes[view, i].bottom >= line:
                    o = shapes[view, i].o
                    g = shapes[view, i].g
                    s = shapes[view, i].size
                    kind = shapes[view, i].kind
                    plane = kind == PLANE
                    sphere = kind == SPHERE
                    if plane or kind == BOX:
                        for axis in range(3):
                            facing = is_facing(o, g, s, axis)
                            if plane:
                                facing = axis == 2
                            if facing:
                                flat = flat_face(kind, axis, o, g, s, x0, y, dx)
                                for j in range(_LANES):
                                    q = depth_inverse(flat.q0 + flat.dq * float(j))
                                    inside = wp.abs(
                                        flat.a0 + flat.da * float(j)
                                    ) <= flat.u0 + flat.du * float(j) and wp.abs(
                                        flat.b0 + flat.db * float(j)
                                    ) <= flat.w0 + flat.dw * float(j)
                                    q = wp.where(inside, q, 0.0)
                                    who[j] = wp.where(q >= best[j] * _TIE, i, who[j])
                                    best[j] = wp.max(best[j], q)
                    elif sphere or kind == ELLIPSOID:
                        radii = wp.where(sphere, wp.vec3(s[0], s[0], s[0]), s)
                        r = wp.vec3(1.0 / radii[0], 1.0 / radii[1], 1.0 / radii[2])
                        scaled = wp.diag(r) * g
                        origin = wp.cw_mul(o, r)
                        # Here and below `max` and `abs` change no value. Without them the compiler writes
                        # only those that win, by a masked store, which takes many times as long.
                        for j in range(_LANES):
                            x = x0 + dx * float(j)
                            q = 1.0 / hit_ball(start(origin, scaled, x, y), along(scaled, x, y))
                            who[j] = wp.max(wp.where(q >= best[j] * _TIE, i, who[j]), -1)
                            best[j] = wp.abs(wp.where(q > best[j], q, best[j]))
                    elif kind == CAPSULE:
                        for j in range(_LANES):
                            x = x0 + dx * float(j)
                            q = 1.0 / hit_capsule(start(o, g, x, y), s, along(g, x, y))
                            who[j] = wp.max(wp.where(q >= best[j] * _TIE, i, who[j]), -1)
                            best[j] = wp.abs(wp.where(q > best[j], q, best[j]))
                    else:
                        for j in range(_LANES):
                            x = x0 + dx * float(j)
                            q = 1.0 / hit_cylinder(start(o, g, x, y), s, along(g, x, y))
                            who[j] = wp.max(wp.where(q >= best[j] * _TIE, i, who[j]), -1)
                            best[j] = wp.abs(wp.where(q > best[j], q, best[j]))
            if meshes > 0:  # of shapes at the same depth the last is drawn, be it a mesh or not
                for j in range(lanes):
                    face = mesh_face[view, start_pixel + j]
                    if face >= 0:
                        i = mesh.face_shape[face]
                        q = 1.0 / mesh_depth[view, start_pixel + j]
                        if i > who[j] and q >= best[j] * _TIE:
                            best[j] = q
                            who[j] = i
            for j in range(_LANES):
                best[j] = 1.0 / best[j]

            # Its normal in the world's frame, its colour, and how bright it is without any light on it.
            nx = Floats(0.0)
            ny = Floats(0.0)
            nz = Floats(0.0)
            cr = Floats(0.0)
            cg = Floats(0.0)
            cb = Floats(0.0)
            lr = Floats(0.0)
            lg = Floats(0.0)
            lb = Floats(0.0)
            ids = Ints(-1)
            painted = Colors(wp.uint32(0))
            for k in range(1, count + 1):
                i = int(tiles[view, tile, k])
                hits = wp.int32(0)
                for j in range(_LANES):
                    hits = hits | wp.where(who[j] == i, 1, 0)
                if hits != 0:
                    o = shapes[view, i].o
                    g = shapes[view, i].g
                    s = shapes[view, i].size
                    kind = shapes[view, i].kind
                    color = shapes[view, i].color
                    glow = shapes[view, i].glow
                    texture = shapes[view, i].texture
                    geom = geoms[i]
                    is_scenery = scenery[geom + 1]
                    turn = geom_xmat[world, geom]
                    for j in range(_LANES):
                        own = who[j] == i
                        ids[j] = ids[j] + wp.where(own, geom + 1, 0)
                        painted[j] = painted[j] + wp.where(own, is_scenery, wp.uint32(0))
                        cr[j] = cr[j] + wp.where(own, color[0], 0.0)
                        cg[j] = cg[j] + wp.where(own, color[1], 0.0)
                        cb[j] = cb[j] + wp.where(own, color[2], 0.0)
                        lr[j] = lr[j] + wp.where(own, glow[0], 0.0)
                        lg[j] = lg[j] + wp.where(own, glow[1], 0.0)
                        lb[j] = lb[j] + wp.where(own, glow[2], 0.0)
                    if kind == PLANE:
                        for j in range(_LANES):
                            own = who[j] == i
                            nx[j] = nx[j] + wp.where(own, turn[0, 2], 0.0)
                            ny[j] = ny[j] + wp.where(own, turn[1, 2], 0.0)
                            nz[j] = nz[j] + wp.where(own, turn[2, 2], 0.0)
                    elif kind == BOX:
                        for j in range(_LANES):
                            x = x0 + dx * float(j)
                            n = turn * normal_box(start(o, g, x, y) + best[j] * along(g, x, y), s)
                            own = who[j] == i
                            nx[j] = nx[j] + wp.where(own, n[0], 0.0)
                            ny[j] = ny[j] + wp.where(own, n[1], 0.0)
                            nz[j] = nz[j] + wp.where(own, n[2], 0.0)
                    elif kind == CYLINDER:
                        for j in range(_LANES):
                            x = x0 + dx * float(j)
                            n = turn * normal_cylinder(start(o, g, x, y) + best[j] * along(g, x, y), s)
                            own = who[j] == i
                            nx[j] = nx[j] + wp.where(own, n[0], 0.0)
                            ny[j] = ny[j] + wp.where(own, n[1], 0.0)
                            nz[j] = nz[j] + wp.where(own, n[2], 0.0)
                    else:
                        weight = wp.vec3(1.0, 1.0, 1.0)
                        if kind == ELLIPSOID:
                            weight = wp.vec3(1.0 / (s[0] * s[0]), 1.0 / (s[1] * s[1]), 1.0 / (s[2] * s[2]))
                        long = wp.where(kind == CAPSULE, s[1], 0.0)
                        for j in range(_LANES):
                            x = x0 + dx * float(j)
                            n = turn * normal_round(
                                start(o, g, x, y) + best[j] * along(g, x, y), weight, long
                            )
                            own = who[j] == i
                            nx[j] = nx[j] + wp.where(own, n[0], 0.0)
                            ny[j] = ny[j] + wp.where(own, n[1], 0.0)
                            nz[j] = nz[j] + wp.where(own, n[2], 0.0)
                    if texture >= 0:
                        texels = atlas.texels
                        begin = atlas.start[texture]
                        across = atlas.width[texture]
                        down = atlas.height[texture]
                        if atlas.cube[texture]:
                            scale = maps.cube[i]
                            for j in range(_LANES):
                                x = x0 + dx * float(j)
                                p = start(o, g, x, y) + best[j] * along(g, x, y)
                                own = who[j] == i
                                # Elsewhere the point can be anywhere, and has no texel.
                                d = wp.vec3(
                                    wp.where(own, p[0] * scale[0], 1.0),
                                    wp.where(own, p[1] * scale[1], 0.0),
                                    wp.where(own, p[2] * scale[2], 0.0),
                                )
                                c = cube_color(texels, begin, across, down, d)
                                cr[j] = cr[j] * wp.where(own, c[0], 1.0)
                                cg[j] = cg[j] * wp.where(own, c[1], 1.0)
                                cb[j] = cb[j] * wp.where(own, c[2], 1.0)
                        elif kind == PLANE:
                            m = maps.plane[i]
                            for j in range(_LANES):
                                x = x0 + dx * float(j)
                                p = start(o, g, x, y) + best[j] * along(g, x, y)
                                own = who[j] == i
                                u = wp.where(own, m[0] * p[0] + m[2], 0.0)
                                v = wp.where(own, m[1] * p[1] + m[3], 0.0)
                                c = wrapped(texels, begin, across, down, u, v)
                                cr[j] = cr[j] * wp.where(own, c[0], 1.0)
                                cg[j] = cg[j] * wp.where(own, c[1], 1.0)
                                cb[j] = cb[j] * wp.where(own, c[2], 1.0)
                        else:
                            m = maps.plane[i]
                            radii = wp.where(kind == SPHERE, wp.vec3(s[0], s[0], s[0]), s)
                            for j in range(_LANES):
                                if who[j] == i:
                                    x = x0 + dx * float(j)
                                    p = start(o, g, x, y) + best[j] * along(g, x, y)
                                    n = wp.transpose(turn) * wp.vec3(nx[j], ny[j], nz[j])
                                    uv = solid_coordinates(kind, radii, p, n)
                                    c = wrapped(
                                        texels, begin, across, down, m[0] * uv[0] + m[2], m[1] * uv[1] + m[3]
                                    )
                                    cr[j] = cr[j] * c[0]
                                    cg[j] = cg[j] * c[1]
                                    cb[j] = cb[j] * c[2]
            if meshes > 0:
                for j in range(lanes):
                    i = who[j]
                    if i >= 0:
                        kind = shapes[view, i].kind
                        if kind > BOX or kind == HEIGHT_FIELD:
                            x = x0 + dx * float(j)
                            face = mesh_face[view, start_pixel + j]
                            weights = corner_weights(
                                mesh, face, shapes[view, i], lens.orthographic, wp.vec3(x, y, -1.0)
                            )
                            ids[j] = geoms[i]
                            painted[j] = scenery[geoms[i] + 1]
                            n = geom_xmat[world, geoms[i]] * mesh_normal(mesh, face, weights)
                            nx[j] = n[0]
                            ny[j] = n[1]
                            nz[j] = n[2]
                            c = shapes[view, i].color
                            texture = shapes[view, i].texture
                            if texture >= 0:
                                o = shapes[view, i].o
                                g = shapes[view, i].g
                                p = start(o, g, x, y) + best[j] * along(g, x, y)
                                texel = wp.vec3(1.0, 1.0, 1.0)
                                m = maps.plane[i]
                                corners = mesh.face_uv[face]
                                if atlas.cube[texture]:
                                    texel = cube_color(
                                        atlas.texels,
                                        atlas.start[texture],
                                        atlas.width[texture],
                                        atlas.height[texture],
                                        wp.cw_mul(p, maps.cube[i]),
                                    )
                                else:
                                    # Without coordinates: MuJoCo's projection along z.
                                    uv = wp.vec2(0.5 * m[2] * p[0] - 0.5, -0.5 * m[3] * p[1] - 0.5)
                                    if kind == HEIGHT_FIELD:
                                        uv = wp.vec2(m[0] * p[0] + m[2], m[1] * p[1] + m[3])
                                    elif corners[0] >= 0:
                                        uv = (
                                            weights[0] * mesh.uv[corners[0]]
                                            + weights[1] * mesh.uv[corners[1]]
                                            + weights[2] * mesh.uv[corners[2]]
                                        )
                                        uv = wp.vec2(m[0] * uv[0], m[1] * uv[1])
                                    texel = wrapped(
                                        atlas.texels,
                                        atlas.start[texture],
                                        atlas.width[texture],
                                        atlas.height[texture],
                                        uv[0],
                                        uv[1],
                                    )
                                c = wp.cw_mul(c, texel)
                            cr[j] = c[0]
                            cg[j] = c[1]
                            cb[j] = c[2]
                            lr[j] = shapes[view, i].glow[0]
                            lg[j] = shapes[view, i].glow[1]
                            lb[j] = shapes[view, i].glow[2]

            # The light on it.
            for j in range(_LANES):
                cosine = wp.max(nx[j] * back[0] + ny[j] * back[1] + nz[j] * back[2], 0.0)
                lr[j] = lr[j] + lights.headlight[0] * cosine
                lg[j] = lg[j] + lights.headlight[1] * cosine
                lb[j] = lb[j] + lights.headlight[2] * cosine
            for k in range(lights.index.shape[0]):
                light = lights.index[k]
                diffuse = light_diffuse[world, light]
                toward = -light_xdir[world, light]
                if lights.kind[k] == _DIRECTIONAL:
                    for j in range(_LANES):
                        cosine = wp.max(nx[j] * toward[0] + ny[j] * toward[1] + nz[j] * toward[2], 0.0)
                        lr[j] = lr[j] + diffuse[0] * cosine
                        lg[j] = lg[j] + diffuse[1] * cosine
                        lb[j] = lb[j] + diffuse[2] * cosine
                else:
                    place = light_xpos[world, light] - eye_xpos[world, camera]
                    fade = lights.attenuation[k]
                    spot = lights.kind[k] == _SPOT
                    edge = wp.where(spot, lights.cone[k][0], -2.0)
                    power = lights.cone[k][1]
                    for j in range(_LANES):
                        x = x0 + dx * float(j)
                        to = place - (start(wp.vec3(), eye, x, y) + best[j] * along(eye, x, y))
                        away = wp.sqrt(to[0] * to[0] + to[1] * to[1] + to[2] * to[2])
                        near = 1.0 / wp.max(away, 1.0e-9)
                        cosine = wp.max(nx[j] * to[0] + ny[j] * to[1] + nz[j] * to[2], 0.0) * near
                        within = (to[0] * toward[0] + to[1] * toward[1] + to[2] * toward[2]) * near
                        reach = fade[0] + away * (fade[1] + away * fade[2])
                        dim = wp.where(within >= edge, cosine / wp.max(reach, 1.0e-9), 0.0)
                        if spot:
                            dim = dim * wp.pow(wp.max(within, 0.0), power)
                        lr[j] = lr[j] + diffuse[0] * dim
                        lg[j] = lg[j] + diffuse[1] * dim
                        lb[j] = lb[j] + diffuse[2] * dim
            code = Colors(wp.uint32(sky))
            if skybox >= 0:
                for j in range(_LANES):
                    if who[j] < 0:
                        d = along(eye, x0 + dx * float(j), y)
                        c = sky_color(atlas, skybox, d)
                        code[j] = _packed(c[0], c[1], c[2])
            for j in range(_LANES):
                lit = _packed(cr[j] * lr[j], cg[j] * lg[j], cb[j] * lb[j])
                # All of its bits: see `max` and `abs` above.
                code[j] = wp.where(who[j] >= 0, lit, code[j]) & wp.uint32(0xFFFFFF)

            # The pixels.
            if output.with_depth != 0:
                for j in range(_LANES):
                    best[j] = wp.where(who[j] >= 0, best[j], 0.0)
            store_hits(output, ids, best, lanes, view, start_pixel)
            if for_lens != 0:
                for j in range(_LANES):
                    flag = wp.where(who[j] >= 0, painted[j], wp.uint32(1))
                    code[j] = reversed_color(code[j]) | (flag << wp.uint32(24))
                packed[view, row * tiles_across + tile_column] = code
            else:
                store_colors(output, code, lanes, view, start_pixel)

    return draw
