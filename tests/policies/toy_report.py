"""A report with all that one can hold, from figures drawn by lot and judged as those of a policy are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_attn.focus import FocusTotals
from robot_attn_policies.evaluation.statistics import Interval, bootstrap_interval
from robot_attn_policies.pages.report import Chart, Picture, Report, Section, Series, Table
from robot_attn_policies.probing.faithfulness import (
    INTERVENTIONS,
    PIXEL_ABLATIONS,
    THINGS,
    Check,
    InterventionEffect,
    PixelAblation,
    Verdict,
    judge_faithfulness,
    judge_focus,
    judge_interventions,
)

EPISODES, FRAMES, HEADS = 24, 150, 4


def focus_totals(rng: np.random.Generator) -> FocusTotals:
    visible = rng.integers(110, FRAMES, EPISODES)
    share = np.stack([rng.normal(0.46, 0.05, EPISODES), rng.normal(0.11, 0.02, EPISODES)], axis=1)
    hits = np.stack([rng.binomial(visible, 0.91), rng.binomial(visible, 0.3)], axis=1)
    chance = 0.012 * visible
    return FocusTotals(share * visible[:, None], hits.astype(float), chance, visible, FRAMES - visible)


def erased_returns(rng: np.random.Generator) -> PixelAblation:
    full, random = rng.normal(136, 6, EPISODES), rng.normal(31, 8, EPISODES)
    left = {"deleted": 0.11, "kept": 0.93, "random": 0.97, "centred": 0.86}
    left |= {"centre": 0.42, "borrowed": 0.38, "blind": 0.02}
    erased = {
        name: random + (full - random) * rng.normal(left[name], 0.12, EPISODES) for name in PIXEL_ABLATIONS
    }
    return PixelAblation(0.1, full, random, erased, focus_totals(rng))


def edit_effects(rng: np.random.Generator) -> dict[tuple[str, str], InterventionEffect]:
    frames = rng.integers(8, 15, EPISODES).astype(float)
    action = {"target": {"moved": 0.9, "recoloured": 0.55, "removed": 0.7}, "distractor": {}}
    effects = {}
    for thing in THINGS:
        for edit in INTERVENTIONS:
            usual = action[thing].get(edit, 0.12 if edit == "moved" else 0.3)
            rows = frames * rng.normal(usual, 0.1, (2, EPISODES)).clip(0, 1)
            effects[thing, edit] = InterventionEffect(
                frames, *rows, rng.binomial(frames.astype(int), 0.84).astype(float)
            )
    return effects


def frame(rng: np.random.Generator, size: int = 320) -> NDArray[np.uint8]:
    """A scene of discs on a floor, with the noise of a camera and warm heat over one of them."""
    y, x = np.mgrid[:size, :size] / size
    image = np.stack([110 + 60 * y, 120 + 50 * y, 128 + 40 * y], axis=-1)
    for _ in range(5):
        at, radius = rng.uniform(0.15, 0.85, 2), rng.uniform(0.04, 0.09)
        image[(y - at[0]) ** 2 + (x - at[1]) ** 2 < radius**2] = rng.uniform(30, 220, 3)
    heat = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 0.02)[..., None]
    image = (1 - 0.75 * heat) * image + 0.75 * heat * np.array([255, 170, 40])
    return (image + rng.normal(0, 1.5, image.shape)).clip(0, 255).astype(np.uint8)


def toy_report() -> Report:
    rng = np.random.default_rng(0)
    erased, effects = erased_returns(rng), edit_effects(rng)
    assert erased.focus is not None
    return Report(
        "Where does runs/track/query-0 look, and does it matter?",
        (
            ("Task", "RobotAttn/Track-v0"),
            ("Scene", "distractors 6"),
            ("Policy", "runs/track/query-0 (best)"),
            ("Maps", "attention, 4 heads"),
            ("Episodes", f"{EPISODES} of {FRAMES} steps, seeds 10000 to {9999 + EPISODES}"),
        ),
        (
            "It looks at its target, and lives by what it sees there: without the 10 % of pixels that it "
            "attends to most it keeps a tenth of its return.",
            "Where it fails: action and attention follow a distractor that is recoloured or removed half as "
            "much as the target, and one head of four does nothing.",
        ),
        (
            focus_section(erased.focus),
            faithful_section(erased),
            Section(
                "reason",
                "Does it follow the target, and only the target?",
                (
                    "In the simulator one thing was moved, recoloured or removed, and the policy was shown "
                    "the frame as it would then be. Action and attention should follow the target, and "
                    "leave a distractor alone.",
                ),
                judge_interventions(effects),
                pictures=tuple(
                    Picture(frame(rng), f"The target {edit}, as the policy saw it") for edit in INTERVENTIONS
                ),
            ),
            weights_section(),
            heads_section(rng),
            time_section(rng),
            Section(
                "clusters",
                "What does it look at?",
                ("All frames in 6 groups by their maps: the frame in the middle of each.",),
                pictures=tuple(
                    Picture(frame(rng), f"Group {group}: {share} % of the frames, most at steps 20 to 60")
                    for group, share in enumerate((41, 22, 15, 12, 7, 3), start=1)
                ),
            ),
        ),
    )


def focus_section(totals: FocusTotals) -> Section:
    rows = tuple(
        (
            f"head {head}",
            Interval(mass, mass - 0.02, mass + 0.02),
            Interval(mass / 0.012, mass / 0.013, mass / 0.011),
        )
        for head, mass in enumerate((0.52, 0.47, 0.05, 0.011))
    )
    return Section(
        "focus",
        "Does it look at the target?",
        ("The target was in view in 88 % of the frames. The verdict is about the heads together.",),
        judge_focus(totals),
        (Table("Each head", ("head", "mass on target", "times chance"), rows),),
    )


def faithful_section(erased: PixelAblation) -> Section:
    left = {name: erased.above_random(name) for name in erased.erased}
    value, low, high = np.array(list(left.values())).T
    shares = np.array([0.02, 0.05, 0.1, 0.2, 0.4])
    curves = {"deleted": 0.1, "kept": 0.95, "random": 0.99, "centred": 0.9}
    return Section(
        "faithful",
        "Does what it looks at decide what it earns?",
        (
            "The policy plays on while pixels are taken from its frames and their surroundings continued "
            "over them: those that its maps name, or as many others. If looking decides, it must lose its "
            "return without the first and keep it without the others.",
        ),
        judge_faithfulness(erased),
        (
            Table(
                "Return",
                ("what is erased", "return left"),
                tuple((PIXEL_ABLATIONS[name], left[name]) for name in left),
            ),
        ),
        (
            Chart(
                "Return left with 10 % of the pixels erased",
                "what is erased",
                "share of the return above the random policy's",
                (Series("return left", [PIXEL_ABLATIONS[name] for name in left], value, low, high),),
                "bars",
                (("as it is", 1.0),),
            ),
            Chart(
                "Return left as more pixels are erased",
                "share of the pixels",
                "share of the return above the random policy's",
                tuple(
                    Series(name, shares, y := 1 - (1 - end) * shares**0.3, y - 0.04, y + 0.03)
                    for name, end in curves.items()
                ),
                limits=(("asked of controls", 0.85),),
            ),
        ),
    )


def weights_section() -> Section:
    layers = ["policy head", "value head", "readout", "tokens", "second convolution", "first convolution"]
    likeness = np.array([1.0, 1.0, 0.31, 0.22, 0.08, 0.03])
    return Section(
        "weights",
        "Does the map depend on the weights?",
        ("Weights are drawn anew layer by layer, from the last: a map that stays says nothing of them.",),
        Verdict(
            "Does the map depend on the weights?",
            (Check("rank correlation with the map of new weights", Interval(0.12, 0.07, 0.18), 0.5, False),),
        ),
        charts=(
            Chart(
                "Likeness to the trained map", "layer", "rank correlation",
                (
                    Series("the map", layers, likeness, likeness - 0.04, likeness + 0.04),
                    Series("edges of the frame", layers[2:], np.array([0.2, 0.21, 0.2, 0.19])),
                ),
                "bars",
            ),
        ),
    )  # fmt: skip


def heads_section(rng: np.random.Generator) -> Section:
    returns = bootstrap_interval(rng.normal(0.7, 0.1, EPISODES))
    return Section(
        "heads",
        "Which head carries the decision?",
        ("Head 0 changes the action most when it is silenced.",),
        tables=(
            Table(
                "Each head silenced",
                ("head", "frames", "change in action (1: all silenced)", "return left without it", "alone"),
                tuple(
                    (f"head {head}", 3600, change, returns, None if head == 3 else 0.4)
                    for head, change in enumerate((0.81, 0.34, 0.1, 0.0))
                ),
            ),
        ),
    )


def time_section(rng: np.random.Generator) -> Section:
    steps = np.arange(FRAMES)
    entropy = 2.2 + 0.4 * np.sin(steps / 9) + rng.normal(0, 0.06, FRAMES)
    entropy[60:72] = np.nan
    return Section(
        "time",
        "When does it look where?",
        ("Attention follows a move of the target within 2 steps. Between steps 60 and 72 there was no map.",),
        charts=(
            Chart(
                "Entropy of the maps", "step", "entropy, nats",
                (Series("mean of the heads", steps, entropy, entropy - 0.2, entropy + 0.2),),
            ),
            Chart(
                "Attention's distance to the target", "step", "pixels",
                tuple(
                    Series(f"head {head}", steps, 4 + 3 * head + np.cumsum(rng.normal(0, 0.3, FRAMES)))
                    for head in range(HEADS)
                ),
            ),
        ),
    )  # fmt: skip
