"""A report with every kind of content, from random figures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_attn_policies.evaluation.statistics import Interval, bootstrap_interval
from robot_attn_policies.pages.report import Chart, Picture, Report, Section, Series, Table
from robot_attn_policies.probing.faithfulness import PIXEL_ABLATIONS, PixelAblation
from robot_attn_policies.probing.interventions import INTERVENTIONS, THINGS, InterventionEffect
from robot_attn_policies.probing.verdicts import (
    Check,
    Verdict,
    judge_faithfulness,
    judge_interventions,
)

EPISODES, FRAMES, HEADS = 24, 150, 4


def pixel_ablation(rng: np.random.Generator) -> PixelAblation:
    full, random = rng.normal(136, 6, EPISODES), rng.normal(31, 8, EPISODES)
    remaining = {"deleted": 0.11, "kept": 0.93, "random": 0.97, "centred": 0.86}
    remaining |= {"centre": 0.42, "borrowed": 0.38, "blind": 0.02}
    ablated = {
        name: random + (full - random) * rng.normal(remaining[name], 0.12, EPISODES)
        for name in PIXEL_ABLATIONS
    }
    return PixelAblation(0.1, full, random, ablated)


def intervention_effects(rng: np.random.Generator) -> dict[tuple[str, str], InterventionEffect]:
    frames = rng.integers(8, 15, EPISODES).astype(float)
    action = {"target": {"moved": 0.9, "recoloured": 0.55, "removed": 0.7}, "distractor": {}}
    effects = {}
    for thing in THINGS:
        for edit in INTERVENTIONS:
            mean = action[thing].get(edit, 0.12 if edit == "moved" else 0.3)
            rows = frames * rng.normal(mean, 0.1, (2, EPISODES)).clip(0, 1)
            effects[thing, edit] = InterventionEffect(
                frames, *rows, rng.binomial(frames.astype(int), 0.84).astype(float)
            )
    return effects


def frame(rng: np.random.Generator, size: int = 320) -> NDArray[np.uint8]:
    """A scene of discs on a floor, with camera noise and a heat map over one of them."""
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
    ablation, effects = pixel_ablation(rng), intervention_effects(rng)
    return Report(
        "What does runs/track/query-0 attend to, and does it matter?",
        (
            ("Task", "RobotAttn/Track-v0"),
            ("Scene", "distractors 6"),
            ("Policy", "runs/track/query-0 (best)"),
            ("Maps", "attention, 4 heads"),
            ("Episodes", f"{EPISODES} of {FRAMES} steps, seeds 10000 to {9999 + EPISODES}"),
        ),
        (
            "Attention is localised on the target, and the return depends on the attended pixels: without "
            "the most-attended 10 %, a tenth of the return remains.",
            "Where it fails: actions and attention respond to a recoloured or removed distractor half as "
            "much as to the target, and one head of four has no effect.",
        ),
        (
            focus_section(),
            faithfulness_section(ablation),
            Section(
                "interventions",
                "Causally specific: do actions and attention respond to the target alone?",
                (
                    "One object was moved, recoloured or removed in the simulator, and the policy was given "
                    "the counterfactual frame. Actions and attention should change with the target and not "
                    "with a distractor.",
                ),
                judge_interventions(effects),
                pictures=tuple(
                    Picture(frame(rng), f"Counterfactual frame: the target {edit}") for edit in INTERVENTIONS
                ),
            ),
            weights_section(),
            heads_section(rng),
            time_section(rng),
            Section(
                "capture",
                "What captures attention?",
                ("This could not be measured: expected target masks, got none.",),
                Verdict("Never captured", (), (), "there are fewer than 8 episodes"),
            ),
            Section(
                "clusters",
                "What does it attend to?",
                ("The maps of all frames in 6 clusters, with the medoid of each.",),
                pictures=tuple(
                    Picture(frame(rng), f"Cluster {cluster}: {share} % of the frames, most at steps 20 to 60")
                    for cluster, share in enumerate((41, 22, 15, 12, 7, 3), start=1)
                ),
            ),
        ),
    )


def focus_section() -> Section:
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
        "Localised: is attention on the target?",
        ("The target was visible in 88 % of the frames. The verdict uses the mean map of all heads.",),
        Verdict(
            "Localised",
            (
                Check(
                    "mass on the target, relative to a centre-bias map", Interval(3.9, 3.6, 4.2), 2.0, True
                ),
                Check(
                    "share of the frames with its maximum on the target", Interval(0.86, 0.8, 0.9), 0.75, True
                ),
            ),
            (
                "coarsely: less of its mass is on the target than that of the average place",
                "with a delay of 10 steps [9, 11]",
            ),
        ),
        (Table("Each head", ("head", "mass on target", "times chance"), rows),),
    )


def faithfulness_section(ablation: PixelAblation) -> Section:
    remaining = {name: ablation.normalised_return(name) for name in ablation.ablated}
    value, low, high = np.array(list(remaining.values())).T
    shares = np.array([0.02, 0.05, 0.1, 0.2, 0.4])
    curves = {"deleted": 0.1, "kept": 0.95, "random": 0.99, "centred": 0.9}
    return Section(
        "faithful",
        "Faithful: does the return depend on the attended pixels?",
        (
            "The policy acts while pixels are deleted from its frames: the most-attended ones, or as many "
            "others. If the policy depends on what it attends to, the return falls in the first case and not "
            "in the others.",
        ),
        judge_faithfulness(ablation),
        (
            Table(
                "Return",
                ("ablation", "remaining return"),
                tuple((PIXEL_ABLATIONS[name], remaining[name]) for name in remaining),
            ),
        ),
        (
            Chart(
                "Remaining return under each ablation, with 10 % of the pixels",
                "ablation",
                "return (0: random policy, 1: no ablation)",
                (
                    Series(
                        "remaining return", [PIXEL_ABLATIONS[name] for name in remaining], value, low, high
                    ),
                ),
                "bars",
                (("no ablation", 1.0),),
            ),
            Chart(
                "Remaining return by fraction of the pixels",
                "fraction of the pixels",
                "return (0: random policy, 1: no ablation)",
                tuple(
                    Series(name, shares, y := 1 - (1 - end) * shares**0.3, y - 0.04, y + 0.03)
                    for name, end in curves.items()
                ),
                limits=(("required of baselines", 0.85),),
            ),
        ),
    )


def weights_section() -> Section:
    layers = ["policy head", "value head", "readout", "tokens", "second convolution", "first convolution"]
    correlation = np.array([1.0, 1.0, 0.31, 0.22, 0.08, 0.03])
    return Section(
        "weights",
        "Weight-dependent: do the maps depend on the learned weights?",
        ("The weights are randomised layer by layer, from the output to the input.",),
        Verdict(
            "Weight-dependent: do the maps depend on the learned weights?",
            (Check("rank correlation with maps of random weights", Interval(0.12, 0.07, 0.18), 0.5, False),),
        ),
        charts=(
            Chart(
                "Similarity to the trained map", "layer", "rank correlation",
                (
                    Series("the map", layers, correlation, correlation - 0.04, correlation + 0.04),
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
        "Which head drives the actions?",
        ("Ablating head 0 changes the action most.",),
        tables=(
            Table(
                "Each head ablated",
                (
                    "head",
                    "frames",
                    "change in action (1: all ablated)",
                    "remaining return without it",
                    "alone",
                ),
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
        "How does attention move?",
        ("The delay behind the target is 2 steps. There was no map in steps 60 to 72.",),
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
