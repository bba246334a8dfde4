"""Collect whole episodes during a rollout, every array to the bit, for a dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from robot_attn import Percept
from robot_attn_policies.probing.probe import PolicyProbe
from robot_attn_policies.rollouts.actor import ObservationBatch, peek
from robot_attn_policies.rollouts.env_batch import as_batch
from robot_attn_policies.rollouts.rollout import Step
from robot_attn_policies.sb3.context import Context


@dataclass(frozen=True)
class RecordedEpisode:
    """An episode of T steps.

    Attributes:
        seed: seed of the environment.
        instruction: the instruction as text, or None.
        observations: [T + 1, ...], the last one included; a mapping of such arrays for a `Dict` space.
        actions: [T, ...].
        rewards: [T].
        terminations: bool [T].
        truncations: bool [T].
        infos: [T + 1, ...] by name: the numeric arrays that the environment returns with every observation in
            one shape and dtype, and the policy's maps under their names of `map_names`.
    """

    seed: int
    instruction: str | None
    observations: Any
    actions: NDArray[Any]
    rewards: NDArray[Any]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    infos: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.actions)

    def arrays(self) -> list[NDArray[Any]]:
        """All arrays."""
        entries = (
            self.observations.values() if isinstance(self.observations, Mapping) else [self.observations]
        )
        return [
            *entries,
            self.actions,
            self.rewards,
            self.terminations,
            self.truncations,
            *self.infos.values(),
        ]

    @property
    def success(self) -> bool | None:
        """Whether the episode ended in success, or None where the environment does not say."""
        for name in ("success", "is_success"):
            if name in self.infos:
                return bool(self.infos[name][-1])
        return None


@contextmanager
def dataset_errors(folder: Path) -> Iterator[None]:
    """Turn an error of writing into one sentence about the dataset.

    Args:
        folder: the dataset's folder.

    Raises:
        OSError: the dataset cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(
            f"cannot write {folder}: {reason}: nothing was written; free some space, or name another place"
        ) from error


def map_names(probes: Mapping[str | None, PolicyProbe]) -> dict[str, PolicyProbe]:
    """Name the maps of a policy at each of its cameras.

    Args:
        probes: the policy at each camera, by the key of the camera's image.

    Returns:
        The kind of the maps, followed by a dot and the key where there are several cameras -> probe. Maps
        that are uniform by construction are left out.
    """
    several = len(probes) > 1
    return {
        f"{probe.kind}.{key}" if several else probe.kind: probe
        for key, probe in probes.items()
        if not probe.uniform
    }


