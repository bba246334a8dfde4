"""Cores are counted within the process's affinity and the control group's quota."""

import os
from pathlib import Path

import pytest

from robot_attn.cores import usable_core_ids, usable_cores

MINE = sorted(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("100000 100000", 1),
        ("50000 100000", 1),  # half a core is still worth one thread
        ("100001 100000", min(2, len(MINE))),
        ("max 100000", len(MINE)),
        (f"{100000 * (len(MINE) + 3)} 100000", len(MINE)),  # more than the affinity
    ],
)
def test_the_control_groups_quota_limits_the_cores(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cores(tmp_path / "cpu.max") == expected
    assert usable_core_ids(tmp_path / "cpu.max") == MINE[:expected]


def test_the_affinity_limits_the_cores(tmp_path: Path) -> None:
    nowhere = tmp_path / "cpu.max"
    try:
        os.sched_setaffinity(0, MINE[-1:])
        assert usable_core_ids(nowhere) == MINE[-1:]
        assert usable_cores(nowhere) == 1
    finally:
        os.sched_setaffinity(0, MINE)
    assert usable_core_ids(nowhere) == MINE
