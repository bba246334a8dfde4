"""What every test shares: how hypothesis runs, and how many workers `pytest -n auto` takes."""

import pytest
from hypothesis import HealthCheck, settings

# No deadline: how long one example takes on a shared machine says nothing about the code.
settings.register_profile(
    "robot-attn", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("robot-attn")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    from robot_attn.cores import usable_cores  # not above: it imports torch, which no other plugin needs

    # Past eight, importing torch once more costs a worker longer than the tests that it takes over.
    return min(usable_cores(), 8)
