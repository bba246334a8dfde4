"""Contract tests of the private interfaces of mujoco_warp that the camera uses: each exists and works."""

import copy
import importlib.util
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import pytest
import warp as wp

from robot_attn_envs.compat.mujoco_warp import compiled_kernel, give_own_hierarchy, kernel_key, share_kernel

SCENE = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="eye" pos="0 0 2"/>
    <geom type="box" size=".3 .3 .1" rgba="1 0 0 1"/>
    <geom type="sphere" size=".2" pos=".5 0 0" rgba="0 1 0 1"/>
  </worldbody>
</mujoco>
"""
SIZE = 16
PARTS = (
    "_megakernel",
    "lower",
    "upper",
    "group",
    "group_root",
    "bvh",
    "bvh_id",
    "geom_ray_types",
    "total_rays",
    "rgb_data",
    "seg_data",
    "depth_data",
    "ray",
    "cam_id_map",
)


def scene(worlds: int) -> tuple[Any, Any, Any]:
    """The scene for mujoco_warp, and a context that draws one world of it."""
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    theirs = mjw.put_data(model, data, nworld=worlds, nconmax=1, njmax=1)
    context = mjw.create_render_context(
        model, nworld=1, cam_res=(SIZE, SIZE), cam_active=["eye"], render_rgb=True, render_seg=True
    )
    return mjw.put_model(model), theirs, context


@pytest.fixture(autouse=True)
def on_the_cpu() -> Any:
    with wp.ScopedDevice("cpu"):
        yield


@pytest.mark.parametrize("name", PARTS)
def test_a_render_context_still_has(name: str) -> None:
    assert hasattr(scene(1)[2], name), f"mujoco_warp's RenderContext has no {name}"


def test_mujoco_warp_still_has_compute_bvh_group_roots_in_src_bvh() -> None:
    name = "mujoco_warp._src.bvh"
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"there is no {name}"
    assert hasattr(importlib.import_module(name), "compute_bvh_group_roots"), (
        f"no compute_bvh_group_roots in {name}"
    )


def test_a_hierarchy_of_its_own_draws_every_world() -> None:
    model, data, context = scene(3)
    whole = _drawn(model, scene(1)[1], context, 1)
    own = copy.copy(context)
    give_own_hierarchy(own, 3, leaf_size=4)
    three = _drawn(model, data, own, 3)
    assert set(np.unique(whole)) == {-1, 0, 1}  # the sky and both geoms are in view
    np.testing.assert_array_equal(three, np.repeat(whole, 3, axis=0))
    assert len(context.group) == 2 and len(own.group) == 6  # the context that was copied is as it was


def _drawn(model: Any, data: Any, context: Any, worlds: int) -> np.ndarray:
    """Geom visible at each pixel, [worlds, pixels]."""
    context.rgb_data = wp.zeros((worlds, context.total_rays), dtype=wp.uint32)
    context.seg_data = wp.zeros((worlds, context.total_rays), dtype=wp.vec2i)
    mjw.refit_bvh(model, data, context)
    mjw.render(model, data, context)
    return context.seg_data.numpy()[..., 0]


def test_a_kernel_is_shared_between_contexts_of_one_key() -> None:
    model, data, context = scene(1)
    assert compiled_kernel(context) is None
    whole = _drawn(model, data, context, 1)
    kernel = compiled_kernel(context)
    assert kernel is not None
    _, _, other = scene(1)
    assert kernel_key(other) == kernel_key(context)
    share_kernel(other, kernel)
    np.testing.assert_array_equal(_drawn(model, data, other, 1), whole)
    assert compiled_kernel(other) is kernel  # no second kernel was compiled


def test_contexts_that_are_drawn_otherwise_have_other_keys() -> None:
    model = mujoco.MjModel.from_xml_string(SCENE)
    plain = {"use_shadows": False, "background_color": (0.0, 0.0, 0.0, 1.0)}
    others: list[dict[str, Any]] = [
        {"use_shadows": True},
        {"background_color": (1.0, 1.0, 1.0, 1.0)},
    ]
    keys = {
        kernel_key(
            mjw.create_render_context(
                model, nworld=1, cam_res=(SIZE, SIZE), cam_active=["eye"], **(plain | more)
            )
        )
        for more in ({}, {}, *others)
    }
    assert len(keys) == 3
