"""Frames of the tiled renderer against those of mujoco_warp's ray caster and of OpenGL.

Where two surfaces meet, rounding decides which a ray hits: few pixels differ. The bounds are at most a few
times what was measured. A colour is another if it differs by more than 2 of 255. Of 3.9 million pixels of the
tasks 8 show another geom, and 49 another colour, through lenses that blur; of 0.8 million of Gymnasium's
models 5 show another geom, not counting limbs that overlap at the same depth, and 9 another colour.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray

from robot_attn_envs.render.camera import KINEMATICS, BatchCamera
from robot_attn_envs.shifts import SHIFTS, SUITES
from robot_attn_envs.tasks.navigate import Navigate
from robot_attn_envs.tasks.push import Push
from robot_attn_envs.tasks.reach import Reach
from robot_attn_envs.tasks.task import Task
from robot_attn_envs.tasks.track import Track
from robot_attn_envs.worlds import Worlds

TASKS: dict[str, type[Task]] = {"track": Track, "push": Push, "reach": Reach, "navigate": Navigate}
OPTIONS: list[dict[str, Any]] = [
    {},
    *({"shift": name, "intensity": 1.0} for name in SHIFTS),
    *({"suite": name} for name in SUITES),
]
RGB = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)


@dataclasses.dataclass
class Difference:
    """Pixels that differ between frames: in all, geom ids, ids at other depths, depths, colours."""

    pixels: int = 0
    ids: int = 0
    outlines: int = 0
    depth: int = 0
    rgb: int = 0
    rounded: int = 0

    def add(self, ours: BatchCamera, reference: BatchCamera) -> None:
        assert ours.depth is not None and reference.depth is not None
        off = np.abs(ours.rgb.astype(int) - reference.rgb).max(axis=-1)
        same_id = ours.geom_id == reference.geom_id
        same_depth = np.abs(ours.depth - reference.depth) <= 1e-4 * reference.depth
        self.pixels += off.size
        self.ids += int((~same_id).sum())
        self.outlines += int((~same_id & ~same_depth).sum())
        self.depth += int((same_id & ~same_depth).sum())
        self.rgb += int((off > 2).sum())
        self.rounded += int((off > 0).sum())


def played(task: str, size: int | tuple[int, int], worlds: int, options: dict[str, Any]) -> Difference:
    """Differences between the frames of both renderers while the oracle plays, with noise."""
    own = Worlds(TASKS[task], worlds, image_size=size, threads=1, depth=True, **options)
    own.seed(range(worlds))
    own.reset(np.arange(worlds))
    reference = BatchCamera(
        own.model,
        worlds,
        own.task.camera,
        own.image_size,
        threads=1,
        depth=True,
        renderer="mujoco_warp",
        lens=own.shifts.lens,
    )
    rng, found = np.random.default_rng(0), Difference()
    shape = (worlds, *own.action_space.shape)
    for _ in range(4):
        for _ in range(5):
            own.step(np.clip(own.oracle() + rng.normal(0, 0.5, shape), -1, 1).astype(np.float32))
        own.render()
        reference.geom_rgba[:] = own.camera.geom_rgba
        reference.render(own.shifts.apply(own._kinematics, own.steps), recolor=True)
        found.add(own.camera, reference)
        assert len(np.unique(own.camera.geom_id)) > 3
    own.close()
    return found


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("task", TASKS)
def test_tasks_look_as_in_the_reference(task: str, options: dict[str, Any]) -> None:
    found = played(task, 64, 4, options)
    assert found.pixels == 65536
    # At most 2, 1 and 15 were measured; a blurred frame has nine pixels for one that differs.
    assert found.ids <= 4 and found.depth <= 4 and found.rgb <= 4 * 9
    assert found.rounded <= 1.5e-3 * found.pixels  # 0.8e-3 was measured


@pytest.mark.parametrize("size", [84, (33, 47), 128], ids=str)
@pytest.mark.parametrize("task", TASKS)
def test_frames_of_any_size_look_as_in_the_reference(task: str, size: int | tuple[int, int]) -> None:
    found = played(task, size, 2, {"suite": "hard"})
    # At most 2, 2 and 22 were measured; the blur of larger frames is wider.
    assert found.ids <= 4 and found.depth <= 4 and found.rgb <= 4 * 25
    assert found.rounded <= 1.5e-3 * found.pixels


ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
NAMES = (
    "ant",
    "half_cheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "point",
    "pusher_v5",
    "reacher",
    "swimmer",
    "walker2d_v5",
)


def gym_model(name: str) -> mujoco.MjModel:
    """A model of Gymnasium with one more camera."""
    spec = mujoco.MjSpec.from_file(str(ASSETS / f"{name}.xml"))
    spec.worldbody.add_camera(name="visitor")
    return spec.compile()


def from_around(model: mujoco.MjModel, views: int) -> dict[str, NDArray[np.float64]]:
    """Kinematics of a model that moves at random, with the camera somewhere above and around it."""
    data, rng, eye = mujoco.MjData(model), np.random.default_rng(0), model.camera("visitor").id
    several = []
    for _ in range(views):
        data.ctrl[:] = rng.uniform(-1, 1, model.nu)
        mujoco.mj_step(model, data, 20)
        azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 1.0)
        back = np.array(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
        )
        right = np.cross([0.0, 0.0, 1.0], back)
        right /= np.linalg.norm(right)
        values = {name: getattr(data, name).copy() for name in KINEMATICS}
        away = model.stat.extent * rng.uniform(0.4, 1.2)
        values["cam_xpos"][eye] = data.subtree_com[1] + away * back
        values["cam_xmat"][eye] = np.stack([right, np.cross(back, right), back], axis=1).ravel()
        several.append(values)
    return {name: np.stack([values[name] for values in several]) for name in KINEMATICS}


@pytest.mark.filterwarnings("ignore:compiler attribute 'settotalmass' is deprecated")
@pytest.mark.parametrize("name", NAMES)
def test_models_of_gymnasium_look_as_in_the_reference(name: str) -> None:
    model = gym_model(name)
    kinematics = from_around(model, 8)
    # mujoco_warp knows neither the humanoid's solver nor cubes, which it reads as flat textures.
    model.opt.solver = int(mujoco.mjtSolver.mjSOL_NEWTON)
    for material in range(model.nmat):
        texture = model.mat_texid[material, RGB]
        if texture >= 0 and model.tex_type[texture] != int(mujoco.mjtTexture.mjTEXTURE_2D):
            model.mat_texid[material, RGB] = -1
    for size in ((84, 84), (33, 47)):
        found, cameras = Difference(), []
        for renderer in ("tiled", "mujoco_warp"):
            camera = BatchCamera(model, 8, "visitor", size, threads=1, depth=True, renderer=renderer)
            camera.render(kinematics)
            cameras.append(camera)
        found.add(*cameras)
        assert (cameras[0].geom_id >= 0).mean() > 0.05
        # Of 56,448 pixels 31 were measured where limbs overlap at the same depth, of the others 2.
        assert found.ids <= 60 and found.outlines <= 4 and found.depth <= 4 and found.rgb <= 4
        assert found.rounded <= 5e-3 * found.pixels  # 2.2e-3 was measured


# ---------------------------------------------------------------- OpenGL


# In a process with OpenGL of its own: which library MuJoCo uses is settled when it is imported.
OPENGL = """
import sys, mujoco, numpy as np
for name in sys.argv[1:]:
    model = mujoco.MjModel.from_binary_path(name)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, 96, 96) as renderer:
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = 0
        renderer.update_scene(data, camera="eye")
        np.save(name + ".npy", renderer.render())
