"""Other versions of MuJoCo, and the packages that need them: each in an environment of its own.

`make test` makes the environments from tests/stacks/*.txt, in .venv/stacks.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mujoco")

pytestmark = pytest.mark.slow

STACKS = Path(sys.prefix) / "stacks"
TESTS = Path(__file__).parent


def python(stack: str, *arguments: str, code: int = 0) -> str:
    """What the Python of an environment prints."""
    interpreter = STACKS / stack / "bin" / "python"
    if not interpreter.exists():
        pytest.skip(f"the environment {interpreter.parents[1]} is missing: make test installs it")
    done = subprocess.run(
        [str(interpreter), *arguments],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def pytest_in(stack: str, *files: str) -> str:
    return python(stack, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *files)


@pytest.mark.parametrize(("stack", "version"), [("robotics", "3.10.0"), ("batch", "3.17.0")])
def test_the_renderer_draws_with_older_mujoco(stack: str, version: str) -> None:
    assert version in python(stack, "-c", "import mujoco; print(mujoco.__version__)")
    assert " passed" in pytest_in(stack, "tests/envs/test_render.py")


def test_our_tasks_run_with_the_oldest_mujoco_that_steps_many_worlds() -> None:
    files = [f"tests/envs/test_{name}.py" for name in ("track", "navigate", "reach", "push", "determinism")]
    assert " passed" in pytest_in("batch", *files)


def test_our_tasks_say_which_mujoco_they_need() -> None:
    make = "import gymnasium, robot_attn_envs; gymnasium.make('RobotAttn/Track-v0')"
    printed = python("robotics", "-c", make, code=1)
    assert "expected MuJoCo 3.17 or newer" in printed and "got 3.10.0" in printed


@pytest.mark.parametrize("stack", ["robotics", "metaworld"])
def test_environments_of_other_packages_through_our_cameras_and_commands(stack: str) -> None:
    assert " passed" in pytest_in(stack, "tests/stacks/check_third_party.py")
