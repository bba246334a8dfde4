"""A run folder that many tests of the commands only read."""

import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an untrained `query` policy for the small task of `toy_run`."""
    import torch

    sys.path.insert(0, str(Path(__file__).parent))
    from toy_run import make_run

    torch.manual_seed(0)
    return make_run(tmp_path_factory.mktemp("runs") / "query")
