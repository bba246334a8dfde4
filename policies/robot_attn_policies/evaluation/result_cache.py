"""Cells of a comparison: what a run, or the two ends of the score, did in one scene, each in a file.

A cell says what was asked (`Question`) and what came out, one number an episode. It is written in one step
and kept as long as the same is asked, so that a comparison that was stopped goes on from its cells, and so
that intervals can be taken again without a simulator.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from robot_attn_policies.evaluation.evaluate import Focus, with_baselines
from robot_attn_policies.rollouts.rollout import Rollouts
from robot_attn_policies.training.dataclass_json import from_json
from robot_attn_policies.training.presets import Json
from robot_attn_policies.training.run_folder import CONFIG, RunError, policy_path, read_json, write_file


@dataclass(frozen=True)
class Question:
    """What a cell measures."""

    task: str
    scene: str
    env: Mapping[str, Json]
    """Options of the environment in this scene."""
    first_seed: int
    episodes: int
    versions: Mapping[str, str]
    """Of Python and the libraries that take part."""
    policy: str | None = None
    """`policy_identity`; None for the ends of the score."""
    trained_env: Mapping[str, Json] | None = None
    """Options of the environment in which the best head is chosen."""
    calibration: Mapping[str, int] | None = None
    """First seed and number of the episodes on which it is chosen."""


@dataclass(frozen=True)
class Baselines:
    """Returns of the random policy and of the oracle, one an episode."""

    random: tuple[float, ...]
    oracle: tuple[float, ...]


@dataclass(frozen=True)
class Scores:
    """What a policy did, one number an episode; those of focus are sums over its visible frames."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    successes: tuple[bool, ...] | None
    """None where the task does not say."""
    head: int
    """The best head, whose focus this is."""
    mass: tuple[float, ...]
    hits: tuple[float, ...]
    chance: tuple[float, ...]
    center_bias: tuple[float, ...]
    """Mass on the target of the map that is centred in the frame."""
    visible: tuple[int, ...]
    """Frames scored."""


Answer = TypeVar("Answer", bound=Baselines | Scores)


def scores_of(rollouts: Rollouts, focus: Focus) -> Scores:
    """What a cell keeps of an evaluation."""
    totals, head = focus.totals, focus.best_head
    return Scores(
        returns=_rounded(rollouts.returns),
        lengths=tuple(rollouts.lengths.tolist()),
        successes=None if rollouts.successes is None else tuple(rollouts.successes.tolist()),
        head=head,
        mass=_rounded(totals.mass[:, head]),
        hits=_rounded(totals.hits[:, head]),
        chance=_rounded(totals.chance),
        center_bias=_rounded(totals.mass[:, focus.index("center_bias")]),
        visible=tuple(totals.visible.tolist()),
    )


def baselines_of(random: Rollouts, oracle: Rollouts) -> Baselines:
    """What a cell keeps of the two ends.

    Raises:
        ValueError: the oracle earned no more than the random policy.
    """
    with_baselines(random.returns, random.returns, oracle.returns)
    return Baselines(_rounded(random.returns), _rounded(oracle.returns))


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    # More digits would say nothing, and cells are kept with the results that were made of them.
    return tuple(round(value, 6) for value in values.tolist())


def policy_identity(folder: Path, which: Literal["best", "last"]) -> str:
    """SHA-256 of a run's configuration and policy."""
    identity = hashlib.sha256()
    for path in (folder / CONFIG, policy_path(folder, which)):
        identity.update(hashlib.sha256(path.read_bytes()).digest())
    return identity.hexdigest()


def write_cell(path: Path, question: Question, answer: Baselines | Scores) -> None:
    """Write a cell in one step, a field a line.

    Raises:
        RunError: no space left, or the folder cannot be written.
    """
    parts = []
    for name, part in (("question", question), ("answer", answer)):
        lines = (f'    "{field}": {json.dumps(value)}' for field, value in asdict(part).items())
        parts.append(f'  "{name}": {{\n' + ",\n".join(lines) + "\n  }")
    write_file(path, ("{\n" + ",\n".join(parts) + "\n}\n").encode())


def read_cell(path: Path, question: Question, kind: type[Answer]) -> Answer | None:
    """The answer in a cell; None where there is none yet, or one to another question.

    Raises:
        RunError: the file is damaged.
    """
    if not path.is_file():
        return None
    data = read_json(path)
    try:
        if not isinstance(data, dict) or data.keys() != {"question", "answer"}:
            raise ValueError("it is no question with its answer")
        if from_json(Question, data["question"], "question") != question:
            return None
        answer: Answer = from_json(kind, data["answer"], "answer")
        for field in fields(answer):
            values = getattr(answer, field.name)
            if isinstance(values, tuple) and len(values) != question.episodes:
                raise ValueError(f"expected {question.episodes} {field.name}, found {len(values)}")
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): delete it, and it is measured again") from error
    return answer
