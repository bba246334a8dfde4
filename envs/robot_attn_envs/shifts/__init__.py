"""Visual shifts: changes of appearance between training and test scenes.

Each shift samples from its own random stream, so it does not depend on which other shifts are active. At
intensity 0 it changes nothing. Training scenes, and what each shift shows instead:

| shift         | training                            | shifted, at intensity 1                       |
|---------------|-------------------------------------|-----------------------------------------------|
| `distractors` | as many as the task's option says   | 6 more                                        |
| `colors`      | distractors: saturation 0.45 to 1   | distractors: saturation up to 0.4, or value   |
|               | with value 0.4 to 0.95              | up to 0.35                                    |
|               | scenery: its own colours            | scenery: hues 50 degrees from the target's    |
| `lookalikes`  | hues 50 degrees from the target's   | 12 to 22 degrees, 28 to 45 in its shape       |
| `background`  | plain walls, a checkered floor      | 16 moving textures, or the user's folder      |
| `lighting`    | two fixed lights, one at the camera | directions, strengths, tint, brightness       |
| `camera`      | fixed pose                          | off by 2 cm and 5 degrees, sway, zoom by 1.22 |
| `noise`       | none, sharp, well exposed           | 12 % noise, blur, 1.65 x too bright or dark   |
| `occlusion`   | nothing in front of the lens        | three patches of 22 % of the frame together   |

With an instruction, objects keep the colours that they are named by: `colors` changes the scenery only, and
`lookalikes` uses named pairs of colour and shape. A new shift is a file here and a line in
`robot_attn_envs/__init__.py`; another package registers its own with `robot_attn_envs.register_shift`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.errors import unknown_name
from robot_attn_envs.registry import SHIFT_PLACES, load
from robot_attn_envs.render.lens import Lens, neutral_settings
from robot_attn_envs.shifts._appearance import Appearance
from robot_attn_envs.shifts._background import Background
from robot_attn_envs.shifts._shift import Shift
from robot_attn_envs.shifts._suites import SUITES
from robot_attn_envs.tasks.task import Floats

__all__ = ["SHIFTS", "SUITES", "Shift", "ShiftOption", "Shifts", "chosen_shifts"]

ShiftOption: TypeAlias = str | Sequence[str] | Mapping[str, float]

FIRST_FREE_STREAM = 100
"""Smaller stream numbers are reserved for robot-attn's own shifts, future ones included."""


class _Shifts(Mapping[str, type[Shift]]):
    """All shifts by name, read-only. A shift is imported when it is first looked up."""

    def __init__(self) -> None:
        self._loaded: dict[str, type[Shift]] = {}

    def __getitem__(self, name: str) -> type[Shift]:
        if name not in self._loaded:
            shift = load("shift", SHIFT_PLACES[name])
            self._check(name, shift)
            self._loaded[name] = shift
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(SHIFT_PLACES)

    def __len__(self) -> int:
        return len(SHIFT_PLACES)

    def __contains__(self, name: object) -> bool:
        return name in SHIFT_PLACES

    def __repr__(self) -> str:
        return f"SHIFTS({', '.join(self)})"

    def _check(self, name: str, shift: object) -> None:
        if not (isinstance(shift, type) and issubclass(shift, Shift)):
            raise ValueError(f"expected the shift {name!r} to be a subclass of Shift, got {shift!r}")
        stream = getattr(shift, "stream", None)
        ours = shift.__module__.startswith(f"{__name__}.")
        if type(stream) is not int or not (ours or FIRST_FREE_STREAM <= stream < 1 << 32):
            raise ValueError(
                f"expected the shift {name!r} to have a `stream` from {FIRST_FREE_STREAM} to 2^32 - 1, got "
                f"{stream!r}: give its class an unused number"
            )
        for other, known in self._loaded.items():
            if known.stream == stream and known is not shift:
                raise ValueError(
                    f"expected different streams for shifts, got {stream} for both {other!r} and {name!r}: "
                    "give one of them another number, or they sample the same values"
                )


SHIFTS: Mapping[str, type[Shift]] = _Shifts()
"""The shifts by name: robot-attn's in the order in which they are applied, then those of other packages."""


def chosen_shifts(shift: ShiftOption, intensity: float, suite: str | None) -> dict[str, float]:
    """Resolve the options to the active shifts.

    Args:
        shift: a name, several, or a mapping from names to intensities.
        intensity: intensity of the shifts that `shift` names without one. At 0 a shift changes nothing.
        suite: a suite instead of `shift`: its newest version ("hard") or a certain one ("hard-v0").

    Returns:
        The intensity in (0, 1] of each active shift by name, in the order in which they are applied: that of
        their streams.

    Raises:
        ValueError: an unknown name, an intensity outside [0, 1], or both a shift and a suite.
    """
    if isinstance(shift, str):
        shift = [shift]
    if suite is not None:
        if shift:
            raise ValueError(f"expected a shift or a suite, got both: shift={shift!r} and suite={suite!r}")
        shift = SUITES[_version(suite)]
    _check_intensity("intensity", intensity)
    intensities = dict(shift) if isinstance(shift, Mapping) else dict.fromkeys(shift, intensity)
    for name, value in intensities.items():
        if name not in SHIFTS:
            raise unknown_name("visual shift", name, SHIFTS)
        _check_intensity(f"the intensity of {name}", value)
    active = [name for name, value in intensities.items() if value > 0.0]
    return {name: float(intensities[name]) for name in sorted(active, key=lambda name: SHIFTS[name].stream)}


