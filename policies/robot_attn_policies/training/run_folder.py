"""A run's folder: written so that it can be killed at any moment, read so that it can be trusted.

    config.json              the resolved `TrainConfig`, the spaces, library versions, git commit
    policy.safetensors       the last policy
    best/policy.safetensors  the best on the training's evaluation seeds; best/score.json says how good
    trainer.pt               all that training goes on from, for `torch.load(..., weights_only=True)`
    progress.csv             a row for each update, and for an evaluation after the last
    tensorboard/             the same as events

Each file is replaced in one step (temporary name, flush, `os.replace`) and carries its own SHA-256, so that
no two files have to change together and a kill between any two leaves a folder that loads. A policy names the
configuration it belongs to by the hash of the part that shapes it. Reading never unpickles anything but
tensors and plain containers, and allocates nothing before sizes are checked against the file at hand. Hashes
catch accidents; a policy from a stranger is held off by strict types, sizes and shapes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from gymnasium import spaces
from torch import Tensor

import robot_attn
from robot_attn.files import replacing
from robot_attn_policies.sb3.policy import PerceptionPolicy, build_policy, fill_policy, policy_weights
from robot_attn_policies.training import format_1
from robot_attn_policies.training.dataclass_json import from_json
from robot_attn_policies.training.presets import TrainConfig
from robot_attn_policies.training.spaces_json import space_from_json, space_to_json

FORMAT = 2
READABLE = (1, FORMAT)
"""The formats whose configuration and policies are read; trainings go on from the last alone."""
CONFIG, POLICY, TRAINER, PROGRESS, TENSORBOARD = (
    "config.json",
    "policy.safetensors",
    "trainer.pt",
    "progress.csv",
    "tensorboard",
)
BEST, SCORE, LOCK = "best", "score.json", ".lock"

_ABOUT = "robot-attn"
_DTYPES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Of parameters and buffers, as safetensors calls them."""
_MAX_JSON = 1 << 20
_MAX_HEADER = 1 << 20
_MAX_TRAINER = 1 << 33
_ZIP_END = b"PK\x05\x06"
_LIBRARIES = ("robot-attn", "torch", "numpy", "gymnasium", "stable-baselines3", "mujoco", "mujoco-warp")


class RunError(ValueError):
    """A run folder that cannot be read or written: which file, what was expected and found, what to do."""


@dataclass(frozen=True)
class Run:
    """What config.json says."""

    config: TrainConfig
    observation_space: spaces.Space[Any]
    """The policy's: images channel-first."""
    action_space: spaces.Space[Any]
    versions: Mapping[str, str]
    """Of Python and the libraries that took part."""
    git_commit: str | None
    """Of robot-attn, with "-dirty" where files differ from it; None outside a checkout."""
    format: int = FORMAT
    """Of the folder that it was read from: the policies in it are named by the hash that it had then."""

    @property
    def policy_hash(self) -> str:
        """SHA-256 of what shapes the policy: spaces, perception and the preset's network fields.

        The rest of a configuration may change (more steps, say) and the policies beside it stay its own.
        """
        return json_hash(_policy_fields(self))


