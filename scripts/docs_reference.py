"""A hook of MkDocs that writes the API reference: a page a public module, an entry a public name.

The names are those of tests/api_surface.txt, which a test keeps equal to what the packages export. One that
several modules export has its entry where it is shortest to import, and the others link there.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SURFACE = Path(__file__).parents[1] / "tests" / "api_surface.txt"
PACKAGES = ("robot_attn", "robot_attn_envs", "robot_attn_policies", "robot_attn_scripts")


def entries() -> dict[str, dict[str, str]]:
    """Say which names each page documents.

    Returns:
        Module name -> public name -> the dotted path of the entry that documents it: `MODULE.NAME` itself, or
        the path in the module that documents the same object. Only modules with an entry of their own.
    """
    pages: dict[str, dict[str, str]] = {}
    documented: dict[tuple[str, int], str] = {}
    lines = [line.rsplit(".", 1) for line in SURFACE.read_text().splitlines()]
    for module, name in sorted(lines, key=lambda line: line[0].count(".")):  # the outermost module first
        value = getattr(importlib.import_module(module), name)
        if not isinstance(value, ModuleType):
            path = documented.setdefault((name, id(value)), f"{module}.{name}")
            pages.setdefault(module, {})[name] = path
    return {
        module: page
        for module, page in sorted(pages.items())
        if any(path == f"{module}.{name}" for name, path in page.items())
    }


def page_of(module: str) -> str:
    """Return the path of a module's page, relative to the folder of the documents."""
    return f"reference/{module}.md"


def render(module: str, page: dict[str, str]) -> str:
    """Write the Markdown of a module's page: what the module says of itself, then one entry a name."""
    summary = (importlib.import_module(module).__doc__ or "").strip()
    parts = [f"# {module}", summary]
    for name, path in page.items():
        if path == f"{module}.{name}":
            parts.append(f"::: {path}")
    elsewhere = [(name, path) for name, path in page.items() if path != f"{module}.{name}"]
    if elsewhere:
        links = "\n".join(
            f"- [`{name}`][{path}] from `{path.rpartition('.')[0]}`" for name, path in elsewhere
        )
        parts.append(f"## Also exported here\n\n{links}")
    return "\n\n".join(parts) + "\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the reference to the navigation, a section a package."""
    sections = [
        {package: [page_of(module) for module in entries() if module.split(".")[0] == package]}
        for package in PACKAGES
    ]
    assert config.nav is not None
    config.nav.insert(-1, {"API reference": sections})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference's pages to the documents."""
    for module, page in entries().items():
        files.append(File.generated(config, page_of(module), content=render(module, page)))
    return files
