"""Frames, masks, views and counterfactuals of environments that simulate with MuJoCo, drawn together."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.anymujoco.cameras import CameraOption, SceneCamera, find_camera, find_cameras
from robot_attn_envs.anymujoco.simulation import (
    check_same_scene,
    control_step,
    given_colors,
    looks_equal,
    shown_colors,
    simulation,
)
from robot_attn_envs.anymujoco.things import NamedObjects, find_thing, scenery
from robot_attn_envs.compat.gymnasium_robotics import prepare_frame
from robot_attn_envs.image_size import check_image_size
from robot_attn_envs.labels import (
    BACKDROP,
    ROBOT,
    backdrop_table,
    label_of_slots,
    label_pixels,
    moved_geoms,
    thing_names,
)
from robot_attn_envs.render.camera import KINEMATICS, POLICY_GROUPS, BatchCamera
from robot_attn_envs.render.lens import neutral_settings
from robot_attn_envs.render.scene import FreeCamera, camera_projection
from robot_attn_envs.shifts import ShiftOption, Shifts, chosen_shifts

Names = str | Sequence[str]


class SceneFrames:
    """The cameras of `len(envs)` environments of one kind, whose frames are drawn in one call.

    The environments' models and data are read and never written. Each is drawn as it is in its data: after a
    step of MuJoCo's, positions are those at the start of the last substep, as in Gymnasium's own frames.
    Geoms and sites of groups 0 to 2 are drawn, opaque; one that is more transparent than opaque, such as a
    touch sensor, is drawn if it is named.

    Args:
        envs: the environments, each after a reset with seed 0: the free camera is placed by the first's
            state.
        camera: name or index of a camera of the model, "free", or several; None for the camera that the
            environment renders from.
        image_size: side of the square frames in pixels, or (height, width), each from 32 to 2048.
        target: name of the body, geom or site that masks and counterfactuals are about; None for none.
        distractors: names of bodies, geoms or sites that resemble it.
        backdrop: names of what is scenery, painted over by shifts; None for the planes and height fields
            fixed to the world.
        shift: a visual shift of `SHIFTS`, several of them, or a mapping from names to intensities.
        intensity: intensity of the shifts that `shift` names without one, from 0 (no change) to 1.
        suite: a standard combination of shifts from `SUITES`. Shifts of it that would change nothing in these
            scenes are left out, with a warning that names them.
        backgrounds: folder of images and videos for the shift "background".
        threads: rendering threads; None for every core this process may use.

    Attributes:
        cameras: the cameras, in order.
        image_size: (height, width) in pixels.
        objects: the target and the distractors.
        geom_rgba: colours of geoms, then of sites, in the running episodes, float32 [N, ngeom + nsite, 4].
        rgb: the last frames, uint8 [N, cameras, height, width, 3].
        geom_id: ids of what is seen in each pixel, int32 [N, cameras, height, width]; -1 for nothing,
            -2 for a patch of the lens.
        thing_names: what the labels of `things` stand for, by label.
        left_out: what the scenes lack, by the name of a shift of the suite that is left out.

    Raises:
        ValueError: an environment without MuJoCo, a name that its model does not have, something that cannot
            be drawn, or a shift that would change nothing.
    """

    def __init__(
        self,
        envs: Sequence[gymnasium.Env[Any, Any]],
        *,
        camera: CameraOption = None,
        image_size: int | Sequence[int] = 64,
        target: str | None = None,
        distractors: Names = (),
        backdrop: Names | None = None,
        shift: ShiftOption = (),
        intensity: float = 0.5,
        suite: str | None = None,
        backgrounds: str | Path | None = None,
        threads: int | None = None,
    ) -> None:
        self._envs, self._threads = list(envs), threads
        self.image_size = check_image_size(image_size)
        model, _ = simulation(self._envs[0])
        self._names_of = model
        self.cameras = find_cameras(self._envs[0], camera)
        worlds = len(self._envs)
        named = [find_thing(model, name) for name in _several(distractors)]
        self.objects = NamedObjects(worlds, None if target is None else find_thing(model, target), named)
        painted = scenery(model)
        if backdrop is not None:
            things = [find_thing(model, name).geoms for name in _several(backdrop)]
            painted = np.unique(np.concatenate([np.zeros(0, np.int64), *things]))
        # Scenery that is also a named object stays the object.
        own = np.concatenate([self.objects.geoms_of(slot) for slot in range(len(self.objects.things))])
        self._backdrop = np.setdiff1d(painted, own)
        self._named = np.union1d(painted, own)
        self._step_seconds = control_step(self._envs[0])
        self._kinematics = self._allocate(model)
        self._given = np.zeros((worlds, model.ngeom + model.nsite, 4), np.float32)
        self.geom_rgba = np.zeros_like(self._given)
        height, width = self.image_size
        self.rgb = np.zeros((worlds, len(self.cameras), height, width, 3), np.uint8)
        self.geom_id = np.full(self.rgb.shape[:-1], -1, np.int32)
        self._models: list[mujoco.MjModel | None] = [None] * worlds
        self._groups: list[_Group] = []
        chosen = chosen_shifts(shift, intensity, suite)
        self.shifts, self.left_out = self._make_shifts(model, chosen, suite, backgrounds)
        self.shifts.bind(model, self, width / height)
        self._target_pixels = _lookup(self.objects.geoms_of(0), model)
        self.thing_names = thing_names(len(named))
        self._labels = backdrop_table(worlds, model.ngeom + model.nsite)
        self._labels[:, moved_geoms(model)] = ROBOT
        self._labels[:, painted] = BACKDROP
        for slot, label in enumerate(label_of_slots(self.objects.target[:1], 1 + len(named))[0]):
            self._labels[:, self.objects.geoms_of(slot)] = label
        self._regroup()

    # ---- What shifts need to know (`Appearance`) ----

    def camera_ids(self, model: mujoco.MjModel) -> NDArray[np.int64]:
        """The cameras as indices into `cam_xpos`, where free cameras follow those of the model."""
        free = iter(range(model.ncam, model.ncam + len(self.cameras)))
        return np.array(
            [next(free) if isinstance(one.camera, FreeCamera) else one.camera for one in self.cameras]
        )

    def backdrop_geoms(self, model: mujoco.MjModel) -> NDArray[np.int64]:
        """The ids of what is scenery, int64 [n]."""
        return self._backdrop

    def control_step(self, model: mujoco.MjModel) -> float:
        """Duration of a control step, s."""
        return self._step_seconds

    # ---- Drawing ----

    def begin_episodes(self, worlds: NDArray[np.intp], entropies: Sequence[Sequence[int]]) -> None:
        """Look at the models of worlds that were reset, and sample the appearance of their new episodes.

        Args:
            worlds: indices of the worlds.
            entropies: seed of each world's episode.

        Raises:
            ValueError: an environment changed its model for one with other parts.
        """
        if any(self._changed(world) for world in worlds.tolist()):
            self._regroup()
        for world, entropy in zip(worlds.tolist(), entropies, strict=True):
            model, _ = simulation(self._envs[world])
            self._given[world] = given_colors(model)
            self.geom_rgba[world] = shown_colors(model, self._named)
            self.shifts.reset(world, entropy)

    def draw(self, steps: NDArray[np.int64], worlds: NDArray[np.intp] | None = None) -> None:
        """Draw the current state of the environments into `rgb` and `geom_id`.

        Args:
            steps: steps done in each world's episode, int64 [N].
            worlds: indices of the worlds that changed; None for all.
        """
        self._gather(np.arange(len(self._envs)) if worlds is None else worlds)
        shifted = self._shifted(steps)
        for group in self._groups:
            chosen = None if worlds is None else np.flatnonzero(np.isin(group.worlds, worlds))
            if chosen is None or len(chosen):
                group.draw(group.camera, shifted, self.geom_rgba, self.shifts.settings, chosen)
                self.rgb[group.worlds], self.geom_id[group.worlds] = group.camera.rgb, group.camera.geom_id

    def target_mask(self, camera: int = 0) -> NDArray[np.bool_]:
        """The target's pixels in the last frames of a camera, bool [N, height, width]."""
        return self._target_pixels[self.geom_id[:, camera]]

    def things(self, camera: int = 0) -> NDArray[np.uint8]:
        """What the pixels of the last frames of a camera show, labels into `thing_names`, uint8 [N, H, W].

        What joints move is the robot, except for named objects and scenery; a patch of the lens is an
        occluder; all else is the backdrop.
        """
        return label_pixels(self._labels, self.geom_id[:, camera])

    def describe_things(self) -> list[tuple[str, ...]]:
        """What the labels stand for in each environment: objects by the names that they were given."""
        names = list(self.thing_names)
        for slot, label in enumerate(label_of_slots(self.objects.target[:1], len(self.objects.things))[0]):
            thing = self.objects.things[slot]
            names[label] = "" if thing is None else thing.name
        return [tuple(names)] * len(self._envs)

    def view(
        self,
        steps: NDArray[np.int64],
        camera: str | int | None = None,
        image_size: int | Sequence[int] | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Draw the current state from any camera at any size.

        Patches, blur and noise of shifts affect the policy's cameras only.

        Args:
            steps: steps done in each world's episode, int64 [N].
            camera: name or index of a camera; None for the first.
            image_size: side of the square frames in pixels, or (height, width), each from 32 to 2048; None
                for the policy's.

        Returns:
            RGB, uint8 [N, H, W, 3], and the target's pixels, bool [N, H, W].

        Raises:
            ValueError: a camera that the model does not have, or a size out of range.
        """
        size = self.image_size if image_size is None else check_image_size(image_size)
        own = {one.name: index for index, one in enumerate(self.cameras)}
        seen = self.cameras[0] if camera is None else find_camera(self._envs[0], camera)
        seen = self.cameras[own[seen.name]] if seen.name in own else seen
        if seen.name in own and size == self.image_size:
            index = own[seen.name]
            return self.rgb[:, index].copy(), self.target_mask(index)
        self._gather(np.arange(len(self._envs)))
        shifted = self._shifted(steps, seen)
        if seen.name not in own:
            self.shifts.clean_lens()
        rgb = np.zeros((len(self._envs), *size, 3), np.uint8)
        ids = np.full(rgb.shape[:-1], -1, np.int32)
        for group in self._groups:
            other = group.other([seen], size)
            group.draw(other, shifted, self.geom_rgba, self.shifts.settings, None)
            rgb[group.worlds], ids[group.worlds] = other.rgb[:, 0], other.geom_id[:, 0]
        return rgb, self._target_pixels[ids]

    def render_counterfactual(
        self,
        steps: NDArray[np.int64],
        what: Literal["target", "distractor"],
        *,
        shift: tuple[float, float] = (0.0, 0.0),
        rgba: Sequence[float] | None = None,
        removed: bool = False,
    ) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.bool_]]]:
        """Draw the current frames with one object changed; neither the simulation nor `rgb` changes.

        Args:
            steps: steps done in each world's episode, int64 [N].
            what: the target, or the distractor with the most visible pixels in the first camera.
            shift: displacement to the right and up in the first camera's frame, in frame heights, at the
                object's distance from that camera.
            rgba: new colour in [0, 1]; None keeps it.
            removed: whether to remove the object from the image.

        Returns:
            The counterfactual frames, uint8 [N, cameras, H, W, 3], and four masks of the first camera, bool
            [N, H, W]: `before`, the object's pixels as it is (empty if no distractor is visible); `after`,
            the changed object's; `target`, the target's as it is; `target_after`, the target's in the frames.

        Raises:
            ValueError: no target was named.
        """
        if self.objects.things[0] is None:
            raise ValueError("expected an environment with a target, got none: name one with target=")
        worlds = np.arange(len(self._envs))
        current = self.geom_id[:, 0].copy()
        # The last two are for no geom.
        changed = np.zeros((len(worlds), self.geom_rgba.shape[1] + 2), np.bool_)
        exists: NDArray[np.bool_] = np.ones(len(worlds), np.bool_)
        slots = np.zeros(len(worlds), np.int64)
        if what == "distractor":
            tables = [_lookup(thing.geoms, self._names_of) for thing in self.objects.things[1:] if thing]
            pixels = np.array([table[current].sum(axis=(1, 2)) for table in tables]).reshape(-1, len(worlds))
            exists = np.asarray((pixels > 0).any(axis=0))
            slots = 1 + pixels.argmax(axis=0) if len(pixels) else slots
        for world in np.flatnonzero(exists).tolist():
            changed[world, self.objects.geoms_of(int(slots[world]))] = True
        self._gather(worlds)
        shifted, colors = self._shifted(steps), self.geom_rgba.copy()
        if removed:
            colors[changed[:, :-2], 3] = 0.0
        elif rgba is not None:
            colors[changed[:, :-2]] = rgba
        self._displace(shifted, changed[:, :-2], exists, np.asarray(shift))
        image, ids = np.empty_like(self.rgb), np.empty_like(current)
        for group in self._groups:
            group.draw(group.camera, shifted, colors, self.shifts.settings, None)
            image[group.worlds], ids[group.worlds] = group.camera.rgb, group.camera.geom_id[:, 0]
        self.draw(steps)
        rows = worlds[:, None, None]
        return image, {
            "before": changed[rows, current],
            "after": changed[rows, ids],
            "target": self._target_pixels[current],
            "target_after": self._target_pixels[ids],
        }

    def close(self) -> None:
        """Stop the cameras' threads."""
        for group in self._groups:
            group.close()

    def __reduce__(self) -> Any:
        """Refuse to be copied or pickled, as the recorded launches of a camera cannot be."""
        raise TypeError(
            "expected to make an environment with frames where it is used, got a copy or a pickle of one: "
            "copy the function that makes it"
        )

    # ---- Inside ----

    def _make_shifts(
        self,
        model: mujoco.MjModel,
        chosen: dict[str, float],
        suite: str | None,
        backgrounds: str | Path | None,
    ) -> tuple[Shifts, dict[str, str]]:
        worlds = len(self._envs)
        lacking = Shifts(chosen, worlds, backgrounds=backgrounds).lacking(model, self)
        listed = ", ".join(f"{name} (needs {what})" for name, what in lacking.items())
        if lacking and suite is None:
            raise ValueError(f"expected shifts that change something in this environment, got {listed}")
        applied = {name: value for name, value in chosen.items() if name not in lacking}
        if lacking:
            if not applied:
                raise ValueError(f"expected a suite with a shift that applies here, got {suite!r}: {listed}")
            warnings.warn(
                f"of the suite {suite!r} this environment shows {', '.join(applied)}; left out: {listed}. "
                "Its scores compare with each other, not with those of tasks that show the whole suite",
                stacklevel=2,
            )
        return Shifts(applied, worlds, backgrounds=backgrounds), lacking

    def _allocate(self, model: mujoco.MjModel) -> dict[str, NDArray[np.float64]]:
        """Arrays for the kinematics of all worlds; free cameras follow those of the model."""
        worlds, free = len(self._envs), [c for c in self.cameras if isinstance(c.camera, FreeCamera)]
        _, data = simulation(self._envs[0])
        arrays = {}
        for name in (*KINEMATICS, "site_xpos", "site_xmat"):
            shape = getattr(data, name).shape
            more = len(free) if name.startswith("cam_") else 0
            arrays[name] = np.zeros((worlds, shape[0] + more, *shape[1:]))
        for row, camera in enumerate(free, start=model.ncam):
            arrays["cam_xpos"][:, row], arrays["cam_xmat"][:, row] = camera.xpos, camera.xmat
        return arrays

    def _gather(self, worlds: NDArray[np.intp]) -> None:
        """Copy the kinematics of some worlds, and the colours that their environments changed."""
        for world in worlds.tolist():
            env = self._envs[world]
            prepare_frame(env.unwrapped)
            model, data = simulation(env)
            if model is not self._models[world]:
                # Swapped within an episode: it has to look like the one before.
                check_same_scene(self._names_of, model)
                if not looks_equal(self._group_of(world).reference, model):
                    self._regroup()
                self._models[world] = model
            for name, array in self._kinematics.items():
                values = getattr(data, name)
                array[world, : len(values)] = values
            colors = given_colors(model)
            if not np.array_equal(colors, self._given[world]):
                other = (colors != self._given[world]).any(axis=1)
                self.geom_rgba[world, other] = shown_colors(model, self._named)[other]
                self._given[world] = colors

    def _shifted(self, steps: NDArray[np.int64], seen: SceneCamera | None = None) -> dict[str, NDArray[Any]]:
        """The kinematics to draw, shifted; poses of free cameras apart, as `BatchCamera` takes them.

        Args:
            steps: steps done in each world's episode, int64 [N].
            seen: a camera to draw from in place of the policy's.
        """
        shifted = self.shifts.apply(self._kinematics, steps)
        ncam = self._names_of.ncam
        for name in ("xpos", "xmat"):
            poses = shifted[f"cam_{name}"]
            shifted[f"cam_{name}"], shifted[f"free_{name}"] = poses[:, :ncam], poses[:, ncam:]
            if seen is not None and isinstance(seen.camera, FreeCamera) and seen not in self.cameras:
                pose = getattr(seen, name)
                shifted[f"free_{name}"] = np.tile(pose, (len(self._envs), 1, 1))
        return shifted

    def _displace(
        self,
        kinematics: dict[str, NDArray[Any]],
        changed: NDArray[np.bool_],
        exists: NDArray[np.bool_],
        shift: NDArray[np.float64],
    ) -> None:
        """Move the changed geoms of each world by a displacement in the first camera's frame."""
        if not shift.any():
            return
        first = self.cameras[0].camera
        kind, row = ("free", 0) if isinstance(first, FreeCamera) else ("cam", first)
        eye = kinematics[f"{kind}_xpos"][:, row]
        axes = kinematics[f"{kind}_xmat"][:, row].reshape(-1, 3, 3)
        ngeom = kinematics["geom_xpos"].shape[1]
        places = np.concatenate([kinematics["geom_xpos"], kinematics["site_xpos"]], axis=1)
        lens = camera_projection(self._names_of, first, self.image_size)
        height = abs(lens.y_of_row[0]) * self.image_size[0]
        for world in np.flatnonzero(exists).tolist():
            middle = places[world, changed[world]].mean(axis=0)
            depth = 1.0 if lens.orthographic else abs((eye[world] - middle) @ axes[world, :, 2])
            places[world, changed[world]] += height * depth * (axes[world, :, :2] @ shift)
        kinematics["geom_xpos"], kinematics["site_xpos"] = places[:, :ngeom], places[:, ngeom:]

    def _group_of(self, world: int) -> _Group:
        return next(group for group in self._groups if world in group.worlds)

    def _changed(self, world: int) -> bool:
        """Whether a world's model no longer looks like that of the camera that draws it."""
        model, _ = simulation(self._envs[world])
        check_same_scene(self._names_of, model)
        self._models[world] = model
        return not looks_equal(self._group_of(world).reference, model)

    def _regroup(self) -> None:
        """Give worlds whose models look equal one camera together, and keep cameras that still fit."""
        members: list[tuple[mujoco.MjModel, list[int]]] = []
        for world, env in enumerate(self._envs):
            model, _ = simulation(env)
            check_same_scene(self._names_of, model)
            self._models[world] = model
            for known, equal in members:
                if looks_equal(known, model):
                    equal.append(world)
                    break
            else:
                members.append((model, [world]))
        kept, groups = list(self._groups), []
        for model, equal in members:
            same = [g for g in kept if g.worlds.tolist() == equal and looks_equal(g.reference, model)]
            groups.append(same[0] if same else _Group(self, model, equal, self._threads))
        for group in kept:
            if group not in groups:
                group.close()
        self._groups = groups


class _Group:
    """Worlds whose models look equal, drawn by one camera.

    Args:
        frames: the frames that the group is part of.
        model: a model of one of the worlds.
        worlds: indices of the worlds, rising.
        threads: rendering threads; None for every core.
    """

    def __init__(
        self, frames: SceneFrames, model: mujoco.MjModel, worlds: Sequence[int], threads: int | None
    ) -> None:
        self.worlds = np.array(worlds)
        self.reference = copy.copy(model)  # as it looks now: the environment may write to its own
        self._drawn = copy.copy(model)  # shifts write to it
        self._threads = threads
        self._settings = neutral_settings(len(worlds))
        self._lens = frames.shifts.make_lens(self._drawn, frames, frames.image_size, self._settings)
        self._other: tuple[tuple[Any, ...], BatchCamera] | None = None
        self.camera = self._make_camera(frames.cameras, frames.image_size)

    def draw(
        self,
        camera: BatchCamera,
        kinematics: dict[str, NDArray[Any]],
        geom_rgba: NDArray[np.float32],
        settings: NDArray[Any],
        chosen: NDArray[np.intp] | None,
    ) -> None:
        """Draw with a camera of the group.

        Args:
            camera: the camera.
            kinematics: those of all worlds.
            geom_rgba: colours in all worlds.
            settings: the lens's settings in all worlds.
            chosen: indices into the group's worlds of those to draw; None for all.
        """
        self._settings[:] = settings[self.worlds]
        own = {name: values[self.worlds] for name, values in kinematics.items()}
        colors = geom_rgba[self.worlds]
        recolor = not np.array_equal(camera.geom_rgba, colors)
        if recolor:
            camera.geom_rgba[:] = colors
        camera.render(own, chosen, recolor=recolor)

    def other(self, cameras: list[SceneCamera], image_size: tuple[int, int]) -> BatchCamera:
        """Other cameras for the same worlds, kept until still others are asked for."""
        key = (*(camera.name for camera in cameras), image_size)
        if self._other is None or self._other[0] != key:
            if self._other is not None:
                self._other[1].close()
            self._other = key, self._make_camera(cameras, image_size)
        return self._other[1]

    def _make_camera(self, cameras: Sequence[SceneCamera], image_size: tuple[int, int]) -> BatchCamera:
        try:
            return BatchCamera(
                self._drawn,
                len(self.worlds),
                [camera.camera for camera in cameras],
                image_size,
                threads=self._threads,
                lens=self._lens,
                groups=POLICY_GROUPS,
                sky=None,
                sites=True,
            )
        except ValueError as error:
            raise ValueError(
                f"{error}; renderer=opengl draws this environment with its own renderer"
            ) from error

    def close(self) -> None:
        """Stop the cameras' threads."""
        self.camera.close()
        if self._other is not None:
            self._other[1].close()


def _several(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _lookup(geoms: NDArray[np.int64], model: mujoco.MjModel) -> NDArray[np.bool_]:
    """Whether an id is among some, bool [ngeom + nsite + 2]; indices -1 and -2 stand for no geom."""
    table = np.zeros(model.ngeom + model.nsite + 2, np.bool_)
    table[geoms] = True
    return table
