"""Visual shifts: what changes between the scenes a policy was trained in and those it is tested in.

A shift draws its part of an episode from a stream of its own: which others are on does not matter to it. At
intensity 0 it changes nothing. What training has, and what shifts show instead:

| shift         | training                            | shifted, at intensity 1                       |
|---------------|-------------------------------------|-----------------------------------------------|
| `distractors` | as many as the task's option says   | 6 more                                        |
| `colors`      | distractors: saturation 0.45 to 1   | distractors: saturation up to 0.4, or value   |
|               | with value 0.4 to 0.95              | up to 0.35                                    |
|               | scenery: its own colours            | scenery: hues 50 degrees from the target's    |
| `lookalikes`  | hues 50 degrees from the target's   | 12 to 22 degrees, 28 to 45 in its shape       |
| `background`  | plain walls, a checkered floor      | 16 moving textures, or the user's folder      |
| `lighting`    | two fixed lights, one at the camera | directions, strengths, tint, brightness       |
| `camera`      | in its place                        | off by 2 cm and 5 degrees, sway, zoom by 1.22 |
| `noise`       | none, sharp, well exposed           | 12 % noise, blur, 1.65 x too bright or dark   |
| `occlusion`   | nothing before the lens             | three patches of 22 % of the frame together   |

With an instruction the objects keep to their names: `colors` changes the scenery alone, and `lookalikes`
chooses among named pairs of colour and shape. A new shift is a file here and a line in
`robot_attn_envs/__init__.py`; one of another package is registered with `robot_attn_envs.register_shift`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.errors import unknown_name
from robot_attn_envs.registry import SHIFT_PLACES, load
from robot_attn_envs.render.lens import Lens, clear_views
from robot_attn_envs.shifts._background import Background
from robot_attn_envs.shifts._shift import Shift
from robot_attn_envs.shifts._suites import SUITES
from robot_attn_envs.tasks.task import Floats, Task

__all__ = ["SHIFTS", "SUITES", "Shift", "ShiftOption", "Shifts", "chosen_shifts"]

ShiftOption: TypeAlias = str | Sequence[str] | Mapping[str, float]

FIRST_FREE_STREAM = 100
"""Smaller streams are kept for robot-attn's own shifts, those to come included."""


class _Shifts(Mapping[str, type[Shift]]):
    """All shifts by name, read-only. One is imported when it is looked up."""

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
                f"{stream!r}: give its class a number of its own"
            )
        for other, known in self._loaded.items():
            if known.stream == stream and known is not shift:
                raise ValueError(
                    f"the shifts {other!r} and {name!r} have one stream, {stream}, so their episodes would "
                    "be alike: give one of them another number"
                )


SHIFTS: Mapping[str, type[Shift]] = _Shifts()
"""The shifts by name: ours, in the order in which they are applied, then those of other packages."""


def chosen_shifts(shift: ShiftOption, intensity: float, suite: str | None) -> dict[str, float]:
    """The shifts that these options ask for, each with its intensity in (0, 1], as they are applied.

    That is the order of their streams, whatever the order in which they were registered or asked for.

    Args:
        shift: a name, several, or a mapping from names to intensities.
        intensity: of the shifts that `shift` names without one. At 0 a shift changes nothing.
        suite: instead of `shift`, a suite: its newest version ("hard") or a certain one ("hard-v0").

    Raises:
        ValueError: an unknown name, an intensity that is not in [0, 1], or both a shift and a suite.
    """
    if isinstance(shift, str):
        shift = [shift]
    if suite is not None:
        if shift:
            raise ValueError(f"give shift or suite, not both; got shift={shift!r} and suite={suite!r}")
        shift = SUITES[_version(suite)]
    _check_intensity("intensity", intensity)
    wanted = dict(shift) if isinstance(shift, Mapping) else dict.fromkeys(shift, intensity)
    for name, value in wanted.items():
        if name not in SHIFTS:
            raise unknown_name("visual shift", name, SHIFTS)
        _check_intensity(f"intensity of {name}", value)
    on = [name for name, value in wanted.items() if value > 0.0]
    return {name: float(wanted[name]) for name in sorted(on, key=lambda name: SHIFTS[name].stream)}


