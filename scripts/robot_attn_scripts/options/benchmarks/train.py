"""What `robot-attn benchmark train` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output, default

Peer = Literal["query", "cnn", "sb3", "sb3_no_shadows"]
OURS: tuple[Peer, ...] = ("query", "cnn")
"""Peers that are families of ours."""


@dataclass(frozen=True)
class Amount:
    """How much to measure."""

    peers: tuple[Peer, ...] = ("query", "cnn", "sb3", "sb3_no_shadows")
    """Peers to measure."""
    rounds: int = 3
    """Repetitions of each measurement."""
    rollouts: int = 8
    """Rollouts, each with its update, in a round of our stack; a round of SB3, which is slower, has one."""
    n_steps: int = 64
    """Steps of each environment in a rollout of our stack; SB3 has fewer environments and more steps."""
    threads: Annotated[int, default("0, one a core")] = 0
    """Threads that share an update in each peer (SB3 leaves that to torch's)."""
    seed: int = 0
    """Seed of weights and environments."""
    against: Annotated[Path | None, default("no other version")] = None
    """Checkout of another version of robot-attn to compare processor time with."""


@dataclass(frozen=True)
class Options(Amount, Output, Checked):
    """Frames trained a second (simulate, render, learn), against Stable-Baselines3 on the same Track scene.

    The peers have the same PPO hyperparameters and run in separate processes:

    - `query` and `cnn`: our stack with the family of that name, as `robot-attn train track` runs it;
    - `sb3`: Stable-Baselines3's `PPO("CnnPolicy")` on Track's own MuJoCo model as a plain Gymnasium
      environment, rendered by Gymnasium's `MujocoRenderer` as it comes, in a `SubprocVecEnv` with a process
      for each core;
    - `sb3_no_shadows`: the same with shadows and multisampling switched off, as ours has none either.

    Every round measures each peer once, one after the other, so that a slow spell of the machine affects
    all of them. A ratio is taken within each round; its median, least and greatest over the rounds are shown.

    With `--against`, `robot-attn train track` of this version and of another one run in turns as well, for
    each of our peers, and the processor time of a trained frame is compared. Starting does not count.
    """

    def check(self) -> None:
        _groups.check_some(self, "peers")
        _groups.check_range(self, ("rounds", "rollouts", "n_steps"), 1)
        _groups.check_range(self, ("threads",), 0, 1024)
        _groups.check_seeds(self.seed)
        if self.against is not None and not set(self.peers) & set(OURS):
            raise ValueError(
                f"expected one of {', '.join(OURS)} among --peers with --against, got "
                f"{', '.join(self.peers)}: add one"
            )

    def check_files(self) -> None:
        super().check_files()
        if self.against is not None and not (self.against / "scripts/robot_attn_scripts/cli.py").is_file():
            raise ValueError(
                f"expected --against to name a checkout of robot-attn, got {self.against}: make one with "
                "`git worktree add`"
            )
