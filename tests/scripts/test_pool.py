"""Jobs in processes of their own: results, errors, and that no process is left."""

import multiprocessing
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from toy_jobs import double

from robot_attn_scripts._pool import run_jobs


def test_every_job_has_its_result_and_tells_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []
    results: dict[int, tuple[int, int]] = {}
    run_jobs(
        double,
        [5, 6, 7],
        2,
        on_progress=lambda place, steps: told.append((place, steps)),
        on_result=results.__setitem__,
    )
    assert sorted(told) == [(0, 5), (1, 6), (2, 7)]
    assert {place: twice for place, (twice, _) in results.items()} == {0: 10, 1: 12, 2: 14}
    processes = {process for _, process in results.values()}
    assert os.getpid() not in processes and 1 <= len(processes) <= 2


@pytest.mark.parametrize(
    ("job", "message"), [("x", "expected a number, got 'x'"), (-1, "got the end of the worker process")]
)
def test_a_job_that_fails_is_raised_or_said_and_the_others_go_on(job: int | str, message: str) -> None:
    def run(jobs: list[int | str], errors: dict[int, str] | None) -> dict[int, int]:
        results: dict[int, tuple[int, int]] = {}
        run_jobs(
            double,
            jobs,
            1,
            on_progress=lambda place, steps: None,
            on_result=results.__setitem__,
            on_error=None if errors is None else errors.__setitem__,
        )
        return {place: twice for place, (twice, _) in results.items()}

    with pytest.raises(ValueError, match=message):
        run([job], None)
    errors: dict[int, str] = {}
    assert run([3, job, 4], errors) == {0: 6, 2: 8}
    assert list(errors) == [1] and message in errors[1]


def test_an_error_in_a_callback_leaves_no_process() -> None:
    running: list[int] = []

    def stop(place: int, steps: int) -> None:
        running.append(len(multiprocessing.active_children()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(double, [0, 0], 2, on_progress=stop, on_result=lambda place, result: None)
    assert running == [2] and multiprocessing.active_children() == []
