"""Export of a whole policy to ONNX: observations as the environment returns them -> actions and attention.

Needs onnx and onnxscript (`pip install "robot-attn[onnx]"`), imported on first use.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from torch import Tensor, nn
from torch.nn import functional as F

import robot_attn
from robot_attn.export import write_onnx
from robot_attn.frames import channels_to_back, channels_to_front
from robot_attn.optional import import_optional
from robot_attn_policies.compat.stable_baselines3 import traceable_distribution
from robot_attn_policies.sb3.act import policy_head
from robot_attn_policies.sb3.context import NO_CONTEXT, is_recurrent, takes_masks
from robot_attn_policies.sb3.extractor import find_extractor
from robot_attn_policies.sb3.images import entries_of, image_entries
from robot_attn_policies.training.spaces_json import space_to_json

METADATA = "robot-attn"
"""Key of the file's metadata, a JSON text."""
OBSERVATION = "observation"
"""Name of the input of a policy whose observation space is not a `Dict`."""

_BATCH = 2  # of the examples; torch's exporter would specialise a batch of 0 or 1 to a constant


def export_policy_onnx(
    policy: BasePolicy,
    path: str | os.PathLike[str],
    *,
    channels_first: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Export a policy, with all preprocessing, as an ONNX model with a dynamic batch size.

    The inputs are the entries of the observation space by name, in its order, or `observation` for a space
    that is not a `Dict`. Each has the dtype of its space. Images of dtype uint8 that are (C, H, W) in the
    space are [B, H, W, C], as environments return them; other entries have the shape of the space, with a
    batch axis.

    The outputs:

    - `action` [B, ...]: the deterministic action, clipped or scaled to the bounds of the action space, as
      `policy.predict(observation, deterministic=True)` returns it;
    - `attention` [B, heads, rows, cols], as in `Percept`, or `attention.KEY` for each of several cameras; not
      for a family whose attention is uniform;
    - `value` [B]: the estimate of the return, where the critic shares the actor's features.

    The graph contains no checks: numbers that are not finite or out of range are passed through.

    The metadata `robot-attn` of the file is a JSON text with the `version` of this package, and `inputs` and
    `outputs` by name: `type` ("Box", "Discrete", "MultiDiscrete", "MultiBinary"), `shape` without the batch
    axis, `dtype`, and `low` and `high` ("-inf" and "inf" if unbounded) or the numbers of choices `n` and
    `nvec`; for images also `image_size` (height, width); for `attention` the name of its `image`, and `ys`
    and `xs`, the centres of rows and columns in pixels.

    Args:
        policy: a policy of Stable-Baselines3 or sb3-contrib with a `PerceptionExtractor`; it is not changed.
        path: output file, ending in .onnx. It is written completely, weights included, or not at all.
        channels_first: whether the environment itself returns uint8 images as (C, H, W), which the policy's
            space does not tell.
        about: further metadata, plain JSON.

    Returns:
        The path of the file.

    Raises:
        ValueError: a recurrent policy, one with masks of actions, one whose class overrides how observations
            become actions, one without `PerceptionExtractor`, or another file ending.
        ModuleNotFoundError: onnx or onnxscript is not installed.
        OSError: the folder is missing or not writable, or the disk is full.
    """
    graph = _PolicyGraph(policy, channels_first)
    metadata = {"version": robot_attn.__version__, **graph.describe(), **(about or {})}
    was_training = policy.training
    policy.set_training_mode(False)
    try:
        with traceable_distribution(policy):
            return write_onnx(
                graph,
                path,
                graph.examples(),
                list(metadata["outputs"]),
                metadata={METADATA: json.dumps(metadata, allow_nan=False)},
            )
    finally:
        policy.set_training_mode(was_training)


def read_onnx_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `export_policy_onnx` wrote about a policy's inputs and outputs.

    Args:
        path: the ONNX file.

    Returns:
        The metadata, plain JSON.

    Raises:
        ValueError: an ONNX file without this metadata.
        ModuleNotFoundError: onnx is not installed.
        OSError: the file cannot be read.
    """
    onnx = import_optional("onnx", needs="reading an ONNX file needs onnx", extra="onnx")
    texts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    if METADATA not in texts:
        raise ValueError(f"expected an ONNX file from export_policy_onnx, got {path}, without {METADATA!r}")
    metadata: dict[str, Any] = json.loads(texts[METADATA])
    return metadata


def _name(key: str | None) -> str:
    """Name of the input for an entry of the observation, None for one that is a single array."""
    return OBSERVATION if key is None else key


class _PolicyGraph(nn.Module):
    """A policy as a function from the arrays of an observation to those of a decision."""

    low: Tensor | None
    high: Tensor | None

    def __init__(self, policy: BasePolicy, channels_first: bool) -> None:
        super().__init__()
        self.extractor = find_extractor(policy)
        head = policy_head(policy)
        reason = ""
        if is_recurrent(policy):
            reason = "has a memory between steps"
        elif takes_masks(policy):
            reason = "also needs a mask of the actions"
        elif head is None:
            reason = "overrides how actions are chosen"
        if head is None or reason:
            raise ValueError(
                f"expected a policy whose action follows from one observation, got {type(policy).__name__}, "
                f"which {reason}: export its perception alone, with robot_attn.export.export_onnx"
            )
        self.policy = policy
        self.head = head
        # All that compares arrays is decided here, as a graph cannot.
        layouts = image_entries(policy.observation_space)
        self.keyed = None not in (entries := entries_of(policy.observation_space))
        self.entries = {_name(key): entry for key, entry in entries.items()}
        self.sizes = {_name(key): layout.image_size for key, layout in layouts.items()}
        self.pixels = [name for name in self.sizes if self.entries[name].dtype == np.uint8]
        self.turned = [
            _name(key)
            for key, layout in layouts.items()
            if layout.order == "CHW" and _name(key) in self.pixels and not channels_first
        ]
        self.choices = {
            name: np.atleast_1d(entry.nvec if isinstance(entry, spaces.MultiDiscrete) else entry.n).tolist()
            for name, entry in self.entries.items()
            if isinstance(entry, spaces.Discrete | spaces.MultiDiscrete)
        }
        actions = policy.action_space
        bounds = (actions.low, actions.high) if isinstance(actions, spaces.Box) else (None, None)
        for name, bound in zip(("low", "high"), bounds, strict=True):
            tensor = None if bound is None else torch.from_numpy(bound).to(policy.device)
            self.register_buffer(name, tensor)
        keys = [key for key in self.extractor.image_keys if not self.extractor.perception_of(key).uniform]
        several = len(self.extractor.image_keys) > 1
        self.maps = {f"attention.{key}" if several else "attention": key for key in keys}
        """The outputs with maps, and the camera of each."""
        self.has_value = isinstance(policy, ActorCriticPolicy) and policy.share_features_extractor

    def examples(self) -> dict[str, Tensor]:
        """A batch of zeros for each input."""
        return {
            name: torch.zeros(
                _BATCH,
                *self._shape(name),
                dtype=torch.from_numpy(np.empty(0, entry.dtype)).dtype,
                device=self.policy.device,
            )
            for name, entry in self.entries.items()
        }

    def describe(self) -> dict[str, dict[str, Any]]:
        """Shapes, ranges and positions of the inputs and outputs, plain JSON."""
        inputs = {
            name: space_to_json(entry) | {"dtype": str(entry.dtype), "shape": list(self._shape(name))}
            for name, entry in self.entries.items()
        }
        for name, size in self.sizes.items():
            inputs[name]["image_size"] = list(size)
        space = self.policy.action_space
        outputs = {
            "action": space_to_json(space) | {"dtype": str(space.dtype), "shape": list(space.shape or ())}
        }
        for output, key in self.maps.items():
            perception = self.extractor.perception_of(key)
            grid = perception.grid
            outputs[output] = {
                "type": "Box",
                "dtype": "float32",
                "shape": [perception.num_heads, *grid.shape],
                "low": 0.0,
                "high": 1.0,
                "image": _name(key),
                "ys": grid.ys.tolist(),
                "xs": grid.xs.tolist(),
            }
        if self.has_value:
            outputs["value"] = {"type": "Box", "dtype": "float32", "shape": [], "low": "-inf", "high": "inf"}
        return {"inputs": inputs, "outputs": outputs}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Map the entries [B, ...] of observations to actions and what else `describe` lists."""
        prepared = {
            name: self._prepare(name, tensor) for name, tensor in zip(self.entries, inputs, strict=True)
        }
        features, percepts = self.extractor.extract_all(prepared if self.keyed else prepared[OBSERVATION])
        actions, _ = self.head(features, NO_CONTEXT)
        outputs = [self._bounded(actions)]
        outputs += [percepts[key].attention for key in self.maps.values()]
        if self.has_value:
            policy: Any = self.policy
            outputs.append(policy.value_net(policy.mlp_extractor.forward_critic(features)).flatten())
        return tuple(outputs)

    def _prepare(self, name: str, tensor: Tensor) -> Tensor:
        """Prepare an entry as SB3's `preprocess_obs` does, whose NumPy numbers a graph would not take."""
        if name in self.pixels:  # the extractor divides
            return channels_to_front(tensor) if name in self.turned else tensor
        if name not in self.choices:
            return tensor.float()
        columns = tensor.long().reshape(-1, len(self.choices[name]))
        parts = [F.one_hot(columns[:, i], n) for i, n in enumerate(self.choices[name])]
        return torch.cat(parts, 1).float()

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(self.entries[name].shape or ())
        return tuple(channels_to_back(np.empty(shape, bool)).shape) if name in self.turned else shape

    def _bounded(self, outputs: Tensor) -> Tensor:
        """Bring outputs [B, ...] into the bounds of the action space, as SB3's `predict` does."""
        actions = outputs.reshape(-1, *(self.policy.action_space.shape or ()))
        if self.low is None or self.high is None:
            return actions
        if self.policy.squash_output:
            return self.low + 0.5 * (actions + 1) * (self.high - self.low)
        return actions.clamp(self.low, self.high)