class EpisodeCollector(VectorWrapper[Any, Any, Any, Any, Any]):
    """Collect whole episodes from a batch of environments during `rollout_episodes`.

    Args:
        env: batch of environments.
        probes: the policy at each of its cameras, by the key of the camera's image. The first one acts.
        seeds: seeds of the episodes.
        on_episodes: called with finished episodes, in the order of their seeds.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        probes: Mapping[str | None, PolicyProbe],
        seeds: Sequence[int],
        on_episodes: Callable[[Sequence[RecordedEpisode]], None],
    ) -> None:
        super().__init__(env)
        self._first = next(iter(probes.values()))
        self._maps, self._seeds, self._on_episodes = map_names(probes), seeds, on_episodes
        self._step: Any = None
        self._open: dict[int, _Recording] = {}
        self._done: dict[int, _Recording] = {}

    def step(self, actions: NDArray[Any]) -> Any:
        self._step = super().step(actions)
        return self._step

    def on_step(self, step: Step) -> None:
        """Keep a step; the `on_step` callback of `rollout_episodes`."""
        _, _, terminated, truncated, after = self._step
        maps = self._maps_of(step.observation, step.percept, step.context)
        for i in np.flatnonzero(step.running).tolist():
            episode = self._open.setdefault(int(step.episode[i]), _Recording(_text(step.info, i)))
            infos = _row_of_infos(step.info, i) | {name: each[i] for name, each in maps.items()}
            episode.add(_row(step.observation, i), infos)
            episode.actions.append(np.array(step.actions[i]))
            episode.rewards.append(step.rewards[i])
            episode.terminations.append(bool(terminated[i]))
            episode.truncations.append(bool(truncated[i]))
            if step.done[i]:
                last = _row(after["final_obs"], i)
                _, percept = peek(self._first.act, as_batch(last), Context())
                last_maps = self._maps_of(as_batch(last), percept, Context())
                infos = _row_of_infos(after["final_info"], i)
                episode.add(last, infos | {name: each[0] for name, each in last_maps.items()})
                self._done[int(step.episode[i])] = self._open.pop(int(step.episode[i]))
        if not self._open:
            self.flush()

    def flush(self) -> int:
        """Pass the finished episodes to `on_episodes` and return their number."""
        done, self._done = self._done, {}
        if done:
            self._on_episodes([done[i].finish(int(self._seeds[i])) for i in sorted(done)])
        return len(done)

    def _maps_of(
        self, observation: ObservationBatch, percept: Percept | None, context: Context
    ) -> dict[str, NDArray[np.float32]]:
        """Maps [N, heads, rows, cols] of each camera; `percept` is the first one's."""
        found: dict[str, NDArray[np.float32]] = {}
        for name, probe in self._maps.items():
            if probe is not self._first:
                _, percept = peek(probe.act, observation, context)
            if percept is not None:
                found[name] = percept.attention.numpy(force=True)
        return found


class _Recording:
    """An unfinished episode."""

    def __init__(self, instruction: str | None) -> None:
        self.instruction = instruction
        self.observations: list[Any] = []
        self.infos: list[dict[str, Any]] = []
        self.actions: list[NDArray[Any]] = []
        self.rewards: list[Any] = []
        self.terminations: list[bool] = []
        self.truncations: list[bool] = []

    def add(self, observation: Any, infos: dict[str, Any]) -> None:
        self.observations.append(observation)
        self.infos.append(infos)

    def finish(self, seed: int) -> RecordedEpisode:
        names = [
            name
            for name, first in self.infos[0].items()
            if all(name in row and _same_form(row[name], first) for row in self.infos)
        ]
        return RecordedEpisode(
            seed=seed,
            instruction=self.instruction,
            observations=_stack(self.observations),
            actions=np.stack(self.actions),
            rewards=np.stack(self.rewards),
            terminations=np.array(self.terminations),
            truncations=np.array(self.truncations),
            infos={name: np.stack([row[name] for row in self.infos]) for name in names},
        )


def _row(observation: ObservationBatch, i: int) -> Any:
    """Copy observation i of a batch, as an environment may reuse the memory for the next one."""
    if isinstance(observation, Mapping):
        return {name: np.array(entry[i]) for name, entry in observation.items()}
    row = observation[i]  # Gymnasium's final observations are an array of objects
    return (
        {name: np.array(entry) for name, entry in row.items()} if isinstance(row, Mapping) else np.array(row)
    )


def _row_of_infos(infos: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Copy the numeric infos of environment i in a batch."""
    return {
        name: np.array(values[i])
        for name, values in infos.items()
        if isinstance(values, np.ndarray)
        and not name.startswith("_")
        and values.dtype.kind in "biuf"
        and infos.get(f"_{name}", {i: True})[i]
    }


def _text(infos: Mapping[str, Any], i: int) -> str | None:
    """Return the instruction of environment i in a batch, if the environment gives any."""
    return str(infos["instruction"][i]) if "instruction" in infos else None


def _same_form(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def _stack(observations: Sequence[Any]) -> Any:
    first = observations[0]
    if isinstance(first, Mapping):
        return {name: np.stack([row[name] for row in observations]) for name in first}
    return np.stack(observations)