"""


def _opengl(files: list[str]) -> bool:
    """Let MuJoCo draw saved models; False without OpenGL."""
    done = subprocess.run(
        [sys.executable, "-c", OPENGL, *files], capture_output=True, env=os.environ | {"MUJOCO_GL": "egl"}
    )
    return done.returncode == 0


SOLIDS = {
    "box": 'type="box" size="0.3 0.2 0.4"',
    "sphere": 'type="sphere" size="0.4"',
    "ellipsoid": 'type="ellipsoid" size="0.4 0.3 0.2"',
    "capsule": 'type="capsule" size="0.2 0.2"',
    "cylinder": 'type="cylinder" size="0.3 0.25"',
    "mesh": 'type="mesh" mesh="tent"',
    "sheet": 'type="mesh" mesh="sheet" contype="0" conaffinity="0"',
    "hfield": 'type="hfield" hfield="hills"',
    "plane": 'type="plane" size="0.4 0.5 1"',
    "strip": 'type="plane" size="0 0.5 1"',
    "ground": 'type="plane" size="0 0 1"',
}
FLAT = ("plane", "strip", "ground", "hfield", "sheet")
GL_SCENE = """
<mujoco>
  <statistic extent="2" center="0 0 0"/>
  <visual>
    <headlight ambient="0.5 0.5 0.5" diffuse="0.4 0.4 0.4" specular="0 0 0"/>
    <quality offsamples="0" shadowsize="0" numslices="128" numstacks="64"/>
  </visual>
  <asset>
    <texture name="cube" type="cube" builtin="flat" width="32" height="192"/>
    <texture name="flat" type="2d" builtin="flat" width="64" height="64"/>
    <texture name="sky" type="skybox" builtin="flat" width="32" height="192"/>
    <material name="m" texture="{texture}" texrepeat="1.4 0.8" texuniform="{uniform}" specular="0"/>
    <mesh name="tent" vertex="-.3 -.3 -.2 .3 -.3 -.2 .3 .3 -.2 -.3 .3 -.2 0 0 .4"/>
    <mesh name="sheet" inertia="shell" vertex="-.3 -.4 0 .5 -.4 0 .5 .4 0 -.3 .4 0" face="0 1 2 0 2 3"
      texcoord="0 0 0.5 0 0.5 0.3 0 0.3"/>
    <hfield name="hills" nrow="4" ncol="5" size="0.4 0.3 0.2 0.1"
      elevation="0 1 0 0 0  0 0 1 1 0  1 0 0 0 .4  0 .2 .4 .6 .8"/>
  </asset>
  <worldbody>
    <body pos="0.2 0.1 0.3" euler="10 20 30">
      <camera name="eye" fovy="50"/>
      <geom {geom} material="m" pos="0 0 -1.4" quat="{turn}"/>
    </body>
  </worldbody>
