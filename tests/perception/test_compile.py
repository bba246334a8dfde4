"""torch.compile compiles every family to one graph with the same percepts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robot_attn import FAMILIES, Percept, build


def check(family: str, backend: str) -> None:
    """Compile without graph breaks, and compare percepts and gradients."""
    torch.manual_seed(0)
    torch._dynamo.reset()  # the cache of another family
    module = build(family, (3, 40, 56), 3)
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    frames, context = torch.rand(4, 3, 40, 56), torch.randn(4, 3)
    found = []
    for run in (compiled, module):
        module.zero_grad()
        percept = run(frames, context)
        assert isinstance(percept, Percept)
        percept.features.square().sum().backward()
        found.append([*percept, *(parameter.grad for parameter in module.parameters())])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_compiled_to_one_graph_it_gives_the_same_percept(family: str) -> None:
    check(family, "aot_eager")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch writes C++ for this machine, and needs g++")
def test_compiled_to_machine_code_it_gives_the_same_percept(tmp_path: Path) -> None:
    # With a fresh cache: code that was cached under another ATEN_CPU_CAPABILITY corrupts memory here.
    code = "import test_compile; test_compile.check('query', 'inductor')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
