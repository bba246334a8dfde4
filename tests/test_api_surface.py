"""The public names of the four packages, frozen: changing `api_surface.txt` changes what others import.

After an intended change, run `python tests/test_api_surface.py` to rewrite the file.
"""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import robot_attn_policies

ROOT = Path(__file__).parents[1]
SURFACE = Path(__file__).with_name("api_surface.txt")
# Every module of perception is public, but those whose name says otherwise. Of the others, the facade is.
PERCEPTION = ROOT / "robot_attn"
FACADES = ("robot_attn_envs", "robot_attn_envs.shifts", "robot_attn_policies", "robot_attn_scripts")


def public_modules() -> Iterator[str]:
    for file in sorted(PERCEPTION.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        if not any(part.startswith("_") for part in name.split(".")) and "compat" not in parts:
            yield name
    yield from FACADES


def public_names(module: str) -> list[str]:
    """What a module exports: its `__all__`, or what it defines itself under a name without an underscore."""
    loaded = importlib.import_module(module)
    if hasattr(loaded, "__all__"):
        return sorted(loaded.__all__)
    tree = ast.parse(inspect.getsource(loaded))
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
    }
    for node in tree.body:
        if isinstance(node, ast.Assign):
            defined |= {
                name.id for each in node.targets for name in ast.walk(each) if isinstance(name, ast.Name)
            }
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined.add(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            defined |= {alias.name for alias in node.names if alias.asname == alias.name}
    return sorted(name for name in defined if not name.startswith("_"))


def surface() -> str:
    return "".join(f"{module}.{name}\n" for module in public_modules() for name in public_names(module))


def test_the_public_names_equal_the_file() -> None:
    assert SURFACE.read_text().splitlines() == surface().splitlines()


def test_every_public_name_can_be_imported() -> None:
    lost = []
    for line in SURFACE.read_text().splitlines():
        module, name = line.rsplit(".", 1)
        if not hasattr(importlib.import_module(module), name):
            lost.append(line)
    assert lost == []


def test_the_four_packages_are_in_the_file() -> None:
    packages = {line.split(".")[0] for line in SURFACE.read_text().splitlines()}
    assert packages == {"robot_attn", "robot_attn_envs", "robot_attn_policies", "robot_attn_scripts"}


def test_type_checkers_see_the_names_that_are_imported_lazily() -> None:
    tree = ast.parse(Path(inspect.getfile(robot_attn_policies)).read_text())
    guarded = next(
        node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    )
    typed = {
        (node.module, alias.asname)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    lazy = {
        (f"robot_attn_policies.{module}", name)
        for module, names in robot_attn_policies._PUBLIC.items()
        for name in names
    }
    assert typed == lazy


def test_importing_the_policies_is_cheap() -> None:
    code = "import sys, robot_attn_policies; print({'torch', 'stable_baselines3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


if __name__ == "__main__":
    SURFACE.write_text(surface())