</mujoco>"""


def _paint(model: mujoco.MjModel) -> None:
    """Textures without edges and seams: OpenGL blurs what is small on the screen."""

    def fill(name: str, pixels: NDArray[np.float64]) -> None:
        texture = model.texture(name).id
        start = model.tex_adr[texture]
        model.tex_data[start : start + pixels.size] = np.round(pixels.ravel()).astype(np.uint8)

    row, column = (np.mgrid[:64, :64] + 0.5) / 64 * 2 * np.pi
    fill("flat", 128 + 90 * np.stack([np.sin(column), np.cos(row), np.sin(column + row + 1)], axis=-1))
    t, s = (np.mgrid[:32, :32] + 0.5) / 16 - 1
    one = np.ones_like(s)
    # Directions of the texels of OpenGL's faces.
    faces = [(one, -t, -s), (-one, -t, s), (s, one, t), (s, -one, -t), (s, -t, one), (-s, -t, -one)]
    directions = np.stack([np.stack(face, axis=-1) for face in faces])
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    for name in ("cube", "sky"):
        fill(name, 128 + 90 * directions * (1 if name == "cube" else [1, -1, 1]))


def _gl_model(solid: str, texture: str, uniform: bool) -> mujoco.MjModel:
    turn = "1 -0.4 0.1 0.2" if solid in FLAT else "1 0.7 0.3 0.2"
    model = mujoco.MjModel.from_xml_string(
        GL_SCENE.format(texture=texture, uniform=str(uniform).lower(), geom=SOLIDS[solid], turn=turn)
    )
    _paint(model)
    return model


# Of OpenGL's infinite planes directions have no size, and texture coordinates are for flat textures.
CASES = [
    (solid, texture, uniform)
    for solid in SOLIDS
    for texture in ("flat", "cube")
    for uniform in (False, True)
    if texture == "flat" or solid not in ("strip", "ground", "sheet")
]


@pytest.fixture(scope="module")
def opengl(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, bool], NDArray[np.uint8]]:
    """The frames that OpenGL draws of all cases."""
    folder = tmp_path_factory.mktemp("models")
    files = {case: str(folder / f"{index}.mjb") for index, case in enumerate(CASES)}
    if not _opengl([]) or not _opengl([_saved(_gl_model(*CASES[0]), files[CASES[0]])]):
        pytest.skip("MuJoCo cannot draw with EGL here")
    for case, file in files.items():
        _saved(_gl_model(*case), file)
    assert _opengl(list(files.values()))
    return {case: np.load(f"{file}.npy") for case, file in files.items()}


def _saved(model: mujoco.MjModel, file: str) -> str:
    mujoco.mj_saveModel(model, file, None)
    return file


@pytest.mark.parametrize(("solid", "texture", "uniform"), CASES)
def test_textures_and_sky_look_as_in_opengl(
    solid: str, texture: str, uniform: bool, opengl: dict[tuple[str, str, bool], NDArray[np.uint8]]
) -> None:
    model = _gl_model(solid, texture, uniform)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = BatchCamera(model, 1, "eye", (96, 96), threads=1, sky=None)
    camera.render({name: getattr(data, name)[None] for name in KINEMATICS})
    off = np.abs(camera.rgb[0] - opengl[solid, texture, uniform].astype(int)).max(axis=-1)
    hit = camera.geom_id[0] >= 0
    assert hit.sum() > 1400 and np.median(off[hit]) <= 1  # OpenGL rounds, and we cut off
    # OpenGL's round solids are polyhedra: at most 0.037 was measured, of others 0.009.
    rounded = solid in ("sphere", "ellipsoid", "capsule", "cylinder")
    assert (off[hit] > 6).mean() < (0.05 if rounded else 0.015)
    if solid != "hfield":  # of height fields OpenGL draws the sides too
        assert (off[~hit] > 6).sum() == 0
