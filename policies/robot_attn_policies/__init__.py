"""Train, evaluate, record and explain Stable-Baselines3 policies with the perception of `robot_attn`.

The names below are the public ones. Each is imported on first use, so that importing the package is fast. The
subpackages: `rollouts` (running episodes), `sb3` (plug-ins for Stable-Baselines3), `training`, `evaluation`,
`probing` (what a policy attends to, and whether that drives its actions), `recording` (episodes as files) and
`pages` (HTML).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robot_attn_policies.evaluation.compare import Comparison as Comparison
    from robot_attn_policies.evaluation.compare import compare as compare
    from robot_attn_policies.evaluation.evaluate import Calibration as Calibration
    from robot_attn_policies.evaluation.evaluate import Focus as Focus
    from robot_attn_policies.evaluation.evaluate import calibrate as calibrate
    from robot_attn_policies.evaluation.evaluate import evaluate_policy as evaluate_policy
    from robot_attn_policies.evaluation.evaluate import normalised_score as normalised_score
    from robot_attn_policies.evaluation.nuisance import Nuisance as Nuisance
    from robot_attn_policies.evaluation.nuisance import measure_nuisance as measure_nuisance
    from robot_attn_policies.evaluation.statistics import Interval as Interval
    from robot_attn_policies.evaluation.statistics import bootstrap_interval as bootstrap_interval
    from robot_attn_policies.pages.chart import Chart as Chart
    from robot_attn_policies.pages.chart import Series as Series
    from robot_attn_policies.pages.page import write_page as write_page
    from robot_attn_policies.pages.report import Picture as Picture
    from robot_attn_policies.pages.report import Report as Report
    from robot_attn_policies.pages.report import Section as Section
    from robot_attn_policies.pages.report import Table as Table
    from robot_attn_policies.pages.report import write_report as write_report
    from robot_attn_policies.probing.explain import explain as explain
    from robot_attn_policies.probing.explain import explain_episode as explain_episode
    from robot_attn_policies.probing.faithfulness import HeadAblation as HeadAblation
    from robot_attn_policies.probing.faithfulness import PixelAblation as PixelAblation
    from robot_attn_policies.probing.faithfulness import run_head_ablation as run_head_ablation
    from robot_attn_policies.probing.faithfulness import run_pixel_ablation as run_pixel_ablation
    from robot_attn_policies.probing.interventions import InterventionEffect as InterventionEffect
    from robot_attn_policies.probing.interventions import measure_interventions as measure_interventions
    from robot_attn_policies.probing.probe import PolicyProbe as PolicyProbe
    from robot_attn_policies.probing.probe import probe_cameras as probe_cameras
    from robot_attn_policies.probing.probe import probe_policy as probe_policy
    from robot_attn_policies.probing.steps import StepBatch as StepBatch
    from robot_attn_policies.probing.steps import StepCollector as StepCollector
    from robot_attn_policies.recording.episode_file import load_episode as load_episode
    from robot_attn_policies.recording.episode_file import save_episode as save_episode
    from robot_attn_policies.recording.record import record as record
    from robot_attn_policies.recording.record import record_cameras as record_cameras
    from robot_attn_policies.rollouts.policy_actor import policy_actor as policy_actor
    from robot_attn_policies.rollouts.protocols import HasActionMasks as HasActionMasks
    from robot_attn_policies.rollouts.protocols import HasInterventions as HasInterventions
    from robot_attn_policies.rollouts.protocols import HasOracle as HasOracle
    from robot_attn_policies.rollouts.protocols import HasState as HasState
    from robot_attn_policies.rollouts.protocols import HasView as HasView
    from robot_attn_policies.rollouts.protocols import ability as ability
    from robot_attn_policies.rollouts.rollout import Rollouts as Rollouts
    from robot_attn_policies.rollouts.rollout import Step as Step
    from robot_attn_policies.rollouts.rollout import oracle_actor as oracle_actor
    from robot_attn_policies.rollouts.rollout import random_actor as random_actor
    from robot_attn_policies.rollouts.rollout import rollout_episodes as rollout_episodes
    from robot_attn_policies.sb3.act import act as act
    from robot_attn_policies.sb3.export import export_policy_onnx as export_policy_onnx
    from robot_attn_policies.sb3.export import read_onnx_metadata as read_onnx_metadata
    from robot_attn_policies.sb3.extractor import PerceptionExtractor as PerceptionExtractor
    from robot_attn_policies.sb3.extractor import find_extractor as find_extractor
    from robot_attn_policies.sb3.extractor import perceive as perceive
    from robot_attn_policies.sb3.policy import PerceptionPolicy as PerceptionPolicy
    from robot_attn_policies.sb3.vec_env import BatchVecEnv as BatchVecEnv
    from robot_attn_policies.sb3.zip_file import load_zip as load_zip
    from robot_attn_policies.training.presets import PPOPreset as PPOPreset
    from robot_attn_policies.training.presets import TrainConfig as TrainConfig
    from robot_attn_policies.training.run_folder import RunError as RunError
    from robot_attn_policies.training.run_folder import load_policy as load_policy
    from robot_attn_policies.training.train import TrainResult as TrainResult
    from robot_attn_policies.training.train import train as train

_PUBLIC = {
    "evaluation.compare": ("Comparison", "compare"),
    "evaluation.evaluate": ("Calibration", "Focus", "calibrate", "evaluate_policy", "normalised_score"),
    "evaluation.nuisance": ("Nuisance", "measure_nuisance"),
    "evaluation.statistics": ("Interval", "bootstrap_interval"),
    "pages.chart": ("Chart", "Series"),
    "pages.page": ("write_page",),
    "pages.report": ("Picture", "Report", "Section", "Table", "write_report"),
    "probing.explain": ("explain", "explain_episode"),
    "probing.faithfulness": (
        "HeadAblation",
        "PixelAblation",
        "run_head_ablation",
        "run_pixel_ablation",
    ),
    "probing.interventions": ("InterventionEffect", "measure_interventions"),
    "probing.probe": ("PolicyProbe", "probe_cameras", "probe_policy"),
    "probing.steps": ("StepBatch", "StepCollector"),
    "recording.episode_file": ("load_episode", "save_episode"),
    "recording.record": ("record", "record_cameras"),
    "rollouts.protocols": (
        "HasActionMasks",
        "HasInterventions",
        "HasOracle",
        "HasState",
        "HasView",
        "ability",
    ),
    "rollouts.policy_actor": ("policy_actor",),
    "rollouts.rollout": (
        "Rollouts",
        "Step",
        "oracle_actor",
        "random_actor",
        "rollout_episodes",
    ),
    "sb3.act": ("act",),
    "sb3.export": ("export_policy_onnx", "read_onnx_metadata"),
    "sb3.extractor": ("PerceptionExtractor", "find_extractor", "perceive"),
    "sb3.policy": ("PerceptionPolicy",),
    "sb3.vec_env": ("BatchVecEnv",),
    "sb3.zip_file": ("load_zip",),
    "training.presets": ("PPOPreset", "TrainConfig"),
    "training.run_folder": ("RunError", "load_policy"),
    "training.train": ("TrainResult", "train"),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
