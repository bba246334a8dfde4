"""The progress bar of a training."""

import io
import time

from rich.console import Console

from robot_attn_policies.training.presets import TrainConfig
from robot_attn_policies.training.progress_bar import ProgressBar


def test_the_first_rollout_shows_its_rate_and_later_ones_that_of_the_last_update() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with ProgressBar(console, TrainConfig("track", steps=1000), 0) as bar:
        time.sleep(0.55)  # it changes at most twice a second
        bar.collect(16, 29.4)
    assert "16 · 29 steps/s · first rollout ..." in console.file.getvalue()
    with ProgressBar(console, TrainConfig("track", steps=1000), 0) as bar:
        bar.show(500, {"steps_per_second": 100.0, "episode_return": 2.5})
        time.sleep(0.55)
        bar.collect(516, 29.4)
    told = console.file.getvalue()
    assert "516 · 100 steps/s · 0:05 left · return 2.5" in told
