"""The arrows between the packages, and what importing one of them brings along."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "robot_attn": ROOT / "robot_attn",
    "robot_attn_envs": ROOT / "envs" / "robot_attn_envs",
    "robot_attn_policies": ROOT / "policies" / "robot_attn_policies",
    "robot_attn_scripts": ROOT / "scripts" / "robot_attn_scripts",
}
# package -> those of the four that it may import
ARROWS = {
    "robot_attn": set(),
    "robot_attn_envs": set(),
    "robot_attn_policies": {"robot_attn"},
    "robot_attn_scripts": {"robot_attn", "robot_attn_envs", "robot_attn_policies"},
}
DRAWING = {"overlay", "video", "regions"}


def imported(node: ast.AST) -> Iterator[str]:
    """Name the modules that `node` imports, however it is nested; relative imports stay in their package."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
            yield child.module
        elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith("import_module"):
            yield from (
                piece.value
                for argument in child.args[:1]
                for piece in ast.walk(argument)
                if isinstance(piece, ast.Constant) and isinstance(piece.value, str)
            )


def imported_at_once(tree: ast.Module) -> Iterator[str]:
    """Name the modules that importing `tree` imports: none in a function or under TYPE_CHECKING."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(node)
        waiting += ast.iter_child_nodes(node)


def sources(package: str) -> list[Path]:
    files = sorted(PACKAGES[package].rglob("*.py"))
    assert files, f"{package} has no source in {PACKAGES[package]}"
    return files


@pytest.mark.parametrize("package", PACKAGES)
def test_the_arrows_are_kept(package: str) -> None:
    strangers = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in sources(package)
        for name in imported(ast.parse(file.read_text()))
        if (top := name.split(".")[0]) in PACKAGES and top != package and top not in ARROWS[package]
    ]
    assert strangers == []


def test_a_nested_or_dynamic_import_does_not_hide_from_the_check() -> None:
    tree = ast.parse(
        "import a.b\n"
        "def f():\n    from c import d\n"
        "class G:\n    def h(self):\n        import importlib; importlib.import_module('e.f')\n"
        "from . import g\n"
    )
    assert sorted(imported(tree)) == ["a.b", "c", "e.f", "importlib"]
    assert list(imported_at_once(tree)) == ["a.b"]


@pytest.mark.parametrize("package", PACKAGES)
def test_only_what_draws_imports_opencv_when_imported(package: str) -> None:
    # The system libraries of OpenCV are what a headless machine lacks: nothing else may fail without them.
    drawn = {
        file.relative_to(ROOT)
        for file in sources(package)
        if file.stem.lstrip("_") not in DRAWING
        and any(name.split(".")[0] == "cv2" for name in imported_at_once(ast.parse(file.read_text())))
    }
    assert drawn == set()


@cache
def modules_after(statement: str) -> frozenset[str]:
    """Import in a fresh interpreter and name the top-level modules that are then loaded."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return frozenset(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import robot_attn",
        "import robot_attn.focus",
        "import robot_attn; robot_attn.build('query', (3, 32, 32))",
    ],
)
def test_perception_brings_torch_and_numpy_and_nothing_else(statement: str) -> None:
    ours = modules_after(statement) - modules_after("import torch, numpy") - {"robot_attn"}
    assert {name for name in ours if name not in sys.stdlib_module_names} == set()


def test_the_overview_of_commands_brings_the_standard_library_only() -> None:
    brought = modules_after("from robot_attn_scripts.cli import main; main(['--help'])")
    plain = modules_after("pass")
    third_party = {name for name in brought - plain if name not in sys.stdlib_module_names}
    assert third_party & {"torch", "numpy", "tyro", "rich", "gymnasium", "mujoco"} == set()
    assert "robot_attn_scripts" in third_party


def test_the_environments_bring_no_torch() -> None:
    assert "torch" not in modules_after("import robot_attn_envs")


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_found_in_this_checkout_and_typed(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).parent == PACKAGES[package], (
        "another robot-attn is installed in this environment"
    )
    assert (PACKAGES[package] / "py.typed").is_file()
