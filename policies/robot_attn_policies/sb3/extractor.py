"""Any perception family of `robot_attn` as the features extractor of a Stable-Baselines3 policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor
from torch import Tensor

import robot_attn
from robot_attn import MAX_TOKENS, Percept, Perception
from robot_attn.frames import channel_axis, channels_to_front
from robot_attn.vocabulary import WORDS, bag_of_words

TOKENS = "tokens"
"""The key of the entry that is an instruction."""


class PerceptionExtractor(CombinedExtractor):
    """Frames and vectors -> features, through a perception family that also tells where it looked.

    Plugs into PPO, SAC, RecurrentPPO and every other SB3 algorithm, with `CnnPolicy` and `MultiInputPolicy`:

        policy_kwargs=dict(features_extractor_class=PerceptionExtractor,
                           features_extractor_kwargs=dict(perception="query"))

    The features are the family's features [B, F] followed by the vector entries [B, C]. The vectors are the
    family's context too: the entries of a `Dict` space that are not images, in alphabetical order of their
    keys, one-hot where discrete, each flattened.

    An entry `tokens` of whole numbers [MAX_TOKENS] is an instruction, as `robot_attn.tokenize` gives it. The
    family "instruction" reads it, unless it is built with a fixed instruction; the features do not repeat
    it. To other families it is a vector as the others, a bag of words: 1 for each word that is in it.

    It is a `CombinedExtractor` in name only (no part of that class is built): SB3 passes
    `normalized_image=True`, which says that its policy was made with `normalize_images=False`, to subclasses
    of that class and to no other.

    Args:
        observation_space: the policy's, channel-first: a `Box` image, or a `Dict` with one image entry or
            more. An image is uint8 in [0, 255] or floating-point in [0, 1], of shape (C, H, W). SB3
            transposes uint8 frames itself.
        perception: name of a family in `robot_attn.FAMILIES`, "module:Class", or a `Perception` class.
        image: key of the image entry to look at; needed where the space has several.
        normalized_image: set by SB3.
        **options: options of the family.

    Raises:
        ValueError: no image in the space, several images and no `image`, an image that is not channel-first,
            an unknown family or option.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        perception: str | type[Perception] = "query",
        *,
        image: str | None = None,
        normalized_image: bool = False,
        **options: Any,
    ) -> None:
        key = _image_key(observation_space, image)
        space = _entry(observation_space, key)
        entries = (
            sorted(observation_space.spaces.items()) if isinstance(observation_space, spaces.Dict) else []
        )
        vectors = {name: entry for name, entry in entries if not _has_image_shape(entry)}
        told = TOKENS in vectors
        if told:
            _check_instruction(vectors.pop(TOKENS))
        family = robot_attn.find_family(perception)
        if told and family.reads_tokens:
            options = {"instruction": None, **options}
        reads = told and options.get("instruction", "") is None
        vector_size = sum(int(get_flattened_obs_dim(entry)) for entry in vectors.values())
        vector_size += len(WORDS) if told and not reads else 0
        channels, height, width = space.shape
        module = robot_attn.build(
            family,
            image_shape=(channels, height, width),
            context_dim=vector_size + (MAX_TOKENS if reads else 0),
            **options,
        )
        BaseFeaturesExtractor.__init__(self, observation_space, module.features_dim + vector_size)
        self._told, self._reads_tokens = told, reads
        self.perception: Perception = module
        self.image_key = key
        self.vector_keys = list(vectors)
        # SB3 divides uint8 images by 255 unless told not to; floating-point spaces hold [0, 1] already.
        self._divide = bool(normalized_image and space.dtype == np.uint8)

    def forward(self, observations: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Features [B, features_dim] of observations as SB3 prepares them; images may be uint8, too."""
        return self.extract(observations)[0]

    def percept(self, observations: Tensor | Mapping[str, Tensor]) -> Percept:
        """Features [B, F] and attention [B, heads, rows, cols] of what `forward` takes."""
        return self.extract(observations)[1]

    def extract(self, observations: Tensor | Mapping[str, Tensor]) -> tuple[Tensor, Percept]:
        """The features that `forward` returns, and the percept they come from, in one pass."""
        frames, context, vectors = self.inputs(observations)
        percept = self.perception(frames, context)
        features = percept.features if vectors is None else torch.cat((percept.features, vectors), 1)
        return features, percept

    def inputs(
        self, observations: Tensor | Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What the perception gets of observations, and the vectors that follow its features.

        Returns:
            Frames [B, C, H, W]; the context [B, D], None where the perception has none; and the vectors
            [B, V], None where the space has none.
        """
        if isinstance(observations, Tensor):
            frames, vectors, context = observations, None, None
        else:
            assert self.image_key is not None
            frames = observations[self.image_key]
            # A concatenation is always a new tensor: its memory is aligned as torch aligns, wherever NumPy
            # put the vectors, and the same alignment gives the same bits in every run.
            parts = [observations[key].flatten(1).float() for key in self.vector_keys]
            tokens = observations[TOKENS] if self._told else None
            if tokens is not None and not self._reads_tokens:
                parts.append(bag_of_words(tokens.long()))
            vectors = torch.cat(parts, 1) if parts else None
            if tokens is not None and self._reads_tokens:
                parts.append(tokens.float())
            context = torch.cat(parts, 1) if parts else None
        if self._divide and frames.dtype != torch.uint8:
            frames = frames / 255.0
        return frames, context, vectors


def perceive(
    source: BaseAlgorithm | BasePolicy,
    observation: Any,
    *,
    extractor: Literal["actor", "critic"] = "actor",
) -> Percept:
    """Where a policy looks: its percept of an observation, as the environment gives it.

    Args:
        source: an SB3 algorithm, or its policy, whose features extractor is a `PerceptionExtractor`.
        observation: one observation or a batch, arrays or tensors, of the space's dtype. Frames in the order
            of the policy's space (C, H, W) or of the environment ([..., H, W, C]); an order that fits both is
            the policy's.
        extractor: whose eyes, where actor and critic have their own (SAC's default): the actor's unless
            "critic".

    Returns:
        Percept of features [B, F] and attention [B, heads, rows, cols], without gradient; B is 1 for one
        observation.

    Raises:
        ValueError: a policy without `PerceptionExtractor`, or an observation that does not fit its space.
    """
    policy = source.policy if isinstance(source, BaseAlgorithm) else source
    probe = find_extractor(policy, extractor)
    space = policy.observation_space
    if isinstance(space, spaces.Dict):
        if not isinstance(observation, Mapping):
            raise ValueError(
                f"expected a dict with the keys {sorted(space.spaces)}, got {type(observation).__name__}"
            )
        missing = sorted(set(space.spaces) - set(observation))
        if missing:
            raise ValueError(
                f"expected the keys {sorted(space.spaces)}, got {sorted(observation)}: {missing} missing"
            )
        tensors = {key: _as_tensor(observation[key], entry, key) for key, entry in space.spaces.items()}
        sizes = {key: len(tensor) for key, tensor in tensors.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"expected one batch size for all entries, got {sizes}")
        prepared: Any = {key: tensor.to(policy.device) for key, tensor in tensors.items()}
    else:
        prepared = _as_tensor(observation, space, None).to(policy.device)
    was_training = policy.training
    policy.set_training_mode(False)
    try:
        with torch.no_grad():
            return probe.percept(preprocess_obs(prepared, space, normalize_images=policy.normalize_images))
    finally:
        policy.set_training_mode(was_training)


def find_extractor(
    policy: BasePolicy, extractor: Literal["actor", "critic"] = "actor"
) -> PerceptionExtractor:
    """The `PerceptionExtractor` of a policy: the actor's, or the critic's where it has its own.

    Raises:
        ValueError: there is none, or `extractor` names neither.
    """
    if extractor not in ("actor", "critic"):
        raise ValueError(f"expected extractor 'actor' or 'critic', got {extractor!r}")
    owners = {
        "actor": ("pi_features_extractor", "actor", "q_net", "quantile_net", "features_extractor"),
        "critic": ("vf_features_extractor", "critic", "q_net", "quantile_net", "features_extractor"),
    }[extractor]
    for name in owners:
        owner = getattr(policy, name, None)
        found = getattr(owner, "features_extractor", owner)
        if found is not None:
            break
    if not isinstance(found, PerceptionExtractor):
        raise ValueError(
            "expected a policy whose features extractor is a PerceptionExtractor, got "
            f"{type(found).__name__}: train it with "
            "policy_kwargs=dict(features_extractor_class=PerceptionExtractor)"
        )
    return found


def _image_key(space: spaces.Space[Any], image: str | None) -> str | None:
    """The key of the image entry of a `Dict` space, None for a `Box` image."""
    if not isinstance(space, spaces.Dict):
        if image is not None:
            raise ValueError(f"image={image!r} names an entry of a Dict space, got {space}: leave it out")
        if not _has_image_shape(space):
            raise ValueError(f"expected an image space, a Box of shape (C, H, W), got {space}")
        return None
    images = [key for key, entry in space.spaces.items() if _has_image_shape(entry)]
    if not images:
        raise ValueError(
            f"expected an image among the space's entries, a Box of shape (C, H, W), got {space}"
        )
    if image is None and len(images) > 1:
        raise ValueError(
            f"the space has several images, {images}: name the one to look at, "
            f"features_extractor_kwargs=dict(image={images[0]!r})"
        )
    if image is not None and image not in images:
        raise ValueError(f"expected image to name one of the space's images {images}, got {image!r}")
    return image if image is not None else images[0]


def _entry(space: spaces.Space[Any], key: str | None) -> spaces.Box:
    entry = space if key is None else space[key]  # type: ignore[index]
    assert isinstance(entry, spaces.Box)
    limits = (float(entry.low.min()), float(entry.high.max()))
    if (entry.dtype == np.uint8 and limits == (0, 255)) or (
        np.issubdtype(entry.dtype, np.floating) and limits == (0, 1)
    ):
        return entry
    raise ValueError(f"expected an image space of uint8 in [0, 255] or of floats in [0, 1], got {entry}")


def _has_image_shape(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 3


def _check_instruction(space: spaces.Space[Any]) -> None:
    whole = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer)
    if not whole or space.shape != (MAX_TOKENS,) or space.low.min() < 0 or space.high.max() > len(WORDS):  # type: ignore[attr-defined]
        raise ValueError(
            f"expected the entry {TOKENS!r} to be {MAX_TOKENS} whole numbers from 0 to {len(WORDS)}, as "
            f"robot_attn.tokenize gives them, got {space}: rename an entry that is not an instruction"
        )


def _as_tensor(value: Any, space: spaces.Space[Any], key: str | None) -> Tensor:
    """One entry as a batch [B, *space.shape] of the space's dtype, frames channel-first."""
    name = "observation" if key is None else f"observation {key!r}"
    shape = tuple(space.shape or ())
    array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    if isinstance(space, spaces.Box) and array.dtype != space.dtype:
        raise ValueError(f"expected {name} of dtype {space.dtype}, got {array.dtype}")
    if array.ndim not in (len(shape), len(shape) + 1):
        raise ValueError(f"expected {name} of shape {shape} or (batch, *{shape}), got {array.shape}")
    single = array.ndim == len(shape)
    array = array[None] if single else array
    if _has_image_shape(space) and channel_axis(array.shape, (shape[1], shape[2])) == -1:
        array = channels_to_front(array)
    if array.shape[1:] != shape:
        order = f" (C, H, W), or {(*shape[1:], shape[0])} (H, W, C)" if _has_image_shape(space) else ""
        got = array.shape[1:] if single else array.shape
        raise ValueError(f"expected {name} of shape {shape}{order}, alone or in a batch, got {got}")
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise ValueError(f"expected a finite {name}, got NaN or infinity")
    return torch.as_tensor(np.ascontiguousarray(array))
