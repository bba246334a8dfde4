"""Policies in zips of Stable-Baselines3 and sb3-contrib, and the statistics of `VecNormalize` beside them.

Both files hold pickled objects: opening one runs whatever code its author put into it. They are opened only
where the caller says that they trust the author. Which algorithm a zip is of is read from its JSON, without
running code.
"""

from __future__ import annotations

import importlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from robot_attn.errors import unknown_name
from robot_attn_policies.compat.stable_baselines3 import ACTING_ONLY

_SB3, _CONTRIB = "stable_baselines3", "sb3_contrib"
ALGORITHMS: Mapping[str, str] = {
    "PPO": _SB3,
    "A2C": _SB3,
    "SAC": _SB3,
    "TD3": _SB3,
    "DDPG": _SB3,
    "DQN": _SB3,
    "TQC": _CONTRIB,
    "QRDQN": _CONTRIB,
    "TRPO": _CONTRIB,
    "ARS": _CONTRIB,
    "CrossQ": _CONTRIB,
    "RecurrentPPO": _CONTRIB,
    "MaskablePPO": _CONTRIB,
}
"""The algorithms whose zips can be loaded, with the package of each."""

_MARKS = (
    ("TRPO", {"cg_max_steps"}),
    ("ARS", {"n_delta"}),
    ("TQC", {"top_quantiles_to_drop_per_net"}),
    ("QRDQN", {"exploration_rate", "n_quantiles"}),
    ("DQN", {"exploration_rate"}),
    ("TD3", {"target_policy_noise"}),  # and DDPG, whose policies are the same
    ("CrossQ", {"target_entropy", "policy_delay"}),
    ("SAC", {"target_entropy"}),
    ("PPO", {"clip_range"}),
    ("A2C", {"gae_lambda"}),
)
"""Names in a zip's data that only one algorithm has; the first row that fits counts."""
_PPO_MODULES = {
    "stable_baselines3.": "PPO",
    "robot_attn_policies.": "PPO",
    "sb3_contrib.common.recurrent.": "RecurrentPPO",
    "sb3_contrib.common.maskable.": "MaskablePPO",
}
"""RecurrentPPO and MaskablePPO have the same names in their data; the module of the policy's class tells."""


def load_zip(path: str | Path, *, trust: bool = False, algorithm: str | None = None) -> BaseAlgorithm:
    """Load a policy that `model.save` of Stable-Baselines3 or sb3-contrib wrote, to act with.

    Schedules, buffers and the last observation are left out: the model is not meant to be trained further.
    Global random states are left as they are.

    Args:
        path: the zip.
        trust: whether you trust whoever made the file. Opening it runs the code that it holds.
        algorithm: a key of `ALGORITHMS`; None to read it from the zip.

    Returns:
        The algorithm, on the CPU.

    Raises:
        ValueError: `trust` is not set; the file is not such a zip, or damaged, or of another algorithm; its
            algorithm is not known; or its policy cannot be built here.
    """
    source = Path(path)
    check_trust(source, trust)
    name = zip_algorithm(source, algorithm)
    model_class: type[BaseAlgorithm] = getattr(importlib.import_module(ALGORITHMS[name]), name)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You loaded a model that was trained using OpenAI Gym")
            return model_class.load(source, device="cpu", custom_objects=dict(ACTING_ONLY))
    except Exception as error:  # unpickling a stranger's objects can raise anything
        raise ValueError(
            f"expected a zip of {name} that can be loaded here, got {source}, saved with "
            f"{_saved_with(source)}: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


def load_vecnormalize(path: str | Path, *, trust: bool = False) -> VecNormalize:
    """Load the statistics that `VecNormalize.save` wrote.

    Args:
        path: the file.
        trust: whether you trust whoever made the file. Opening it runs the code that it holds.

    Returns:
        A `VecNormalize` without an environment; its `normalize_obs` works.

    Raises:
        ValueError: `trust` is not set, or the file holds something else or is damaged.
        OSError: the file cannot be read.
    """
    source = Path(path)
    check_trust(source, trust)
    with source.open("rb") as file:
        try:
            statistics = pickle.load(file)
        except Exception as error:  # unpickling a stranger's objects can raise anything
            raise ValueError(
                f"expected the statistics of VecNormalize, got {source}, which is not a pickle that can be "
                f"loaded here: {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
    if not isinstance(statistics, VecNormalize):
        raise ValueError(
            f"expected the statistics of VecNormalize, got {source} with a {type(statistics).__name__}: name "
            "the file that VecNormalize.save wrote"
        )
    statistics.training = False
    return statistics


def check_trust(path: Path, trust: bool) -> None:
    """Check that the caller trusts a file that runs code when it is opened.

    Raises:
        ValueError: `trust` is not set.
    """
    if not trust:
        raise ValueError(
            f"expected trust in {path}, got none: opening it runs the code in its pickled objects, whoever "
            "put it there; if you trust where it comes from, say so with --trust, in Python trust=True"
        )


def zip_algorithm(path: str | Path, algorithm: str | None = None) -> str:
    """Return which algorithm a zip is of, without running the code in it.

    Args:
        path: the zip.
        algorithm: the algorithm as the caller knows it, which is checked; needed if the zip does not tell.

    Returns:
        A key of `ALGORITHMS`.

    Raises:
        ValueError: the file is not a zip of Stable-Baselines3, or is damaged; it is of another algorithm than
            the given one; or its algorithm cannot be told.
    """
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise unknown_name("algorithm", algorithm, ALGORITHMS)
    found = _algorithm_of(_read_data(Path(path)))
    same = {"DDPG": "TD3"}
    if algorithm is not None and found is not None and same.get(algorithm, algorithm) != found:
        raise ValueError(
            f"expected a zip of {algorithm}, got {path}, which is of {found}: leave the algorithm out"
        )
    name = algorithm or found
    if name is None:
        raise ValueError(
            f"expected a zip that tells its algorithm, got {path} with a policy class of another package: "
            "name the algorithm with --algorithm, in Python algorithm="
        )
    return name


def _read_data(path: Path) -> dict[str, Any]:
    """Return the JSON of a zip's `data`, in which objects are still pickled."""
    advice = "name a file that model.save of Stable-Baselines3 wrote"
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"a wrong checksum of {damaged}")
            data: Any = json.loads(archive.read("data")) if "data" in names else None
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise ValueError(
            f"expected a zip, got {path}, which is none or is damaged ({error}): {advice}"
        ) from error
    if not isinstance(data, dict) or "policy.pth" not in names:
        raise ValueError(
            f"expected a zip of Stable-Baselines3 with 'data' and 'policy.pth', got {path} with "
            f"{sorted(names)[:5]}: {advice}"
        )
    return data


def _algorithm_of(data: Mapping[str, Any]) -> str | None:
    name = next((name for name, marks in _MARKS if marks <= set(data)), None)
    if name != "PPO":
        return name
    policy_class = data.get("policy_class")
    module = policy_class.get("__module__", "") if isinstance(policy_class, dict) else ""
    return next((known for start, known in _PPO_MODULES.items() if str(module).startswith(start)), None)


def _saved_with(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        if "_stable_baselines3_version" not in archive.namelist():
            return "an unknown version of Stable-Baselines3"
        version = archive.read("_stable_baselines3_version").decode(errors="replace").strip()
    return f"Stable-Baselines3 {version}"
