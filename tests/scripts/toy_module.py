"""A module of somebody else's that registers an environment when it is imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import pytest


@contextmanager
def registered(path: Path, source: str, environment: str) -> Iterator[Any]:
    """Write a module and import it; on leaving, forget it and the environment that it registered."""
    path.write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        yield importlib.import_module(path.stem)
    gymnasium.registry.pop(environment, None)
    sys.modules.pop(path.stem, None)
