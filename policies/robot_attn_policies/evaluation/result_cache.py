"""Cache of a comparison's results: one file ("cell") per run, scene and measurement.

A cell has the question (`Question`: what was evaluated, with all settings) and the answer (one number per
episode). It is written atomically and reused as long as the question is the same. An interrupted comparison
continues from its cells, and intervals can be recomputed without a simulator.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from robot_attn.explain import STATES
from robot_attn.things import DISTRACTORS, thing_kinds
from robot_attn_policies.evaluation.evaluate import Focus, with_baselines
from robot_attn_policies.evaluation.nuisance import FRAMES, Nuisance
from robot_attn_policies.rollouts.rollout import Rollouts
from robot_attn_policies.training.dataclass_json import from_json
from robot_attn_policies.training.presets import Json
from robot_attn_policies.training.run_folder import CONFIG, RunError, policy_path, read_json, write_file


@dataclass(frozen=True)
class Question:
    """What a cell evaluates, with all settings that its result depends on."""

    task: str
    """Id of the task."""
    scene: str
    """Name of the scene."""
    env: Mapping[str, Json]
    """Options of the environment in this scene."""
    first_seed: int
    """Seed of the first episode; episode i has first_seed + i."""
    episodes: int
    """Number of episodes."""
    versions: Mapping[str, str]
    """Versions of Python and of the libraries that results depend on."""
    policy: str | None = None
    """`policy_identity`; None for the baselines."""
    trained_env: Mapping[str, Json] | None = None
    """Options of the environment on which the best head is chosen."""
    calibration: Mapping[str, int] | None = None
    """First seed and number of the episodes on which the best head is chosen."""


@dataclass(frozen=True)
class NuisanceQuestion(Question):
    """What a cell of nuisance evaluates."""

    frames: int = FRAMES
    """Number of frames if no episode ends early."""


@dataclass(frozen=True)
class Baselines:
    """Returns of the random policy and of the oracle, which define normalised scores of 0 and 1.

    Without an oracle scores are not normalised.
    """

    random: tuple[float, ...]
    """Return per episode."""
    oracle: tuple[float, ...] | None
    """Return per episode; None if the environment has no oracle."""


@dataclass(frozen=True)
class Scores:
    """Results of a policy, one number per episode; focus is summed over frames with a visible target."""

    returns: tuple[float, ...]
    """Return per episode."""
    lengths: tuple[int, ...]
    """Steps per episode."""
    successes: tuple[bool, ...] | None
    """Success per episode; None if the task does not report it."""
    head: int
    """The best head, whose focus this is."""
    mass: tuple[float, ...]
    """Attention mass on the target."""
    hits: tuple[float, ...]
    """Frames in which the map's maximum is on the target (pointing game); ties count in part."""
    chance: tuple[float, ...]
    """Mass of a uniform map on the target."""
    center_bias: tuple[float, ...]
    """Mass of a centre-bias map on the target."""
    visible: tuple[int, ...]
    """Number of frames with a visible target."""
    attended: tuple[int, ...] | None = None
    """Number of frames in which the target is attended; None in a cell of an earlier version."""
    distractors: tuple[float, ...] | None = None
    """Attention mass on distractors, summed over all frames; None without labels of them, and in a cell of an
    earlier version."""


@dataclass(frozen=True)
class NuisanceScores:
    """Nuisance of a policy, one number per episode: `Nuisance`."""

    backdrop: tuple[float, ...]
    """Share of causal mass on the backdrop, summed over the scored frames."""
    distractors: tuple[float, ...]
    """Share on distractors."""
    occluder: tuple[float, ...]
    """Share on an occluder."""
    clipped: tuple[float, ...]
    """Share on all of these of importance that is clipped at 0."""
    uniform: tuple[float, ...]
    """Share of a uniform map on all of these."""
    scored: tuple[int, ...]
    """Number of frames that are scored."""
    blank: tuple[int, ...]
    """Number of frames without a significant pixel."""
    hidden: tuple[int, ...]
    """Number of frames with nothing in view that can matter."""

    @property
    def rows(self) -> NDArray[np.float64]:
        """[E, 2] share on all that cannot matter, and number of scored frames, for `ratio_of_sums`."""
        return np.stack([np.add(np.add(self.backdrop, self.distractors), self.occluder), self.scored], axis=1)


