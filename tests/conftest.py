"""Shared settings of all tests: the profile of hypothesis, and the number of workers of `pytest -n auto`."""

import pytest
from hypothesis import HealthCheck, settings

# No deadline: on a shared machine the duration of an example says nothing about the code.
settings.register_profile(
    "robot-attn", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("robot-attn")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    from robot_attn.cores import usable_cores  # not above: it imports torch, which no other plugin needs

    # Beyond eight, a worker takes longer to import torch than to run its share of the tests.
    return min(usable_cores(), 8)
