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
"""Key of the instruction in dict observations."""


class PerceptionExtractor(CombinedExtractor):
    """Features extractor that applies a perception family to the frames.

    Plugs into PPO, SAC, RecurrentPPO and every other SB3 algorithm, with `CnnPolicy` and `MultiInputPolicy`:

        policy_kwargs=dict(features_extractor_class=PerceptionExtractor,
                           features_extractor_kwargs=dict(perception="query"))

    Its features are the family's features [B, F] followed by the vector entries [B, V]. The vector entries
    are also the family's context. They are the entries of a `Dict` space that are not images, in alphabetical
    order of their keys, flattened, and one-hot if discrete.

    An integer entry `tokens` [MAX_TOKENS] is an instruction, as `robot_attn.tokenize` returns it. The family
    "instruction" reads it, unless it is built with a fixed instruction; it is then not part of the features.
    For other families it is a vector entry, as a bag of words: 1 for each word in it.

    It derives from `CombinedExtractor` without using it: SB3 passes `normalized_image=True`, for a policy
    made with `normalize_images=False`, only to subclasses of that class.

    Args:
        observation_space: the policy's space, channel-first: an image `Box`, or a `Dict` with at least one
            image. Images are uint8 in [0, 255] or floating-point in [0, 1], of shape (C, H, W). SB3
            transposes uint8 frames itself.
        perception: name of a family in `robot_attn.FAMILIES`, "module:Class", or a `Perception` class.
        image: key of the image to use; required if the space has several.
        normalized_image: set by SB3.
        **options: options of the family.

    Attributes:
        perception: the perception module.
        image_key: key of the image, or None for a `Box` space.
        vector_keys: keys of the vector entries, in order.

    Raises:
        ValueError: a space without an image; several images and no `image`; an image that is not
            channel-first; or an unknown family or option.
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
        has_tokens = TOKENS in vectors
        if has_tokens:
            _check_instruction(vectors.pop(TOKENS))
        family = robot_attn.find_family(perception)
        if has_tokens and family.reads_tokens:
            options = {"instruction": None, **options}
        reads_tokens = has_tokens and options.get("instruction", "") is None
        vector_size = sum(int(get_flattened_obs_dim(entry)) for entry in vectors.values())
        vector_size += len(WORDS) if has_tokens and not reads_tokens else 0
        channels, height, width = space.shape
        module = robot_attn.build(
            family,
            image_shape=(channels, height, width),
            context_dim=vector_size + (MAX_TOKENS if reads_tokens else 0),
            **options,
        )
        BaseFeaturesExtractor.__init__(self, observation_space, module.features_dim + vector_size)
        self._has_tokens, self._reads_tokens = has_tokens, reads_tokens
        self.perception: Perception = module
        self.image_key = key
        self.vector_keys = list(vectors)
        # SB3 divides uint8 images by 255, unless normalize_images is False; floating-point images are in [0,
        # 1].
        self._divide = bool(normalized_image and space.dtype == np.uint8)

    def forward(self, observations: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Return features [B, features_dim] of prepared observations; images may also be uint8."""
        return self.extract(observations)[0]

    def percept(self, observations: Tensor | Mapping[str, Tensor]) -> Percept:
        """Return the family's features [B, F] and attention [B, heads, rows, cols]; input as `forward`."""
        return self.extract(observations)[1]

    def extract(self, observations: Tensor | Mapping[str, Tensor]) -> tuple[Tensor, Percept]:
        """Return the features of `forward` and the percept of `percept`, from one pass."""
        frames, context, vectors = self.inputs(observations)
        percept = self.perception(frames, context)
        features = percept.features if vectors is None else torch.cat((percept.features, vectors), 1)
        return features, percept

    def inputs(
        self, observations: Tensor | Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Split observations into the perception's inputs and the vectors that follow its features.

        Returns:
            Frames [B, C, H, W]; the context [B, D], None if the perception has none; and the vectors [B, V],
            None if the space has none.
        """
        if isinstance(observations, Tensor):
            frames, vectors, context = observations, None, None
        else:
            assert self.image_key is not None
            frames = observations[self.image_key]
            # Concatenation copies into memory that torch aligns. Memory of NumPy may be aligned differently
            # in every run, and rounding depends on alignment.
            parts = [observations[key].flatten(1).float() for key in self.vector_keys]
            tokens = observations[TOKENS] if self._has_tokens else None
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
    """Return a policy's features and attention for an observation.

    Args:
        source: an SB3 algorithm or its policy, with a `PerceptionExtractor`.
        observation: an observation or a batch, arrays or tensors of the space's dtype. Frames are (C, H, W),
            as in the policy's space, or (H, W, C), as in the environment; if both fit, (C, H, W).
        extractor: whose extractor to use if actor and critic have separate ones (SAC's default).

    Returns:
        Percept with features [B, F] and attention [B, heads, rows, cols], detached; B is 1 for a single
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
                f"expected a dict with the keys {sorted(space.spaces)}, got {type(observation).__name__}: "
                "pass the whole observation"
            )
        missing = sorted(set(space.spaces) - set(observation))
        if missing:
            raise ValueError(
                f"expected the keys {sorted(space.spaces)}, got {sorted(observation)}: add {missing}"
            )
        tensors = {key: _as_tensor(observation[key], entry, key) for key, entry in space.spaces.items()}
        sizes = {key: len(tensor) for key, tensor in tensors.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f"expected one batch size for all entries, got {sizes}: pass entries of one batch"
            )
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
    """Return the `PerceptionExtractor` of a policy.

    Args:
        policy: the policy.
        extractor: the actor's, or the critic's if that is separate.

    Raises:
        ValueError: the policy has none, or `extractor` is neither "actor" nor "critic".
    """
    if extractor not in ("actor", "critic"):
        raise ValueError(f"expected extractor 'actor' or 'critic', got {extractor!r}: use one of the two")
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
    """Return the key of the image in a `Dict` space, or None for an image `Box`."""
    if not isinstance(space, spaces.Dict):
        if image is not None:
            raise ValueError(f"expected a Dict space for image={image!r}, got {space}: leave it out")
        if not _has_image_shape(space):
            raise ValueError(
                f"expected an image space, a Box of shape (C, H, W), got {space}: use an environment with "
                "frames"
            )
        return None
    images = [key for key, entry in space.spaces.items() if _has_image_shape(entry)]
    if not images:
        raise ValueError(
            f"expected an image among the space's entries, a Box of shape (C, H, W), got {space}: add frames"
        )
    if image is None and len(images) > 1:
        raise ValueError(
            f"expected the name of one of the images {images}, got none: choose one, such as "
            f"features_extractor_kwargs=dict(image={images[0]!r})"
        )
    if image is not None and image not in images:
        raise ValueError(
            f"expected image to name one of the space's images {images}, got {image!r}: use one of them"
        )
    return image if image is not None else images[0]


def _entry(space: spaces.Space[Any], key: str | None) -> spaces.Box:
    entry = space if key is None else space[key]  # type: ignore[index]
    assert isinstance(entry, spaces.Box)
    limits = (float(entry.low.min()), float(entry.high.max()))
    if (entry.dtype == np.uint8 and limits == (0, 255)) or (
        np.issubdtype(entry.dtype, np.floating) and limits == (0, 1)
    ):
        return entry
    raise ValueError(
        f"expected an image space of uint8 in [0, 255] or of floats in [0, 1], got {entry}: rescale the "
        "frames"
    )


def _has_image_shape(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 3


def _check_instruction(space: spaces.Space[Any]) -> None:
    whole = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer)
    if not whole or space.shape != (MAX_TOKENS,) or space.low.min() < 0 or space.high.max() > len(WORDS):  # type: ignore[attr-defined]
        raise ValueError(
            f"expected the entry {TOKENS!r} to be {MAX_TOKENS} whole numbers from 0 to {len(WORDS)}, as "
            f"robot_attn.tokenize returns them, got {space}: rename an entry that is not an instruction"
        )


def _as_tensor(value: Any, space: spaces.Space[Any], key: str | None) -> Tensor:
    """Convert an entry to a batch [B, *space.shape] of the space's dtype, frames channel-first."""
    name = "observation" if key is None else f"observation {key!r}"
    shape = tuple(space.shape or ())
    array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    if isinstance(space, spaces.Box) and array.dtype != space.dtype:
        raise ValueError(f"expected {name} of dtype {space.dtype}, got {array.dtype}: convert it")
    if array.ndim not in (len(shape), len(shape) + 1):
        raise ValueError(
            f"expected {name} of shape {shape} or (batch, *{shape}), got {array.shape}: reshape it"
        )
    single = array.ndim == len(shape)
    array = array[None] if single else array
    if _has_image_shape(space) and channel_axis(array.shape, (shape[1], shape[2])) == -1:
        array = channels_to_front(array)
    if array.shape[1:] != shape:
        order = f" (C, H, W), or {(*shape[1:], shape[0])} (H, W, C)" if _has_image_shape(space) else ""
        got = array.shape[1:] if single else array.shape
        raise ValueError(
            f"expected {name} of shape {shape}{order}, alone or in a batch, got {got}: reshape it"
        )
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise ValueError(f"expected a finite {name}, got NaN or infinity: check the environment")
    return torch.as_tensor(np.ascontiguousarray(array))
