"""Run folders: read and write the configuration, policies and checkpoint of a training run.

    config.json              the resolved `TrainConfig`, the spaces, library versions, git commit, renderer
    policy.safetensors       the last policy
    best/policy.safetensors  the best policy on the evaluation seeds, with its score in best/score.json
    trainer.pt               the checkpoint to resume from, for `torch.load(..., weights_only=True)`
    progress.csv             a row per update, and one for an evaluation after the last update
    tensorboard/             the same figures as TensorBoard events

A process may be killed at any moment. Each file is replaced atomically (temporary name, flush, `os.replace`)
and has its own SHA-256, so no two files have to change together and the folder always loads. A policy refers
to its configuration by the hash of the fields that determine its architecture.

A folder may be damaged or come from an untrusted source. Reading unpickles tensors and plain containers only,
and checks sizes against the file before it allocates memory. Hashes detect accidental damage; strict types,
sizes and shapes protect against crafted files.
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
from collections.abc import Collection, Iterator, Mapping
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
"""Formats whose configuration and policies can be read. Training resumes from the last one only."""
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
"""Supported dtypes of parameters and buffers, with safetensors' names."""
_MAX_JSON = 1 << 20
_MAX_HEADER = 1 << 20
_MAX_TRAINER = 1 << 33
_ZIP_END = b"PK\x05\x06"
_LIBRARIES = ("robot-attn", "torch", "numpy", "gymnasium", "stable-baselines3", "mujoco", "warp-lang")


class RunError(ValueError):
    """A run folder cannot be read or written. The message names the file, the cause and what to do."""


@dataclass(frozen=True)
class Run:
    """The content of config.json."""

    config: TrainConfig
    """The resolved configuration."""
    observation_space: spaces.Space[Any]
    """The policy's observation space, with channel-first images."""
    action_space: spaces.Space[Any]
    """The policy's action space."""
    versions: Mapping[str, str]
    """Versions of Python and of the libraries that results depend on."""
    git_commit: str | None
    """Commit of robot-attn, with "-dirty" if files differ from it; None outside a checkout."""
    renderer: str | None = None
    """What drew the frames, by the environment's metadata; None if it does not say."""
    format: int = FORMAT
    """Format of the folder; its policies refer to the configuration by the hash of that format."""

    @property
    def policy_hash(self) -> str:
        """SHA-256 of the fields that determine the architecture: spaces, perception and network sizes.

        Other fields, such as the number of steps, may change without invalidating the policies.
        """
        return json_hash(_policy_fields(self))


def describe_run(
    config: TrainConfig,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    renderer: str | None = None,
) -> Run:
    """The content of config.json for a new run, with the installed library versions and the git commit."""
    return Run(config, observation_space, action_space, library_versions(), _git_commit(), renderer)


def library_versions() -> dict[str, str]:
    """Installed versions of Python and of the libraries that results depend on, by name."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


# ---- config.json ----


def write_config(folder: Path, run: Run) -> None:
    """Write `folder`/config.json."""
    data = {
        "format": FORMAT,
        "config": asdict(run.config),
        "observation_space": space_to_json(run.observation_space),
        "action_space": space_to_json(run.action_space),
        "versions": dict(run.versions),
        "git_commit": run.git_commit,
        "renderer": run.renderer,
    }
    data["sha256"] = json_hash(data)
    write_file(folder / CONFIG, (json.dumps(data, indent=2) + "\n").encode())


def read_config(folder: str | os.PathLike[str]) -> Run:
    """Read `folder`/config.json.

    Raises:
        RunError: there is none, or it is truncated, damaged, edited or invalid.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise RunError(
            f"expected a run folder with a {CONFIG}, got none in {folder}: name a folder that training wrote"
        )
    data = read_json(path)
    if not isinstance(data, dict) or data.get("format") not in READABLE:
        found = repr(data.get("format")) if isinstance(data, dict) else type(data).__name__
        raise RunError(
            f"{path}: expected format {FORMAT}, got {found:.80}: it is damaged, or another version wrote it"
        )
    stated = data.pop("sha256", None)
    if stated != json_hash(data):
        raise RunError(
            f"{path} was edited or damaged: expected its content to have SHA-256 {stated!r:.16}..., got "
            f"{json_hash(data)[:12]}...: restore the original, or train a new run with another configuration"
        )
    try:
        fields = {"format", "config", "observation_space", "action_space", "versions", "git_commit"}
        if set(data) - {"renderer"} != fields:
            raise ValueError(f"expected the fields {sorted(fields)}, got {sorted(data)!s:.200}")
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
            renderer=from_json(str | None, data.get("renderer")),
            format=data["format"],
        )
    except (ValueError, OverflowError) as error:
        raise RunError(f"{path} is not a valid configuration: {error}") from error


