"""The wheel works outside the checkout, and contains only what is needed."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]
PACKAGES = ("robot_attn", "robot_attn_envs", "robot_attn_policies", "robot_attn_scripts")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with the wheel and this one's packages, but without the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--quiet", str(wheel)], check=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    # A folder that a .pth file names joins the path, but its own .pth files are not read: so the editable
    # install of the checkout stays out.
    (packages / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run(python: Path, *arguments: str, cwd: Path) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))}
    done = subprocess.run(
        [str(python), *arguments], capture_output=True, text=True, cwd=cwd, env=clean, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_contains_only_the_four_packages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {*PACKAGES, f"robot_attn-{VERSION}.dist-info"}
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert not [name for name in names if name.endswith(".pyc") or "/tests/" in name]
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_the_wheel_contains_every_file_of_the_packages(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    parents = {"robot_attn": ROOT, "robot_attn_envs": ROOT / "envs"}
    parents |= {"robot_attn_policies": ROOT / "policies", "robot_attn_scripts": ROOT / "scripts"}
    left_out = {
        str(file.relative_to(parent))
        for package, parent in parents.items()
        for file in (parent / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    } - inside
    assert left_out == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_imports_away_from_the_checkout(installed: Path, package: str, tmp_path: Path) -> None:
    where = run(installed, "-c", f"import {package}; print({package}.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parents[1])


def test_the_command_works_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    command = installed.with_name("robot-attn")
    assert run(command, "--version", cwd=tmp_path) == f"robot-attn {VERSION}\n"
    assert "train" in run(command, "--help", cwd=tmp_path)


def test_a_perception_module_runs_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = (
        "import robot_attn, torch\n"
        "module = robot_attn.build('query', (3, 32, 48))\n"
        "print(*module(torch.rand(2, 3, 32, 48)).attention.shape)"
    )
    batch, _heads, *_ = map(int, run(installed, "-c", code, cwd=tmp_path).split())
    assert batch == 2


def test_the_base_install_is_torch_and_numpy() -> None:
    assert {Requirement(line).name for line in PROJECT["dependencies"]} == {"torch", "numpy"}


def pinned_versions() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, version in pins.items()}


def test_a_range_ends_at_the_tested_minor_where_private_parts_are_used() -> None:
    used = {file.stem.replace("_", "-") for file in ROOT.glob("*/robot_attn*/compat/[!_]*.py")}
    # robot_attn/compat is left out: what it uses of torch may be missing, and only `torch.func` is lost then.
    assert {"mujoco-warp", "stable-baselines3", "minari"} <= used
    pins = pinned_versions()
    for line in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        requirement = Requirement(line)
        if requirement.name in used:
            major, minor, *_ = pins[requirement.name].split(".")
            assert requirement.specifier.contains(f"{major}.{minor}.999"), line
            assert not requirement.specifier.contains(f"{major}.{int(minor) + 1}"), line


def test_every_direct_requirement_is_pinned_within_its_range() -> None:
    pins = pinned_versions()
    for line in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        requirement = Requirement(line)
        if requirement.name == "robot-attn":
            continue
        assert requirement.name in pins, f"constraints.txt does not pin {requirement.name}"
        assert requirement.specifier.contains(pins[requirement.name]), line
    assert not [version for version in pins.values() if "+" in version], "a local tag pins one index's build"
