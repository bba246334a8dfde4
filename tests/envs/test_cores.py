"""The simulator's threads: within the process's affinity and the control group's quota."""

import os
from pathlib import Path

import pytest

from robot_attn_envs.cores import usable_cores

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
