"""Train on the toy task in a separate process that can be killed.

python toy_training.py run FOLDER           train in FOLDER, or resume there
python toy_training.py hold FOLDER          the same, but wait at a checkpoint while FOLDER/hold is there
python toy_training.py kill FOLDER N SEED   train in FOLDER, killed N times and resumed each time
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import torch.utils.tensorboard.writer  # training imports it late, which would slow down each child
from toy_env import ToyEnv

from robot_attn_policies.training.presets import PPOPreset, TrainConfig
from robot_attn_policies.training.train import MakeEnv, TrainResult, train

CONFIG = TrainConfig(
    "toy",
    perception="query",
    options={"num_heads": 2},
    steps=1600,
    ppo=PPOPreset(n_envs=4, n_steps=16, batch_size=32, n_epochs=2, final_learning_rate=1e-4),
    eval_every=300,
    eval_episodes=3,
    threads=1,
)


def run(folder: Path, config: TrainConfig = CONFIG, make_env: MakeEnv = ToyEnv) -> TrainResult:
    return train(
        config, make_env, folder, resume=True, save_seconds=0, normalise=lambda mean_return: mean_return / 13
    )


def hold(folder: Path) -> TrainResult:
    class HeldEnv(ToyEnv):
        def step(self, actions: Any) -> Any:
            while (folder / "trainer.pt").exists() and (folder / "hold").exists():
                time.sleep(0.01)
            return super().step(actions)

    return run(folder, make_env=HeldEnv)


def rows(folder: Path) -> int:
    """The updates so far, by the rows of progress.csv."""
    progress = folder / "progress.csv"
    return progress.read_bytes().count(b"\n") if progress.is_file() else 0


def kill(folder: Path, kills: int, seed: int) -> None:
    """Print how many kills hit running training."""
    generator = random.Random(seed)
    hits = 0
    torch.set_num_threads(1)  # forking is safe as long as no thread of torch has started
    for i in range(kills + 1):
        child = os.fork()
        if child == 0:
            run(folder)
            os._exit(0)
        if i < kills:
            # At a random moment after an update or none: a slow machine gets as far as a quick one.
            more = rows(folder) + generator.randint(0, 1)
            while (
                rows(folder) < more
                and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            ):
                time.sleep(0.001)
            time.sleep(generator.uniform(0.0, 0.2))
            os.kill(child, signal.SIGKILL)
            # TensorBoard orders the files of one second by process id, as text: 9999 after 10000.
            while list((folder / "tensorboard").glob(f"events.out.tfevents.{int(time.time())}.*")):
                time.sleep(0.01)
        hits += os.WIFSIGNALED(status := os.waitpid(child, 0)[1])
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, status
    print(hits)


if __name__ == "__main__":
    if sys.argv[1] in ("run", "hold"):
        print((run if sys.argv[1] == "run" else hold)(Path(sys.argv[2])))
    else:
        kill(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
