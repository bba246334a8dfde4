"""All families run with torch, numpy and their dependencies only."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from robot_attn import FAMILIES

ROOT = Path(__file__).parents[2]


def with_requirements(names: list[str]) -> dict[str, importlib.metadata.Distribution]:
    """These distributions and their installed dependencies, recursively."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if distribution.name in found:
            continue
        found[distribution.name] = distribution
        required = map(Requirement, distribution.requires or [])
        waiting += [line.name for line in required if not line.marker or line.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages as after `pip install torch numpy` in an empty environment."""
    folder = tmp_path_factory.mktemp("bare")
    for distribution in with_requirements(["torch", "numpy"]).values():
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    (folder / "robot_attn").symlink_to(ROOT / "robot_attn")
    return folder


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.append({str(folder)!r})\n{code}"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )


def test_only_the_named_packages_are_installed(bare: Path) -> None:
    code = """
from importlib.util import find_spec
names = ("torch", "numpy", "rich", "tyro", "mujoco", "cv2", "onnx", "scipy", "pytest")
print([name for name in names if find_spec(name)])
"""
    assert run(bare, code).stdout == "['torch', 'numpy']\n"


def test_every_module_is_imported_and_every_family_runs_on_torch_and_numpy_alone(bare: Path) -> None:
    code = """
import importlib, pkgutil, torch, robot_attn
print(*[importlib.import_module(module.name).__name__
        for module in pkgutil.walk_packages(robot_attn.__path__, "robot_attn.")])
for name in sorted(robot_attn.FAMILIES):
    module = robot_attn.build(name, (3, 40, 56), 2)
    frames = torch.randint(0, 256, (4, 3, 40, 56), dtype=torch.uint8)
    percept = module(frames, torch.randn(4, 2))
    percept.features.sum().backward()
    spread = robot_attn.upsample_attention(percept.attention.detach(), module.grid)
    print(name, round(float(spread.sum() / (4 * module.num_heads)), 4))
"""
    done = run(bare, code)
    assert done.stderr == ""
    modules, *families = done.stdout.splitlines()
    assert {"robot_attn.overlay", "robot_attn.video", "robot_attn.export"} <= set(modules.split())
    assert families == [f"{name} 1.0" for name in sorted(FAMILIES)]