def _version(suite: str) -> str:
    """The full name of a suite, its newest version if none is given."""
    if suite in SUITES:
        return suite
    versions = [name for name in SUITES if name.rpartition("-v")[0] == suite]
    if not versions:
        names = [*dict.fromkeys(name.rpartition("-v")[0] for name in SUITES), *SUITES]
        raise unknown_name("suite of shifts", suite, names)
    return max(versions, key=lambda name: int(name.rpartition("-v")[2]))


def _check_intensity(what: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise ValueError(f"expected {what} to be a number from 0 to 1, got {value!r}")


class Shifts:
    """The active shifts of `num_worlds` worlds.

    Args:
        chosen: the intensity of each active shift, from `chosen_shifts`.
        num_worlds: number of worlds.
        backgrounds: folder of images and videos for the shift "background".

    Attributes:
        spare_distractors: largest number of distractors that the shifts add.
        settings: the lens's settings for each world, written by `apply`.
        lens: the image effects; None before `fit`, and if no shift needs them.
        episode: everything that was sampled for the running episodes, arrays [num_worlds, ...].

    Raises:
        ValueError: `backgrounds` without the shift "background", or a folder that cannot be used.
    """

    def __init__(
        self, chosen: Mapping[str, float], num_worlds: int, *, backgrounds: str | Path | None = None
    ) -> None:
        self.settings = neutral_settings(num_worlds)
        self._shifts = {name: SHIFTS[name](num_worlds, intensity) for name, intensity in chosen.items()}
        self._background = self._shifts.get("background")
        if backgrounds is not None:
            if not isinstance(self._background, Background):
                raise ValueError(
                    "expected the shift 'background' to be active, got backgrounds without it: choose it, or "
                    "a suite that has it"
                )
            self._background.use(backgrounds)
        self.spare_distractors = sum(shift.spare_distractors for shift in self._shifts.values())
        self.lens: Lens | None = None
        self.episode: dict[str, NDArray[np.generic]] = {}

    def fit(self, model: mujoco.MjModel, task: Appearance, image_size: tuple[int, int]) -> None:
        """Prepare the scene and its lens. Call it before cameras are made.

        Args:
            model: the compiled scene, which is modified.
            task: the task, or what stands for it in an environment that is not a `Task`.
            image_size: (height, width) of the policy's frames in pixels.
        """
        self.lens = self.make_lens(model, task, image_size, self.settings)

    def make_lens(
        self,
        model: mujoco.MjModel,
        task: Appearance,
        image_size: tuple[int, int],
        settings: NDArray[Any],
    ) -> Lens | None:
        """Prepare a scene, which is modified, and make a lens for its cameras; None if no shift needs one.

        Args:
            model: the compiled scene.
            task: as in `fit`.
            image_size: as in `fit`.
            settings: settings of the worlds with this scene, a structured array as in `Lens`.
        """
        if not any(shift.needs_lens for shift in self._shifts.values()):
            return None
        scenery = np.zeros(model.ngeom + model.nsite, np.bool_)
        scenery[task.backdrop_geoms(model)] = True
        pictures = np.zeros((1, 1, 1), np.uint32)
        if isinstance(self._background, Background):
            self._background.fit(model, scenery)
            pictures = self._background.clips.pictures
        return Lens(settings, image_size, scenery, pictures)

    def lacking(self, model: mujoco.MjModel, task: Appearance) -> dict[str, str]:
        """What these scenes lack, by the name of the shift that would change nothing without it."""
        lacks = {name: shift.lacks(model, task) for name, shift in self._shifts.items()}
        return {name: what for name, what in lacks.items() if what}

    def bind(self, model: mujoco.MjModel, task: Appearance, aspect: float) -> None:
        """Look up what the shifts change.

        Args:
            model: the compiled scene.
            task: the task, already bound, or what stands for it in an environment that is not a `Task`.
            aspect: width / height of the policy's frames.
        """
        for name, shift in self._shifts.items():
            shift.bind(model, task, aspect)
            self.episode |= {f"{name}/{key}": values for key, values in shift.episode.items()}

    def reset(self, world: int, entropy: Sequence[int]) -> None:
        """Sample the appearance of a world's new episode.

        Args:
            world: index of the world.
            entropy: seed of the episode; each shift adds its stream's number.
        """
        for shift in self._shifts.values():
            shift.reset(world, np.random.default_rng([*entropy, shift.stream]))

    def apply(self, kinematics: dict[str, Floats], steps: NDArray[np.int64]) -> dict[str, Floats]:
        """Set the lens for the coming frames and return the kinematics to render.

        Args:
            kinematics: the simulation's arrays, which are not modified.
            steps: control steps done in each world's episode, int64 [num_worlds].

        Returns:
            The shifted kinematics.
        """
        shifted = dict(kinematics)
        self.settings["gain"] = 1.0
        for shift in self._shifts.values():
            shift.show(shifted, self.settings, steps)
        return shifted

    def clean_lens(self) -> None:
        """Remove patches, blur and noise, which are the policy's camera's only, until the next `apply`."""
        for name in ("patch_width", "patch_height", "blur", "noise"):
            self.settings[name] = 0.0
