"""The imports between the packages, and what importing one of them loads."""

import ast
import importlib
import importlib.util
import inspect
import subprocess
import sys
import textwrap
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
IMPORTERS = ("import_module", "import_optional")
# Public in spite of their underscore: a named tuple's fields have names of their own.
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}


def imported(node: ast.AST) -> Iterator[str]:
    """Name the modules that `node` imports, however it is nested; relative imports stay in their package."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
            yield child.module
        elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith(IMPORTERS):
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
def test_packages_import_only_along_the_arrows(package: str) -> None:
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
        "import_optional('i.j', needs='k', extra='l')\n"
    )
    assert sorted(imported(tree)) == ["a.b", "c", "e.f", "i.j", "importlib"]
    assert list(imported_at_once(tree)) == ["a.b"]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Name the private modules, and private names in modules, of other packages that `tree` imports."""
    for node in ast.walk(tree):
        names = list(imported(node)) if isinstance(node, ast.Import | ast.ImportFrom | ast.Call) else []
        if isinstance(node, ast.ImportFrom) and names:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] != package and any(map(is_private, name.split("."))):
                yield name


def private_attributes(tree: ast.Module) -> Iterator[str]:
    """Name the private attributes that `tree` takes of anything but `self`, `cls` and `super()`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner, name = ast.unparse(node.value), node.attr
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in {"getattr", "setattr", "hasattr", "delattr"}
            and isinstance(given := node.args[1], ast.Constant)
        ):
            owner, name = ast.unparse(node.args[0]), str(given.value)
        else:
            continue
        if is_private(name) and name not in NAMED_TUPLE and owner not in {"self", "cls", "super()"}:
            yield f"{owner}.{name}"


def is_compat(file: Path) -> bool:
    return "compat" in file.parts


@pytest.mark.parametrize("package", PACKAGES)
def test_no_private_name_is_imported_across_packages(package: str) -> None:
    others = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in sources(package)
        for name in private_imports(ast.parse(file.read_text()), package)
        if name.split(".")[0] in PACKAGES
    ]
    assert others == []


@pytest.mark.parametrize("package", PACKAGES)
def test_private_parts_of_dependencies_are_used_only_in_compat_modules(package: str) -> None:
    found = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in sources(package)
        if not is_compat(file)
        for tree in [ast.parse(file.read_text())]
        for name in [
            *(n for n in private_imports(tree, package) if n.split(".")[0] not in PACKAGES),
            *private_attributes(tree),
        ]
    ]
    assert found == []


def of_self(tree: ast.AST) -> set[str]:
    """The private methods that a class defines, and the private attributes of itself that it uses."""
    methods = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    attributes = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"self", "cls", "super()"}
    }
    return set(filter(is_private, methods | attributes))


def of_dependencies(kind: type) -> set[str]:
    """The private names that a class inherits from classes of dependencies."""
    names: set[str] = set()
    for base in inspect.getmro(kind):
        top = base.__module__.split(".")[0]
        if top in PACKAGES or top in sys.stdlib_module_names:
            continue
        names |= set(filter(is_private, vars(base)))
        names |= of_self(ast.parse(textwrap.dedent(inspect.getsource(base))))
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_a_class_touches_nothing_private_that_it_inherits_from_a_dependency(package: str) -> None:
    found = []
    for file in sources(package):
        if is_compat(file):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and node.bases and (own := of_self(node)):
                parts = file.relative_to(PACKAGES[package].parent).with_suffix("").parts
                module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
                found += [
                    f"{file.relative_to(ROOT)}: {node.name}.{name}"
                    for name in sorted(own & of_dependencies(getattr(module, node.name)))
                ]
    assert found == []


COMPAT = [
    (package, file)
    for package in PACKAGES
    for file in sources(package)
    if is_compat(file) and file.stem != "__init__"
]


@pytest.mark.parametrize(("package", "file"), COMPAT, ids=lambda value: getattr(value, "stem", value))
def test_a_contract_test_names_every_private_part(package: str, file: Path) -> None:
    tree = ast.parse(file.read_text())
    parts = {name.rpartition(".")[2] for name in private_attributes(tree)}
    parts |= {name.rpartition(".")[2] for name in private_imports(tree, package)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            parts |= of_self(node)
    (contract,) = ROOT.glob(f"tests/*/test_compat_{file.stem}.py")
    named = {
        word
        for node in ast.walk(ast.parse(contract.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for word in node.value.split()
    }
    assert parts <= named, f"{contract.name} does not name {sorted(parts - named)}"


def test_private_names_do_not_hide_from_the_checks() -> None:
    tree = ast.parse(
        "from a._b import c\n"
        "from a.b import _c, d\n"
        "import e._f as g\n"
        "import importlib; importlib.import_module('h._i')\n"
        "from ours._own import j\n"
        "from ._own import k\n"
        "model._last_obs = getattr(env, '_seeds')\n"
        "row._asdict(); self._x; super()._hook(); m.__name__\n"
        "class N(O):\n    def _step(self):\n        return self._count + self.total\n"
    )
    assert sorted(private_imports(tree, "ours")) == ["a._b.c", "a.b._c", "e._f", "h._i"]
    assert sorted(private_attributes(tree)) == ["env._seeds", "model._last_obs"]
    assert of_self(tree.body[-1]) == {"_step", "_count"}


def test_what_a_class_inherits_from_a_dependency_is_known() -> None:
    from stable_baselines3.common.vec_env import VecEnv

    # A method, and what its constructor sets; nothing of the standard library's ABC.
    assert {"_get_indices", "_seeds"} <= of_dependencies(VecEnv)
    assert "_abc_impl" not in of_dependencies(int) and of_dependencies(int) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_opencv_is_imported_only_when_something_is_drawn(package: str) -> None:
    # The system libraries of OpenCV are what a headless machine lacks: no import may fail without them.
    drawn = {
        file.relative_to(ROOT)
        for file in sources(package)
        if any(name.split(".")[0] == "cv2" for name in imported_at_once(ast.parse(file.read_text())))
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
def test_perception_imports_only_torch_and_numpy(statement: str) -> None:
    ours = modules_after(statement) - modules_after("import torch, numpy") - {"robot_attn"}
    assert {name for name in ours if name not in sys.stdlib_module_names} == set()


def test_the_overview_of_commands_imports_only_the_standard_library() -> None:
    brought = modules_after("from robot_attn_scripts.cli import main; main(['--help'])")
    plain = modules_after("pass")
    third_party = {name for name in brought - plain if name not in sys.stdlib_module_names}
    assert third_party & {"torch", "numpy", "tyro", "rich", "gymnasium", "mujoco"} == set()
    assert "robot_attn_scripts" in third_party


def test_the_environments_do_not_import_torch() -> None:
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
