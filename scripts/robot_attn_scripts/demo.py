"""Train a tracking policy from scratch, evaluate it, and draw a replay with its attention maps."""

from __future__ import annotations

import time

from robot_attn_scripts import _report
from robot_attn_scripts.options.demo import Options


def run(options: Options) -> dict[str, object]:
    """Train, evaluate and replay; print the score table and the paths of the results; return the scores.

    Raises:
        ValueError: the folder contains something other than a run of the demo.
        KeyboardInterrupt: interrupted; the training is saved, and the next call resumes it.
    """
    from rich.console import Console

    from robot_attn_policies.training.run_folder import CONFIG
    from robot_attn_scripts import evaluate, replay, train
    from robot_attn_scripts.options.evaluate import Options as EvaluateOptions
    from robot_attn_scripts.options.replay import Options as ReplayOptions
    from robot_attn_scripts.options.train import Options as TrainOptions

    console = Console()
    started = time.monotonic()
    scores, video = options.out / "evaluation.json", options.out / "replay.mp4"
    resumed = (options.out / CONFIG).is_file()

    console.rule(f"1 of 3   {'Resume training' if resumed else 'Train'} the policy")
    train.run(
        TrainOptions(
            "track",
            steps=options.steps,
            stop_score=options.stop_score,
            seed=options.seed,
            out=options.out,
            resume=resumed,
        )
    )
    console.rule("2 of 3   Evaluate it")
    figures = evaluate.evaluate(EvaluateOptions(options.out, episodes=options.episodes))
    for path in (scores, options.json):
        if path is not None:
            _report.write_json(path, figures)
    console.rule("3 of 3   Draw a replay")
    replay.run(ReplayOptions(options.out, out=video, png=True))

    console.rule(f"Done in {(time.monotonic() - started) / 60:.1f} minutes")
    evaluate.show(figures, console)
    shown = {
        video: "an episode with the policy's attention maps, as a video",
        video.with_suffix(".html"): "the same, as a page to step through",
        video.with_suffix(".png"): "the same, as one image",
        scores: "the scores above",
        options.out: "the trained policy",
    }
    width = max(len(str(path)) for path in shown)
    for path, what in shown.items():
        console.print(f"{path!s:<{width}}   {what}", highlight=False, soft_wrap=True)
    return figures
