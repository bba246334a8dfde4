"""Options of `robot-attn export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, RunFolder


@dataclass(frozen=True)
class Policy(_groups.Policy):
    """The trained policy."""

    run: RunFolder
    """Run folder written by `robot-attn train`."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Frames."""

    channels_first: bool = False
    """The environment returns its frames as channels x height x width, not as height x width x channels."""


@dataclass(frozen=True, kw_only=True)
class Output(_groups.Output):
    """Output files."""

    onnx: Path = Path("policy.onnx")
    """The ONNX file to write."""


@dataclass(frozen=True)
class Options(Policy, Frames, Output, Checked):
    """Export a trained policy to ONNX: observations of the environment in, actions and attention out.

    The file contains the whole policy with its preprocessing, for any number of observations at once. Its
    inputs are the entries of an observation as the environment returns them, with frames uint8, height x
    width x channels. Its outputs are the deterministic action within the bounds of the action space, the
    attention maps, and the value, where the policy has them. Names, shapes, ranges and the version are in the
    file's metadata, as JSON under the key `robot-attn`.
    """

    def check(self) -> None:
        _groups.check_ending("onnx", self.onnx, ".onnx")

    def files(self) -> list[Path]:
        return [*super().files(), self.onnx]

    def check_files(self) -> None:
        super().check_files()
        _groups.check_run(self.run)