def _version(suite: str) -> str:
    """The full name of a suite, its newest version where none is given."""
    if suite in SUITES:
        return suite
    versions = [name for name in SUITES if name.rpartition("-v")[0] == suite]
    if not versions:
        names = [*dict.fromkeys(name.rpartition("-v")[0] for name in SUITES), *SUITES]
        raise unknown_name("suite of shifts", suite, names)
    return max(versions, key=lambda name: int(name.rpartition("-v")[2]))


def _check_intensity(what: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{what} is a number from 0 to 1, got {value!r}")


class Shifts:
    """The shifts of `num_worlds` worlds.

    Args:
        chosen: the intensity of each shift, as `chosen_shifts` gives them.
        num_worlds: number of worlds.
        backgrounds: folder of images and videos for "background".

    Attributes:
        spare_distractors: how many distractors the shifts add at most.
        lens: what frames go through; None where no shift works on pixels, before `fit` too.
        episode: everything that was drawn for the running episodes, arrays [num_worlds, ...].

    Raises:
        ValueError: `backgrounds` without the shift that shows them, or nothing in it that can be shown.
    """

    def __init__(
        self, chosen: Mapping[str, float], num_worlds: int, *, backgrounds: str | Path | None = None
    ) -> None:
        self._views = clear_views(num_worlds)
        self._shifts = {name: SHIFTS[name](num_worlds, intensity) for name, intensity in chosen.items()}
        self._background = self._shifts.get("background")
        if backgrounds is not None:
            if not isinstance(self._background, Background):
                raise ValueError(
                    "backgrounds are for the shift 'background': choose it, or a suite that has it"
                )
            self._background.use(backgrounds)
        self.spare_distractors = sum(shift.spare_distractors for shift in self._shifts.values())
        self.lens: Lens | None = None
        self.episode: dict[str, NDArray[np.generic]] = {}

    def fit(self, model: mujoco.MjModel, task: Task, image_size: tuple[int, int]) -> None:
        """Prepare the scene and make its lens, before there are cameras in it."""
        if not any(shift.needs_lens for shift in self._shifts.values()):
            return
        scenery = np.zeros(model.ngeom, np.bool_)
        scenery[[model.geom(name).id for name in task.backdrop]] = True
        pictures = np.zeros((1, 1, 1), np.uint32)
        if isinstance(self._background, Background):
            self._background.fit(model, scenery)
            pictures = self._background.clips.pictures
        self.lens = Lens(self._views, image_size, scenery, pictures)

    def bind(self, model: mujoco.MjModel, task: Task, aspect: float) -> None:
        """Look up what the shifts change, in a task that is bound itself; `aspect` is width / height."""
        for name, shift in self._shifts.items():
            shift.bind(model, task, aspect)
            self.episode |= {f"{name}/{key}": values for key, values in shift.episode.items()}

    def reset(self, world: int, entropy: Sequence[int]) -> None:
        """Draw what a world's new episode looks like, from streams that `entropy` starts."""
        for shift in self._shifts.values():
            shift.reset(world, np.random.default_rng([*entropy, shift.stream]))

    def apply(self, kinematics: dict[str, Floats], steps: NDArray[np.int64]) -> dict[str, Floats]:
        """Set the lens for the frames after so many steps, and return what the camera shall see.

        Args:
            kinematics: what the simulation has; nothing is written into its arrays.
            steps: [num_worlds].
        """
        shown = dict(kinematics)
        self._views["gain"] = 1.0
        for shift in self._shifts.values():
            shift.show(shown, self._views, steps)
        return shown

    def clean_lens(self) -> None:
        """Take from the lens, until the next `apply`, what is before the policy's camera alone."""
        for name in ("patch_width", "patch_height", "blur", "noise"):
            self._views[name] = 0.0
