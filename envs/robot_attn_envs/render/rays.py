"""Where a ray meets a shape, and the shape's normal there: functions of one ray, in the shape's frame.

A ray starts at `o` and goes along `v`, which is not normalised: its parameter t is the depth along the
optical axis. The functions have no branches: called in a loop over the pixels of a row, they become vector
instructions. Only the side that a ray enters through counts, as in OpenGL with back faces culled.
"""

# Warp's type stubs do not cover what its types support inside a kernel.
# mypy: ignore-errors

from __future__ import annotations

import warp as wp

NEVER = wp.constant(1.0e30)


@wp.func
def _entry(a: float, b: float, d: float) -> float:
    """The smaller root of a t^2 + 2 b t + c = 0, for a > 0, from d = b^2 - a c.

    By Lagrange's identity d is a r^2 - |v x o|^2 for a ball of radius r. In single precision b^2 - a c would
    lose the outline of what is thin and far away.
    """
    return wp.where(d > 0.0, (-b - wp.sqrt(wp.max(d, 0.0))) / a, NEVER)


@wp.func
def hit_ball(o: wp.vec3, v: wp.vec3) -> float:
    """The unit ball: spheres and ellipsoids, divided by their radii."""
    a = wp.dot(v, v)
    k = wp.cross(v, o)
    return _entry(a, wp.dot(v, o), a - wp.dot(k, k))


@wp.func
def hit_capsule(o: wp.vec3, size: wp.vec3, v: wp.vec3) -> float:
    """A capsule along z, of radius size[0] and half length size[1] of its cylinder."""
    a = v[0] * v[0] + v[1] * v[1]
    b = v[0] * o[0] + v[1] * o[1]
    r2 = size[0] * size[0]
    k = v[0] * o[1] - v[1] * o[0]
    kk = k * k
    t = _entry(a, b, a * r2 - kk)
    side = wp.where(wp.abs(o[2] + t * v[2]) <= size[1], t, NEVER)
    a = a + v[2] * v[2]
    r2 = a * r2 - kk
    up = o[2] - size[1]
    down = o[2] + size[1]
    k0 = v[1] * up - v[2] * o[1]
    k1 = v[2] * o[0] - v[0] * up
    top = _entry(a, b + v[2] * up, r2 - k0 * k0 - k1 * k1)
    k0 = v[1] * down - v[2] * o[1]
    k1 = v[2] * o[0] - v[0] * down
    bottom = _entry(a, b + v[2] * down, r2 - k0 * k0 - k1 * k1)
    top = wp.where(up + top * v[2] >= 0.0, top, NEVER)
    bottom = wp.where(down + bottom * v[2] <= 0.0, bottom, NEVER)
    return wp.min(side, wp.min(top, bottom))


@wp.func
def hit_cylinder(o: wp.vec3, size: wp.vec3, v: wp.vec3) -> float:
    """A cylinder along z, of radius size[0] and half length size[1]."""
    a = v[0] * v[0] + v[1] * v[1]
    b = v[0] * o[0] + v[1] * o[1]
    r2 = size[0] * size[0]
    k = v[0] * o[1] - v[1] * o[0]
    t = _entry(a, b, a * r2 - k * k)
    side = wp.where(wp.abs(o[2] + t * v[2]) <= size[1], t, NEVER)
    cap = (wp.where(v[2] < 0.0, size[1], -size[1]) - o[2]) / v[2]
    x = o[0] + cap * v[0]
    y = o[1] + cap * v[1]
    return wp.min(side, wp.where(x * x + y * y <= r2, cap, NEVER))


@wp.func
def normal_round(p: wp.vec3, weight: wp.vec3, half: float) -> wp.vec3:
    """Spheres, ellipsoids (weight: 1 / radius^2) and capsules (half: half the length of the cylinder)."""
    n = wp.vec3(
        p[0] * weight[0],
        p[1] * weight[1],
        (p[2] - wp.min(wp.max(p[2], -half), half)) * weight[2],
    )
    return n * (1.0 / wp.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]))


@wp.func
def normal_box(p: wp.vec3, half: wp.vec3) -> wp.vec3:
    """The face that a point of the surface lies on."""
    e0 = wp.abs(p[0]) - half[0]
    e1 = wp.abs(p[1]) - half[1]
    e2 = wp.abs(p[2]) - half[2]
    x = wp.where(e0 >= e1 and e0 >= e2, 1.0, 0.0)
    y = wp.where(e1 > e0 and e1 >= e2, 1.0, 0.0)
    z = 1.0 - x - y
    return wp.vec3(wp.where(p[0] > 0.0, x, -x), wp.where(p[1] > 0.0, y, -y), wp.where(p[2] > 0.0, z, -z))


@wp.func
def normal_cylinder(p: wp.vec3, size: wp.vec3) -> wp.vec3:
    """The side or the cap that a point of the surface lies on."""
    rho = wp.sqrt(p[0] * p[0] + p[1] * p[1])
    side = wp.where(rho - size[0] >= wp.abs(p[2]) - size[1], 1.0 / rho, 0.0)
    cap = wp.where(side > 0.0, 0.0, 1.0)
    return wp.vec3(p[0] * side, p[1] * side, wp.where(p[2] > 0.0, cap, -cap))