def describe(
    config: TrainConfig, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> Run:
    """A run of these, on this machine's libraries."""
    return Run(config, observation_space, action_space, library_versions(), _git_commit())


def library_versions() -> dict[str, str]:
    """Of Python, and of the libraries on which results depend."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


# ----------------------------------------------------------------------------------------------------
# config.json


def write_config(folder: Path, run: Run) -> None:
    """Write `folder`/config.json."""
    data = {
        "format": FORMAT,
        "config": asdict(run.config),
        "observation_space": space_to_json(run.observation_space),
        "action_space": space_to_json(run.action_space),
        "versions": dict(run.versions),
        "git_commit": run.git_commit,
    }
    data["sha256"] = json_hash(data)
    write_file(folder / CONFIG, (json.dumps(data, indent=2) + "\n").encode())


def read_config(folder: str | os.PathLike[str]) -> Run:
    """Read `folder`/config.json.

    Raises:
        RunError: there is none, or it is cut, damaged, edited, or describes nothing that can be built.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise RunError(
            f"expected a run folder with a {CONFIG}, found none in {folder}: name a folder made by training"
        )
    data = read_json(path)
    if not isinstance(data, dict) or data.get("format") not in READABLE:
        found = repr(data.get("format")) if isinstance(data, dict) else type(data).__name__
        raise RunError(
            f"{path}: expected format {FORMAT}, found {found:.80}: it is damaged, or another version wrote it"
        )
    stated = data.pop("sha256", None)
    if stated != json_hash(data):
        raise RunError(
            f"{path} was edited or damaged: its content has SHA-256 {json_hash(data)[:12]}..., it states "
            f"{stated!r:.16}...: put the original back, or train a new run with the configuration you want"
        )
    try:
        fields = {"format", "config", "observation_space", "action_space", "versions", "git_commit"}
        if set(data) != fields:
            raise ValueError(f"expected the fields {sorted(fields)}, found {sorted(data)!s:.200}")
        config = from_json(TrainConfig, data["config"])
        if data["format"] == 1:
            options = {format_1.OPTIONS.get(name, name): value for name, value in config.options.items()}
            config = replace(config, options=options)
        return Run(
            config=config,
            observation_space=space_from_json(data["observation_space"]),
            action_space=space_from_json(data["action_space"]),
            versions=from_json(Mapping[str, str], data["versions"]),
            git_commit=from_json(str | None, data["git_commit"]),
            format=data["format"],
        )
    except (ValueError, OverflowError) as error:
        raise RunError(f"{path} describes no training: {error}") from error


# -----------------------------------------------------------------------------------------------------
# safetensors


def write_policy(path: Path, weights: Mapping[str, Tensor], run: Run, *, steps: int) -> None:
    """Write a policy's `policy_weights` as safetensors.

    With them go a hash of themselves and the hash of the configuration that they belong to.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    about: dict[str, Any] = {"format": FORMAT, "policy_hash": run.policy_hash, "steps": steps}
    about["sha256"] = _hash_tensors(tensors, about)
    # One entry, since safetensors writes several in a random order, and equal policies should be equal files.
    write_file(path, safetensors.torch.save(tensors, {_ABOUT: json.dumps(about)}))


def policy_path(folder: Path, which: Literal["best", "last"]) -> Path:
    """The file of a run's best or last policy."""
    return folder / BEST / POLICY if which == "best" else folder / POLICY


def load_policy(
    run_folder: str | os.PathLike[str],
    which: Literal["best", "last"] = "best",
    device: str | torch.device = "cpu",
) -> tuple[PerceptionPolicy, TrainConfig]:
    """The policy of a run, in evaluation mode, and the configuration it was trained with.

    No environment is needed. Nothing in the folder is executed: the policy is built from names that this
    package knows, and filled from tensors.

    Args:
        run_folder: the folder.
        which: the best policy on the training's evaluation seeds, or the last one.
        device: where to put it.

    Raises:
        RunError: the folder is incomplete, cut, damaged, edited, or holds a policy of another architecture.
    """
    if which not in ("best", "last"):
        raise ValueError(f"expected which to be 'best' or 'last', got {which!r}")
    folder = Path(run_folder)
    run = read_config(folder)
    path = policy_path(folder, which)
    if not path.is_file():
        other = "last" if which == "best" else "best"
        raise RunError(
            f"{path} does not exist: training was stopped before it; resume it, or ask for the {other} policy"
        )
    # Building draws random weights that the file's replace; the caller's random state is no part of that.
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):  # shapes alone: a network too big to exist costs nothing here
                shapes = {
                    name: (_DTYPES[tensor.dtype], list(tensor.shape))
                    for name, tensor in policy_weights(_build(run)).items()
                }
        except Exception as error:  # whatever a family raises for options it cannot take
            raise RunError(f"{folder / CONFIG} describes a policy that cannot be built: {error}") from error
        weights = _read_tensors(path, shapes, run)
        policy = _build(run)
    fill_policy(policy, weights)
    policy.to(device)
    policy.set_training_mode(False)
    return policy, run.config


def _build(run: Run) -> PerceptionPolicy:
    return build_policy(run.config, run.observation_space, run.action_space, init=False)


def _read_tensors(path: Path, expected: Mapping[str, tuple[str, list[int]]], run: Run) -> dict[str, Tensor]:
    """The tensors of a safetensors file: first its header, then, if that is as expected, the rest."""
    damaged = f"{path} is damaged: %s; copy it again, or go back to a checkpoint that loads"
    rename = format_1.current_parameter if run.format == 1 else str
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _MAX_HEADER):
            raise RunError(damaged % f"its header claims {length} bytes of {size}")
        text = file.read(length)
    try:
        header = json.loads(text)
        about = json.loads(header.pop("__metadata__")[_ABOUT])
        stated = about.pop("sha256")
        found = {rename(name): (entry["dtype"], entry["shape"]) for name, entry in header.items()}
        end = 8 + length + max(entry["data_offsets"][1] for entry in header.values())
    except Exception as error:  # a damaged header fails in as many ways as there are to read it
        raise RunError(damaged % f"its header cannot be read ({type(error).__name__})") from error
    if end != size:
        raise RunError(damaged % f"its header tells of {end!r:.20} bytes, it has {size}")
    if found != expected or about.get("policy_hash") != run.policy_hash:
        raise RunError(
            f"{path} is of another architecture than {CONFIG} describes: {_difference(expected, found)}; put "
            "back the files that belong together"
        )
    try:
        tensors = safetensors.torch.load(path.read_bytes())
    except Exception as error:
        raise RunError(damaged % f"it cannot be read ({type(error).__name__})") from error
    if stated != _hash_tensors(tensors, about):
        raise RunError(damaged % "its content does not match the SHA-256 it states")
    return {rename(name): tensor for name, tensor in tensors.items()}


def _difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            sides = [tensors.get(name, ("nothing", "")) for tensors in (expected, found)]
            told = [f"{dtype} {shape}".strip() for dtype, shape in sides]
            return f"expected {name:.80} {told[0]:.80}, found {told[1]:.80}"
    return "the shapes agree, the configurations do not"


