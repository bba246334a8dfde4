"""Frames trained a second (simulate, render, learn), against Stable-Baselines3 on the same Track scene."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from robot_attn_scripts import _render_peers, _report
from robot_attn_scripts.options.benchmarks.train import OURS, Options, Peer

if TYPE_CHECKING:
    from robot_attn_policies.training.presets import PPOPreset

FRAME = 64
"""Height and width of the frames in pixels."""
RATIOS: tuple[tuple[Peer, Peer], ...] = (
    ("query", "sb3"),
    ("query", "cnn"),
    ("query", "sb3_no_shadows"),
    ("cnn", "sb3"),
)
"""Who is divided by whom, where both were measured."""


def run(options: Options) -> dict[str, object]:
    """Measure, print the tables, write the JSON if asked to, and return the figures.

    Raises:
        ValueError: nothing to measure, or one of our own peers failed.
    """
    console = Console()
    rates: dict[Peer, list[float]] = {peer: [] for peer in options.peers}
    failures: dict[Peer, str] = {}
    with ExitStack() as stack, console.status("") as status:
        trainers: dict[Peer, _render_peers.Peer] = {}
        for peer in options.peers:
            status.update(f"starting {peer}")
            work = _our_stack if peer in OURS else _their_stack
            trainer = stack.enter_context(_render_peers.peer(peer, work, peer, options))
            answer = trainer.answer()
            if isinstance(answer, str):
                if peer in OURS:
                    raise ValueError(f"{peer} could not be measured: {answer}")
                failures[peer] = answer
            else:
                trainers[peer] = trainer
        for number in range(1, options.rounds + 1):
            for peer, trainer in trainers.items():
                status.update(f"round {number} of {options.rounds}: {peer}")
                rates[peer].append(trainer.measure(options.rollouts if peer in OURS else 1))

    from robot_attn.cores import usable_cores

    ratios = {
        f"{over} / {under}": [a / b for a, b in zip(rates[over], rates[under], strict=True)]
        for over, under in RATIOS
        if rates.get(over) and rates.get(under)
    }
    figures: dict[str, object] = {
        "benchmark": "train",
        "machine": _report.machine(
            "robot-attn", "torch", "mujoco", "mujoco-warp", "gymnasium", "stable-baselines3"
        ),
        "threads": {
            "value": options.threads or usable_cores(),
            "unit": "threads that share an update",
        },
        "ppo": asdict(_preset(options)),
        "rounds": options.rounds,
        "frames_trained_per_second": {
            peer: {"not measured": failures[peer]}
            if peer in failures
            else _report.spread(rates[peer], "frames/s")
            for peer in options.peers
        },
        "ratios": {name: _report.spread(values, "x") for name, values in ratios.items()},
    }
    _show(rates, ratios, failures, console)
    if options.against is not None:
        figures["processor_time"] = _compare_versions(options, options.against, console)
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures


def _show(
    rates: Mapping[Peer, Sequence[float]],
    ratios: Mapping[str, Sequence[float]],
    failures: Mapping[Peer, str],
    console: Console,
) -> None:
    console.print(_report.spread_table("frames trained a second", rates, "{:,.1f}"))
    console.print(_report.spread_table("ratio within a round", ratios, "{:,.2f}"))
    for peer, reason in failures.items():
        console.print(f"{peer} was not measured: {reason}", highlight=False, soft_wrap=True)


def _compare_versions(options: Options, against: Path, console: Console) -> dict[str, object]:
    """Compare the processor time of a trained frame with that of another checkout, and show it."""
    from robot_attn.cores import usable_cores
    from robot_attn_scripts._versions import processor_time

    times: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for peer in (peer for peer in options.peers if peer in OURS):
        with console.status(f"both versions: {peer}"):
            this, other = processor_time(
                {"this": None, "against": against},
                perception=peer,
                ppo=_preset(options),
                rollouts=options.rollouts,
                rounds=options.rounds,
                threads=options.threads or usable_cores(),
                seed=options.seed,
            ).values()
        times |= {f"{peer}, this version": this, f"{peer}, against": other}
        ratios[peer] = [b / a for a, b in zip(this, other, strict=True)]
    console.print(_report.spread_table("processor ms a trained frame", times, "{:,.3f}"))
    console.print(_report.spread_table("against / this", ratios, "{:,.2f}"))
    return {
        "against": against.resolve().name,
        "time": {name: _report.spread(values, "ms/frame") for name, values in times.items()},
        "ratios": {name: _report.spread(values, "x") for name, values in ratios.items()},
    }


def _preset(options: Options) -> PPOPreset:
    from robot_attn_policies.training.presets import PPOPreset

    return PPOPreset(n_steps=options.n_steps)


@contextmanager
def _our_stack(peer: Peer, options: Options) -> Iterator[_render_peers.Advance]:
    import torch

    from robot_attn.cores import usable_cores
    from robot_attn_policies.training.presets import TrainConfig
    from robot_attn_policies.training.process_settings import keep_memory
    from robot_attn_policies.training.train import SAVE_SECONDS, Training
    from robot_attn_scripts.train import env_maker

    ppo, threads = _preset(options), options.threads or usable_cores()
    config = TrainConfig(
        "track", perception=peer, seed=options.seed, steps=1, ppo=ppo, eval_every=0, threads=threads
    )
    torch.set_num_threads(1)
    keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        training = Training(config, env_maker(config), Path(folder), None, lambda: False)

        def advance(rollouts: int) -> int:
            frames = rollouts * ppo.n_envs * ppo.n_steps
            training.config = replace(config, steps=training.model.num_timesteps + frames)
            training.loop(None, SAVE_SECONDS)
            return frames

        try:
            training.start()
            advance(1)  # compiles the kernel, fills the caches
            yield advance
        finally:
            training.close()


@contextmanager
def _their_stack(peer: Peer, options: Options) -> Iterator[_render_peers.Advance]:
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import SubprocVecEnv

    from robot_attn.cores import usable_cores

    shadows = peer == "sb3"
    with _render_peers.opengl():  # once here, where it can be said what is wrong; a subprocess would only end
        trial = GymnasiumTrack(shadows=shadows)
        trial.reset(seed=options.seed)
        trial.close()
    torch.set_num_threads(options.threads or usable_cores())
    ppo, cores = _preset(options), usable_cores()
    env = SubprocVecEnv([lambda: GymnasiumTrack(shadows=shadows)] * cores, start_method="spawn")
    try:
        model = PPO(
            "CnnPolicy",
            env,
            learning_rate=ppo.learning_rate,
            n_steps=max(1, ppo.n_envs * ppo.n_steps // cores),
            **ppo.update_arguments(),
            policy_kwargs={
                "net_arch": list(ppo.net_arch),
                "log_std_init": ppo.log_std_init,
                "ortho_init": ppo.ortho_init,
                "optimizer_kwargs": {"eps": ppo.adam_eps},
            },
            seed=options.seed,
            device="cpu",
        )

        def advance(rollouts: int) -> int:
            before = model.num_timesteps
            # `learn` goes on until it has had as many steps, in whole rollouts.
            model.learn(rollouts * model.n_steps * cores, reset_num_timesteps=before == 0)
            return model.num_timesteps - before

        yield advance
    finally:
        env.close()


# -------------------------------------------------------------------------------- what SB3 is trained on


class GymnasiumTrack(gymnasium.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """Track as a plain Gymnasium environment: one `MjData`, drawn by Gymnasium's `MujocoRenderer`.

    The task is Track's own: for the same seed and actions it gives the rewards of `RobotAttn/Track-v0`.
    Observation: uint8 (64, 64, 3), RGB. Actions: Track's, float32 (2,) in [-1, 1].

    Args:
        shadows: draw as MuJoCo does by default; otherwise without shadows and multisampling.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}  # type: ignore[misc]

    def __init__(self, *, shadows: bool = True) -> None:
        import mujoco
        from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

        from robot_attn_envs.tasks.track import Track

        self._task = Track(1)
        self._model = model = mujoco.MjModel.from_xml_string(self._task.mjcf())
        if not shadows:
            model.light_castshadow[:] = 0
            model.vis.quality.offsamples = 0
        self._data = mujoco.MjData(model)
        self._step_physics, self._update_positions = mujoco.mj_step, mujoco.mj_fwdPosition
        self._reset_physics = mujoco.mj_resetData
        self._task.geom_rgba = model.geom_rgba[None]
        self._task.bind(model, cast(Any, _OneWorld(self._data)), aspect=1.0)
        self._steps = np.zeros(1, np.int64)
        self.render_mode = "rgb_array"
        self._renderer = MujocoRenderer(
            model, self._data, width=FRAME, height=FRAME, camera_name=self._task.camera
        )
        self.observation_space = gymnasium.spaces.Box(0, 255, (FRAME, FRAME, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (len(self._task.action_table),), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self._reset_physics(self._model, self._data)
        self._task.reset(0, self.np_random)
        self._steps[:] = 0
        self._update_positions(self._model, self._data)
        return self.render(), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self._task.act(np.clip(np.asarray(action, np.float64), -1.0, 1.0)[None], self._steps)
        self._step_physics(self._model, self._data, self._task.substeps)
        self._update_positions(self._model, self._data)
        self._steps += 1
        reward, terminated, success = self._task.compute_reward(self._steps)
        truncated = bool(self._steps[0] >= self._task.horizon) and not terminated[0]
        return self.render(), float(reward[0]), bool(terminated[0]), truncated, {"success": bool(success[0])}

    def render(self) -> NDArray[np.uint8]:
        return np.asarray(self._renderer.render("rgb_array"))

    def close(self) -> None:
        self._renderer.close()  # type: ignore[no-untyped-call]


class _OneWorld:
    """The fields of one `MjData` with the leading axis of worlds that a task expects."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def bind(self, name: str) -> NDArray[Any]:
        return np.asarray(getattr(self._data, name))[None]
