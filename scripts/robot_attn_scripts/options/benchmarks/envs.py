"""What `robot-attn benchmark envs` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from robot_attn_scripts import _choices
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output, default


@dataclass(frozen=True)
class Amount:
    """What to measure, and how much."""

    tasks: Annotated[
        tuple[str, ...],
        default(
            "all",
            metavar="TASK ...",
            help=f"Tasks to measure: {', '.join(_choices.tasks())}. Track is always among them.",
        ),
    ] = ()
    envs: tuple[int, ...] = (1, 16, 64, 256)
    """Environments in a batch; memory is measured with the two largest numbers."""
    rounds: int = 15
    """Repetitions of each measurement."""
    steps: int = 512
    """Environment steps in a turn, at least: a larger batch has fewer of each environment."""


@dataclass(frozen=True)
class Options(Amount, Output, Checked):
    """Environment steps a second of every task, with visual shifts and without, and memory an environment.

    Each task is stepped with random actions through `gymnasium.make_vec`, frames of 64 x 64 and infos
    included, on all cores. Its environments are at different steps of their episodes, so that every turn
    includes resets. In a round each task takes its turns, one right after another: without shifts, with the
    suite "hard", and with mujoco_warp's ray caster for our renderer. Ratios are taken within a round.
    Medians over the rounds and their 95 % intervals are shown; a target is met or missed where the whole
    interval is.

    Memory is the peak of a process that makes a batch and steps it, a fresh process for each size of the
    batch: what the largest batch takes more than the next, for each of the environments that it has more.
    """

    def check(self) -> None:
        for task in self.tasks:
            _choices.check_name("task", task, _choices.tasks(), owner="robot_attn_envs")
        _groups.check_some(self, "envs")
        _groups.check_range(self, ("envs",), 1, _groups.MAX_ENVS)
        _groups.check_range(self, ("rounds", "steps"), 1)