# ---- Policies ----


def write_policy(path: Path, weights: Mapping[str, Tensor], run: Run, *, steps: int) -> None:
    """Write a policy as safetensors, with hashes of its weights and of its configuration.

    Args:
        path: the file to write.
        weights: the policy's `policy_weights`.
        run: the run that the policy belongs to.
        steps: environment steps that the policy was trained for.

    Raises:
        RunError: the file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    about: dict[str, Any] = {"format": FORMAT, "policy_hash": run.policy_hash, "steps": steps}
    about["sha256"] = _hash_tensors(tensors, about)
    # A single entry: safetensors writes several in random order, and equal policies should give equal files.
    write_file(path, safetensors.torch.save(tensors, {_ABOUT: json.dumps(about)}))


def policy_path(folder: Path, which: Literal["best", "last"]) -> Path:
    """Path of a run's best or last policy."""
    return folder / BEST / POLICY if which == "best" else folder / POLICY


def load_policy(
    run_folder: str | os.PathLike[str],
    which: Literal["best", "last"] = "best",
    device: str | torch.device = "cpu",
    *,
    modules: Collection[str] = (),
) -> tuple[PerceptionPolicy, TrainConfig]:
    """Load a trained policy from a run folder.

    No environment is needed. Nothing in the folder is executed: the policy is built from names that this
    package or an installed one knows, and its weights are read as plain tensors. A perception that the folder
    names by its place, "module:Class", is imported only if you name its module too.

    Args:
        run_folder: a folder that training wrote.
        which: "best" for the best policy on the evaluation seeds, "last" for the last one.
        device: device of the policy.
        modules: modules whose code may run, in case the run's perception is in one of them.

    Returns:
        The policy in evaluation mode, and the configuration that it was trained with.

    Raises:
        RunError: the folder is incomplete, truncated, damaged or edited, or its policy has another
            architecture than its configuration; or its perception is in a module that is not in `modules`.
        ValueError: `which` is neither "best" nor "last".
    """
    if which not in ("best", "last"):
        raise ValueError(f"expected which to be 'best' or 'last', got {which!r}")
    folder = Path(run_folder)
    run = read_config(folder)
    module, colon, _ = run.config.perception.partition(":")
    if colon and module not in modules:
        raise RunError(
            f"the perception of {folder} is {run.config.perception!r}, and importing {module!r} runs its "
            f"code: if you trust it, name the module too, --module {module} or "
            f"load_policy(..., modules=[{module!r}])"
        )
    path = policy_path(folder, which)
    if not path.is_file():
        other = "last" if which == "best" else "best"
        raise RunError(
            f"expected a policy at {path}, got none, since training stopped too early: resume it, or load the"
            f" {other} policy"
        )
    # Building a policy samples weights, which the file's replace: leave the caller's random state unchanged.
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):  # shapes only: a network that is too large costs no memory here
                shapes = {
                    name: (_DTYPES[tensor.dtype], list(tensor.shape))
                    for name, tensor in policy_weights(_build(run)).items()
                }
        except Exception as error:  # families raise many types for options that they cannot use
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
    """Read a safetensors file: its header first, and its tensors only if the header is as expected."""
    damaged = f"{path} is damaged: %s: copy it again, or use an earlier checkpoint"
    rename = format_1.current_parameter if run.format == 1 else str
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _MAX_HEADER):
            raise RunError(damaged % f"expected a header within {size} bytes, got one of {length}")
        text = file.read(length)
    try:
        header = json.loads(text)
        about = json.loads(header.pop("__metadata__")[_ABOUT])
        stated = about.pop("sha256")
        found = {rename(name): (entry["dtype"], entry["shape"]) for name, entry in header.items()}
        end = 8 + length + max(entry["data_offsets"][1] for entry in header.values())
    except Exception as error:  # parsing a damaged header can raise almost anything
        raise RunError(damaged % f"its header cannot be read ({type(error).__name__})") from error
    if end != size:
        raise RunError(damaged % f"expected {end!r:.20} bytes by its header, got {size}")
    if found != expected or about.get("policy_hash") != run.policy_hash:
        raise RunError(
            f"{path} has another architecture than {CONFIG} describes: {_difference(expected, found)}: "
            "restore the files that belong together"
        )
    try:
        tensors = safetensors.torch.load(path.read_bytes())
    except Exception as error:
        raise RunError(damaged % f"it cannot be read ({type(error).__name__})") from error
    if stated != _hash_tensors(tensors, about):
        raise RunError(damaged % "its content does not match its SHA-256")
    return {rename(name): tensor for name, tensor in tensors.items()}


