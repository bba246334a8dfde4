"""The model and the data of an environment that simulates with MuJoCo."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

# What a camera takes from a model once. What changes with the simulation is in `MjData`, and colours of geoms
# and sites are taken for every frame.
_DRAWN = (
    *("geom_type", "geom_dataid", "geom_matid", "geom_group", "geom_size"),
    *("site_type", "site_matid", "site_group", "site_size"),
    *("cam_projection", "cam_fovy", "cam_sensorsize", "cam_intrinsic"),
    *("light_active", "light_type", "light_attenuation", "light_exponent", "light_cutoff"),
    *("light_ambient", "light_diffuse"),
    *("mat_texid", "mat_texuniform", "mat_texrepeat", "mat_emission", "mat_rgba"),
    *("mesh_vert", "mesh_face", "mesh_normal", "mesh_facenormal", "mesh_texcoord", "mesh_facetexcoord"),
    *("hfield_size", "hfield_data", "tex_type", "tex_data"),
)
# Gymnasium's actions and observations, and names of ours, refer to these: a model may not change in them.
_COUNTS = ("ngeom", "nsite", "ncam", "nlight", "nbody", "nmesh", "nmat", "ntex")
_FAINT = 0.5  # alpha of a site, below which it is not drawn unless it is named
_DEFAULT_RGBA = np.array([0.5, 0.5, 0.5, 1.0], np.float32)


def simulation(env: gymnasium.Env[Any, Any]) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """The MuJoCo model and data of an environment.

    Args:
        env: an environment, wrapped or not.

    Raises:
        ValueError: the environment does not simulate with MuJoCo.
    """
    inner: Any = env.unwrapped
    if not has_simulation(env):
        raise ValueError(
            f"expected an environment with a MuJoCo `model` and `data`, got {type(inner).__name__}: cameras, "
            "targets, shifts and counterfactuals need MuJoCo; every other environment is trained on the "
            "frames that it renders itself"
        )
    return inner.model, inner.data


def has_simulation(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether an environment simulates with MuJoCo."""
    inner = env.unwrapped
    return isinstance(getattr(inner, "model", None), mujoco.MjModel) and isinstance(
        getattr(inner, "data", None), mujoco.MjData
    )


def control_step(env: gymnasium.Env[Any, Any]) -> float:
    """Duration of an environment's step, s: its `dt`, or 1 / render_fps, or the model's time step."""
    dt = getattr(env.unwrapped, "dt", None)
    if isinstance(dt, int | float) and dt > 0:
        return float(dt)
    fps = env.metadata.get("render_fps")
    return 1.0 / fps if fps else float(simulation(env)[0].opt.timestep)


def check_same_scene(model: mujoco.MjModel, other: mujoco.MjModel) -> None:
    """Check that two models have the same geoms, sites, cameras and lights, by number and by name.

    Raises:
        ValueError: they do not.
    """
    if model is other:
        return
    for count in _COUNTS:
        ours, theirs = getattr(model, count), getattr(other, count)
        if ours != theirs:
            raise ValueError(
                f"expected an environment whose model keeps its parts, got one that changed {count} from "
                f"{ours} to {theirs}: wrap each of its scenes by itself, or use renderer=opengl"
            )
    if model.names != other.names:
        raise ValueError(
            "expected an environment whose model keeps the names of its parts, got one that changed them: "
            "wrap each of its scenes by itself, or use renderer=opengl"
        )


def looks_equal(model: mujoco.MjModel, other: mujoco.MjModel) -> bool:
    """Whether a camera of one model draws the other too: all but the colours of geoms and sites is equal."""
    if model is other:
        return True
    head, other_head = model.vis.headlight, other.vis.headlight
    lit = head.active == other_head.active and all(
        np.array_equal(getattr(head, name), getattr(other_head, name)) for name in ("ambient", "diffuse")
    )
    return lit and all(np.array_equal(getattr(model, name), getattr(other, name)) for name in _DRAWN)


def given_colors(model: mujoco.MjModel) -> NDArray[np.float32]:
    """The colours that a model gives its geoms and its sites, float32 [ngeom + nsite, 4]."""
    return np.concatenate([model.geom_rgba, model.site_rgba])


def shown_colors(model: mujoco.MjModel, named: NDArray[np.int64]) -> NDArray[np.float32]:
    """The colours that geoms and sites are drawn in, those of their materials included: as `given_colors`.

    By MuJoCo's rule a geom of the default colour has its material's. As everything is drawn opaque, a geom or
    a site that is more transparent than opaque would hide what is behind it: it is invisible unless it is
    named.

    Args:
        model: the model.
        named: ids of what the user named.
    """
    colors = given_colors(model)
    material = np.concatenate([model.geom_matid, model.site_matid])
    of_material = (material >= 0) & (colors == _DEFAULT_RGBA).all(axis=1)
    colors[of_material] = model.mat_rgba[material[of_material]]
    faint = colors[:, 3] < _FAINT
    faint[named] = False
    colors[faint, 3] = 0.0
    return colors