# ------------------------------------------------------------------------------------------------------
# trainer.pt


def write_trainer(folder: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain containers as trainer.pt, whose zip comment is the SHA-256 of the rest."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    body = bytearray(buffer.getvalue())
    comment_length = body.rindex(_ZIP_END) + 20
    body[comment_length : comment_length + 2] = (64).to_bytes(2, "little")
    write_file(folder / TRAINER, bytes(body) + hashlib.sha256(body).hexdigest().encode())


def read_trainer(folder: Path) -> dict[str, Any]:
    """What `write_trainer` wrote.

    Raises:
        RunError: the file is missing, cut or damaged, or holds more than tensors and plain containers.
    """
    path = folder / TRAINER
    if not path.is_file():
        raise RunError(
            f"{path} does not exist, training cannot go on from it: start a new run in another folder"
        )
    if path.stat().st_size > _MAX_TRAINER:
        raise RunError(
            f"{path} has {path.stat().st_size} bytes, expected at most {_MAX_TRAINER}: it is no checkpoint"
        )
    raw = path.read_bytes()
    body, stated = raw[:-64], raw[-64:]
    if hashlib.sha256(body).hexdigest().encode() != stated:
        raise RunError(
            f"{path} is damaged: its content does not match the SHA-256 at its end; copy it again, or start "
            "a new run"
        )
    try:
        state = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler's refusals have many types
        raise RunError(
            f"{path} is refused: it holds more than tensors and plain containers ({error!s:.120})"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RunError(
            f"{path}: expected a checkpoint of format {FORMAT}: another version wrote it, start a new run"
        )
    return state


# ------------------------------------------------------------------------------------------------- files and
# folder


def write_json(path: Path, data: Any) -> None:
    """Replace a small JSON file in one step."""
    write_file(path, (json.dumps(data, indent=2) + "\n").encode())


def write_file(path: Path, data: bytes) -> None:
    """Replace a file in one step: after a crash there is the old one or the new one, whole.

    Raises:
        RunError: no space left, or the folder cannot be written. The old file is still there.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the new name survives a power cut, too
        finally:
            os.close(directory)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError of writing `path` into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RunError(
                f"no space left to write {path} ({os.strerror(error.errno)}): the last checkpoint is kept; "
                "make room and go on with --resume"
            ) from error
        raise RunError(
            f"cannot write {path}: {os.strerror(error.errno or errno.EIO)}: name a folder you may write"
        ) from error


@contextlib.contextmanager
def locked(folder: Path, what: str = "training") -> Iterator[None]:
    """Make the folder and hold it, so that two processes (two trainings, say) never write the same one.

    The lock dies with its process. Where the block fails before anything was written, nothing is left behind.

    Raises:
        RunError: another process holds it, or it cannot be written.
    """
    import fcntl

    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"another {what} is writing {folder}: wait for it, or name another folder"
            ) from error
        for leftover in [*folder.glob(".*.tmp*"), *(folder / BEST).glob(".*.tmp*")]:
            leftover.unlink(missing_ok=True)  # of a training that was killed while writing
        try:
            yield
        except BaseException:
            if is_unused(folder):
                (folder / LOCK).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # another process may be using it by now
                    for path in made:
                        path.rmdir()
            raise
    finally:
        os.close(descriptor)


def is_unused(folder: Path) -> bool:
    """True where there is no folder yet, or nothing in it."""
    return not folder.exists() or (folder.is_dir() and all(entry.name == LOCK for entry in folder.iterdir()))


# --------------------------------------------------------------------------------------------------------
# internals


def _policy_fields(run: Run) -> dict[str, Any]:
    config = run.config
    former = format_1.former_option if run.format == 1 else str
    return {
        "format": run.format,
        "observation_space": space_to_json(run.observation_space),
        "action_space": space_to_json(run.action_space),
        "perception": config.perception,
        "options": {former(name): value for name, value in config.options.items()},
        "net_arch": list(config.ppo.net_arch),
        "share_features_extractor": config.ppo.share_features_extractor,
    }


def json_hash(data: Any) -> str:
    """SHA-256 of plain data, whatever the order of its names."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _hash_tensors(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes, and of what the file says about itself."""
    content = {
        name: [str(tensor.dtype), list(tensor.shape), hashlib.sha256(_bytes(tensor)).hexdigest()]
        for name, tensor in tensors.items()
    }
    return json_hash({"about": dict(about), "tensors": content})


def _bytes(tensor: Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b""


def read_json(path: Path) -> Any:
    """What a small JSON file holds.

    Raises:
        RunError: it is cut or damaged, or far too big.
    """
    size = path.stat().st_size
    if size > _MAX_JSON:
        raise RunError(f"{path} has {size} bytes, expected at most {_MAX_JSON}: it is no {path.name} of ours")
    try:
        return json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RunError(
            f"{path} is cut or damaged: expected JSON, found {error!s:.120}; put the original back"
        ) from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name}, which JSON does not have")


def _git_commit() -> str | None:
    root = Path(robot_attn.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return (
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            or None
        )
    except (OSError, subprocess.SubprocessError):
        return None