def _difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            sides = [tensors.get(name, ("nothing", "")) for tensors in (expected, found)]
            texts = [f"{dtype} {shape}".strip() for dtype, shape in sides]
            return f"expected {name:.80} {texts[0]:.80}, got {texts[1]:.80}"
    return "the shapes are equal, the configurations differ"


# ---- trainer.pt ----


def write_trainer(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint as trainer.pt; the zip comment at its end is the SHA-256 of the rest.

    Args:
        folder: the run folder.
        state: tensors and plain containers.

    Raises:
        RunError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    body = bytearray(buffer.getvalue())
    comment_length = body.rindex(_ZIP_END) + 20
    body[comment_length : comment_length + 2] = (64).to_bytes(2, "little")
    write_file(folder / TRAINER, bytes(body) + hashlib.sha256(body).hexdigest().encode())


def read_trainer(folder: Path) -> dict[str, Any]:
    """Read the checkpoint that `write_trainer` wrote.

    Raises:
        RunError: the file is missing, truncated or damaged, or has more than tensors and plain containers.
    """
    path = folder / TRAINER
    if not path.is_file():
        raise RunError(f"expected a checkpoint at {path}, got none: start a new run in another folder")
    if path.stat().st_size > _MAX_TRAINER:
        raise RunError(
            f"expected {path} to have at most {_MAX_TRAINER} bytes, got {path.stat().st_size}: it is not a "
            "checkpoint"
        )
    raw = path.read_bytes()
    body, stated = raw[:-64], raw[-64:]
    if hashlib.sha256(body).hexdigest().encode() != stated:
        raise RunError(
            f"{path} is damaged: its content does not match its SHA-256: copy it again, or start a new run"
        )
    try:
        state = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler raises many types
        raise RunError(
            f"expected {path} to have only tensors and plain containers, got more ({error!s:.120}): do not "
            "use this file"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RunError(
            f"{path}: expected a checkpoint of format {FORMAT}, got another version's: start a new run"
        )
    return state


# ---- Files and folders ----


def write_json(path: Path, data: Any) -> None:
    """Replace a small JSON file atomically.

    Raises:
        RunError: the file cannot be written.
    """
    write_file(path, (json.dumps(data, indent=2) + "\n").encode())


def write_file(path: Path, data: bytes) -> None:
    """Replace a file atomically: after a crash, either the old or the new file is there in full.

    Raises:
        RunError: no space is left, or the folder cannot be written. The old file is unchanged.
    """
    with as_run_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # so that the new name survives a power cut
        finally:
            os.close(directory)


@contextlib.contextmanager
def as_run_error(path: Path) -> Iterator[None]:
    """Context manager that turns an OSError into a `RunError` about `path`.

    Args:
        path: the file or folder being read or written.

    Raises:
        RunError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RunError(
                f"no space left to write {path} ({os.strerror(error.errno)}): the last checkpoint is kept, "
                "free some space and continue with --resume"
            ) from error
        raise RunError(
            f"cannot write {path} ({os.strerror(error.errno or errno.EIO)}): name a writable folder"
        ) from error


@contextlib.contextmanager
def locked(folder: Path, what: str = "training") -> Iterator[None]:
    """Context manager that creates a folder and locks it, so that no other process writes to it.

    The lock ends with the process. If the block fails before it wrote anything, no folder is left behind.

    Args:
        folder: the folder to lock.
        what: kind of process, for the error message.

    Raises:
        RunError: another process holds the lock, or the folder cannot be written.
    """
    import fcntl

    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with as_run_error(folder):
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
            leftover.unlink(missing_ok=True)  # from a process that was killed while writing
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
    """Whether the folder does not exist yet, or is empty."""
    return not folder.exists() or (folder.is_dir() and all(entry.name == LOCK for entry in folder.iterdir()))


# ---- Hashes and JSON ----


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
    """SHA-256 of plain JSON data, independent of the order of its keys; hexadecimal."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _hash_tensors(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """SHA-256 of names, dtypes, shapes, bytes and the file's metadata."""
    content = {
        name: [str(tensor.dtype), list(tensor.shape), hashlib.sha256(_bytes(tensor)).hexdigest()]
        for name, tensor in tensors.items()
    }
    return json_hash({"about": dict(about), "tensors": content})


def _bytes(tensor: Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b""


def read_json(path: Path) -> Any:
    """Read a small JSON file.

    Raises:
        RunError: it is truncated or damaged, or larger than 1 MiB.
    """
    size = path.stat().st_size
    if size > _MAX_JSON:
        raise RunError(
            f"expected {path} to have at most {_MAX_JSON} bytes, got {size}: it is not a {path.name} that "
            "training wrote"
        )
    try:
        return json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RunError(
            f"{path} is truncated or damaged: expected JSON, got an error ({error!s:.120}): restore the "
            "original"
        ) from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not part of JSON")


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