Result: TypeAlias = Baselines | Scores | NuisanceScores
"""Answer of a cell."""
Answer = TypeVar("Answer", bound=Result)


def scores_of(rollouts: Rollouts, focus: Focus) -> Scores:
    """Scores of an evaluation, for a cell."""
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
        attended=tuple(focus.states[:, head, STATES.index("attended")].tolist()),
        distractors=None
        if DISTRACTORS not in thing_kinds(focus.things.names)
        else _rounded(focus.things.mean_mass(head, DISTRACTORS).numerator),
    )


def nuisance_scores_of(nuisance: Nuisance) -> NuisanceScores:
    """Nuisance of an evaluation, for a cell."""
    return NuisanceScores(
        backdrop=_rounded(nuisance.backdrop),
        distractors=_rounded(nuisance.distractors),
        occluder=_rounded(nuisance.occluder),
        clipped=_rounded(nuisance.clipped),
        uniform=_rounded(nuisance.uniform),
        scored=tuple(nuisance.scored.tolist()),
        blank=tuple(nuisance.blank.tolist()),
        hidden=tuple(nuisance.hidden.tolist()),
    )


def baselines_of(random: Rollouts, oracle: Rollouts | None) -> Baselines:
    """Baselines of an evaluation, for a cell; `oracle` is None if the environment has none.

    Raises:
        ValueError: the oracle's mean return is not above the random policy's.
    """
    if oracle is None:
        return Baselines(_rounded(random.returns), None)
    with_baselines(random.returns, random.returns, oracle.returns)
    return Baselines(_rounded(random.returns), _rounded(oracle.returns))


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    # Further digits are noise, and cells are published together with the results.
    return tuple(round(value, 6) for value in values.tolist())


def policy_identity(folder: Path, which: Literal["best", "last"]) -> str:
    """SHA-256 of a run's configuration and policy, hexadecimal."""
    identity = hashlib.sha256()
    for path in (folder / CONFIG, policy_path(folder, which)):
        identity.update(hashlib.sha256(path.read_bytes()).digest())
    return identity.hexdigest()


def write_cell(path: Path, question: Question, answer: Result) -> None:
    """Write a cell atomically, one field per line.

    Raises:
        RunError: no space is left, or the folder cannot be written.
    """
    parts = []
    for name, part in (("question", question), ("answer", answer)):
        lines = (f'    "{field}": {json.dumps(value)}' for field, value in asdict(part).items())
        parts.append(f'  "{name}": {{\n' + ",\n".join(lines) + "\n  }")
    write_file(path, ("{\n" + ",\n".join(parts) + "\n}\n").encode())


def read_cell(path: Path, question: Question, kind: type[Answer]) -> Answer | None:
    """Read a cell's answer.

    Args:
        path: the cell's file.
        question: what was to be evaluated.
        kind: `Scores`, `Baselines` or `NuisanceScores`.

    Returns:
        The answer; None if there is no cell yet, or if it answers another question.

    Raises:
        RunError: the file is damaged.
    """
    if not path.is_file():
        return None
    data = read_json(path)
    try:
        if not isinstance(data, dict) or data.keys() != {"question", "answer"}:
            raise ValueError("expected the fields question and answer")
        if from_json(type(question), data["question"], "question") != question:
            return None
        answer: Answer = from_json(kind, _completed(kind, data["answer"]), "answer")
        for field in fields(answer):
            values = getattr(answer, field.name)
            if isinstance(values, tuple) and len(values) != question.episodes:
                raise ValueError(f"expected {question.episodes} {field.name}, got {len(values)}")
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): delete it to evaluate it again") from error
    return answer


def _completed(kind: type[Answer], data: Any) -> Any:
    """Add the fields that a cell of an earlier version lacks, with their defaults."""
    defaults = {field.name: field.default for field in fields(kind) if field.default is not MISSING}
    return {**defaults, **data} if isinstance(data, dict) else data
