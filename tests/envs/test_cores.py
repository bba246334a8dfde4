"""The simulator's threads: within the process's affinity and the control group's quota."""

import os
import threading
from pathlib import Path

import pytest

from robot_attn_envs.cores import Helpers, usable_cores

MINE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("100000 100000", 1),
        ("50000 100000", 1),  # half a core is still worth one thread
        ("100001 100000", min(2, MINE)),
        ("max 100000", MINE),
        (f"{100000 * (MINE + 3)} 100000", MINE),  # more than the affinity
    ],
)
def test_the_control_groups_quota_limits_the_cores(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cores(tmp_path / "cpu.max") == expected


def test_without_a_control_group_the_affinity_limits_the_cores(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "cpu.max") == MINE


def test_helpers_work_together_with_the_thread_that_calls() -> None:
    helpers, together = Helpers(2), threading.Barrier(3)
    names: list[int] = []

    def work() -> None:
        together.wait(timeout=60)  # three threads are in here at once
        names.append(threading.get_ident())

    for _ in range(3):
        names.clear()
        helpers.run(work)
        assert len(set(names)) == 3
        assert threading.get_ident() in names
    helpers.close()


@pytest.mark.parametrize("fails_here", [True, False])
def test_what_work_raises_in_a_thread_reaches_the_caller_after_all_have_returned(fails_here: bool) -> None:
    helpers, caller, together = Helpers(1), threading.get_ident(), threading.Barrier(2)
    returned: list[bool] = []

    def work() -> None:
        here = threading.get_ident() == caller
        together.wait(timeout=60)
        if here == fails_here:
            raise ValueError("broken")
        returned.append(here)

    with pytest.raises(ValueError, match="broken"):
        helpers.run(work)
    assert returned == [not fails_here]
    helpers.run(lambda: returned.append(True))  # the threads go on
    assert len(returned) == 3
    helpers.close()


@pytest.mark.parametrize("closed", [True, False])
def test_helpers_end_when_they_are_closed_or_forgotten(closed: bool) -> None:
    before = set(threading.enumerate())
    helpers = Helpers(2)
    threads = set(threading.enumerate()) - before
    assert len(threads) == 2
    if closed:
        helpers.close()
    del helpers
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
