"""Fuzz run folders: after random damage, each either loads the right policy or is rejected.

python mutations.py RUN [COUNT] [SEED]      on copies of a run folder
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from robot_attn_policies.sb3.policy import policy_weights
from robot_attn_policies.training import run_folder
from robot_attn_policies.training.run_folder import RunError, load_policy, read_trainer

FILES = (
    "config.json",
    "policy.safetensors",
    "best/policy.safetensors",
    "trainer.pt",
    "best/score.json",
    "progress.csv",
)
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 65536, 10**9, 10**30, -(10**18), 0.5, 1e300, "", "query", "cnn", "inf",
    "../../etc/passwd", "os.system", [], [10**9], [0], {}, {"type": "Box"}, [[1, 2], [3]],
)  # fmt: skip


class Evil:
    """Creates a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def mutate(folder: Path, name: str, generator: random.Random) -> str:
    """Damage one file of a run folder and return a description of the damage."""
    path = folder / name
    raw = bytearray(path.read_bytes())
    kinds = ["flip", "flip", "cut", "insert", "blank", "delete", "empty", "repeat"]
    if name.endswith(".json"):
        kinds += ["edit", "edit", "edit", "signed edit", "signed edit", "signed edit", "deep", "order"]
    if name.endswith(".safetensors"):
        kinds += ["header", "header", "length"]
    if name == "trainer.pt":
        kinds += ["pickle", "signed pickle"]
    kind = generator.choice(kinds)
    at = generator.randrange(len(raw))
    if kind == "flip":
        for _ in range(generator.choice((1, 1, 8))):
            raw[generator.randrange(len(raw))] ^= 1 << generator.randrange(8)
    elif kind == "cut":
        del raw[at:]
    elif kind == "insert":
        raw[at:at] = generator.randbytes(generator.choice((1, 8, 4096)))
    elif kind == "blank":
        raw[at : at + 64] = bytes(len(raw[at : at + 64]))
    elif kind == "empty":
        raw.clear()
    elif kind == "repeat":
        raw += bytes(raw)
    elif kind == "deep":
        raw[:] = b"[" * 100_000
    elif kind == "length":
        raw[:8] = generator.choice((0, 1, len(raw), 1 << 40, (1 << 64) - 1)).to_bytes(8, "little")
    elif kind == "header":
        length = int.from_bytes(raw[:8], "little")
        header = edited(json.loads(raw[8 : 8 + length]), generator)
        text = json.dumps(header).encode()
        raw[: 8 + length] = len(text).to_bytes(8, "little") + text
    elif kind == "order":
        raw[:] = json.dumps(json.loads(raw), sort_keys=True).encode()
    elif kind.endswith("edit"):
        data = edited(json.loads(raw), generator)
        if kind == "signed edit" and isinstance(data, dict):
            data.pop("sha256", None)
            data["sha256"] = run_folder.json_hash(data)
        raw[:] = json.dumps(data).encode()
    elif kind.endswith("pickle"):
        raw[:] = evil_checkpoint(folder / "trace", signed=kind.startswith("signed"))
    if kind == "delete":
        path.unlink()
    else:
        path.write_bytes(raw)
    return f"{kind} {name}"


def edited(data: Any, generator: random.Random) -> Any:
    """JSON with one value replaced, removed or added at a random position."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    walk(data)
    if not places:
        return generator.choice(VALUES)
    node, key = generator.choice(places)
    what = generator.random()
    if what < 0.15:
        del node[key]
    elif what < 0.25 and isinstance(node, dict):
        node["extra"] = generator.choice(VALUES)
    else:
        node[key] = generator.choice(VALUES)
    return data


def evil_checkpoint(trace: Path, *, signed: bool) -> bytes:
    """A trainer.pt that creates the folder `trace` when it is unpickled without `weights_only`."""
    buffer = io.BytesIO()
    torch.save({"format": 2}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, pickle.dumps(Evil(trace)) if name.endswith("data.pkl") else content)
    body = bytearray(out.getvalue())
    if signed:
        body[-2:] = (64).to_bytes(2, "little")
        body += sha256(body).hexdigest().encode()
    return bytes(body)


def outcome(folder: Path, expected: dict[str, Any]) -> list[str]:
    """The result of each reader: "right", "rejected", or a description of a bug."""
    readers: dict[str, Callable[[], Any]] = {
        "best": lambda: policy_weights(load_policy(folder, "best")[0]),
        "last": lambda: policy_weights(load_policy(folder, "last")[0]),
        "trainer": lambda: read_trainer(folder)["policy"],
    }
    found = []
    for name, read in readers.items():
        try:
            weights = read()
        except RunError as error:
            found.append(
                "rejected" if "\n" not in str(error) and len(str(error)) < 1000 else f"BUG: long: {error}"
            )
        except Exception as error:
            found.append(f"BUG: {name}: {type(error).__name__}: {error}")
        else:
            same = weights.keys() == expected[name].keys() and all(
                torch.equal(value, expected[name][key]) for key, value in weights.items()
            )
            found.append("right" if same else f"BUG: {name}: another policy")
    if (folder / "trace").exists():
        found.append("BUG: code ran")
    return found


def mutations(run: Path, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Mutate `count` copies of a run folder. Returns the number of each outcome, and the bugs."""
    generator = random.Random(seed)
    expected = {
        "best": policy_weights(load_policy(run, "best")[0]),
        "last": policy_weights(load_policy(run, "last")[0]),
        "trainer": read_trainer(run)["policy"],
    }
    counts: Counter[str] = Counter()
    bugs = []
    with tempfile.TemporaryDirectory() as scratch:
        for i in range(count):
            copy = Path(scratch) / str(i)
            shutil.copytree(run, copy, ignore=shutil.ignore_patterns("tensorboard"))
            names = generator.sample(FILES, 3) if generator.random() < 0.2 else [generator.choice(FILES[:4])]
            what = [mutate(copy, name, generator) for name in names]
            found = outcome(copy, expected)
            counts["rejected" if "rejected" in found else "right"] += 1
            bugs += [f"{i}: {what}: {each}" for each in found if each.startswith("BUG")]
            shutil.rmtree(copy)
    return counts, bugs


if __name__ == "__main__":
    arguments = sys.argv[1:] + ["500", "0"][len(sys.argv) - 2 :]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counts, bugs = mutations(Path(arguments[0]), int(arguments[1]), int(arguments[2]))
    print(dict(counts), *bugs, sep="\n")
    sys.exit(bool(bugs))
