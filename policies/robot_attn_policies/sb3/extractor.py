"""Any perception family of `robot_attn` as the features extractor of a Stable-Baselines3 policy."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor
from torch import Tensor, nn

import robot_attn
from robot_attn import MAX_TOKENS, Percept, Perception
from robot_attn.layout import ImageLayout, image_layout, rearrange
from robot_attn.vocabulary import WORDS, bag_of_words
from robot_attn_policies.compat.stable_baselines3 import divides_images
from robot_attn_policies.sb3.images import entries_of, image_entries, pixel_range

TOKENS = "tokens"
"""Key of the instruction in dict observations."""


class PerceptionExtractor(CombinedExtractor):
    """Features extractor that applies a perception family to the frames of each camera.

    Plugs into PPO, SAC, RecurrentPPO and every other SB3 algorithm, with `CnnPolicy` and `MultiInputPolicy`:

        policy_kwargs=dict(features_extractor_class=PerceptionExtractor,
                           features_extractor_kwargs=dict(perception="query"))

    Every image of a `Dict` space gets its own perception module, in the order of the space. The features
    are those of each module [B, F], one after the other, followed by the vector entries [B, V]. The vector
    entries are also every module's context. They are the entries that are not images, in alphabetical order
    of their keys, flattened, and one-hot if discrete.

    Images are uint8 in [0, 255], or floats with finite bounds, such as [0, 1] or a depth in metres, which are
    scaled to [0, 1] by these bounds. They are (H, W, C), (C, H, W), stacked (k, H, W, C) or (k, C, H, W), or
    grey (H, W) of uint8 or in [0, 1]; the frames of a stack become channels. Other arrays are vectors.

    An integer entry `tokens` [MAX_TOKENS] is an instruction, as `robot_attn.tokenize` returns it. The family
    "instruction" reads it, unless it is built with a fixed instruction; it is then not part of the features.
    For other families it is a vector entry, as a bag of words: 1 for each word in it.

    It derives from `CombinedExtractor` without using it: SB3 passes `normalized_image=True`, for a policy
    made with `normalize_images=False`, only to subclasses of that class.

    Args:
        observation_space: the policy's space: an image `Box`, or a `Dict` with at least one image. SB3
            transposes uint8 frames of (H, W, C) itself.
        perception: name of a family in `robot_attn.FAMILIES`, "module:Class", or a `Perception` class.
        image: key of the image to use, or several; all images if None. A warning names those left out.
        share_weights: whether all cameras use the same module; their frames then have one shape.
        normalized_image: set by SB3. Ignored while SB3 constructs a policy: it writes this argument into the
            caller's `features_extractor_kwargs`, where it also reaches later policies that divide images.
        **options: options of the family.

    Attributes:
        image_keys: keys of the images in use, in order; (None,) for a `Box` space.
        vector_keys: keys of the vector entries, in order.
        perception: the perception module of a policy with one camera. `perception_of` is for any number.

    Raises:
        ValueError: a space without an image, an image whose size or range does not fit, `share_weights` for
            images of different shapes, or an unknown image, family or option.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        perception: str | type[Perception] = "query",
        *,
        image: str | Sequence[str] | None = None,
        share_weights: bool = False,
        normalized_image: bool = False,
        **options: Any,
    ) -> None:
        layouts = image_entries(observation_space)
        keys = _choose_images(observation_space, list(layouts), image)
        entries = entries_of(observation_space)
        ranges = {key: pixel_range(entries[key], key) for key in keys}
        vectors = {
            cast(str, key): entry
            for key, entry in sorted(entries.items(), key=lambda item: str(item[0]))
            if key not in layouts
        }
        has_tokens = TOKENS in vectors
        if has_tokens:
            _check_instruction(vectors.pop(TOKENS))
        family = robot_attn.find_family(perception)
        if has_tokens and family.reads_tokens:
            options = {"instruction": None, **options}
        reads_tokens = has_tokens and options.get("instruction", "") is None
        vector_size = sum(int(get_flattened_obs_dim(entry)) for entry in vectors.values())
        vector_size += len(WORDS) if has_tokens and not reads_tokens else 0
        context_dim = vector_size + (MAX_TOKENS if reads_tokens else 0)
        shapes = [layouts[key].image_shape for key in keys]
        if share_weights and len(set(shapes)) > 1:
            raise ValueError(
                f"expected images of one shape for share_weights, got {dict(zip(keys, shapes, strict=True))}"
                ": leave share_weights out, or resize the frames"
            )
        modules = [
            robot_attn.build(family, image_shape=shape, context_dim=context_dim, **options)
            for shape in (shapes[:1] if share_weights else shapes)
        ]
        modules *= len(keys) if share_weights else 1
        features_dim = sum(module.features_dim for module in modules)
        BaseFeaturesExtractor.__init__(self, observation_space, features_dim + vector_size)
        self._has_tokens, self._reads_tokens = has_tokens, reads_tokens
        self.image_keys = keys
        self.vector_keys = list(vectors)
        if len(modules) == 1:  # the name of its weights in files from before there were several
            self.perception: Perception = modules[0]
        else:
            self.perceptions = nn.ModuleList(modules)
        self._layouts = {key: layouts[key] for key in keys}
        sb3_divides = divides_images()
        if sb3_divides is None:
            sb3_divides = not normalized_image
        self._scales = {
            key: (0.0, 1.0) if sb3_divides and is_image_space(entries[key]) else ranges[key] for key in keys
        }

    def perception_of(self, image: str | None = None) -> Perception:
        """Return the perception module of a camera.

        Args:
            image: key of its image; None for the only one.

        Raises:
            ValueError: an image that the policy does not use, or None if there are several.
        """
        index = self.image_keys.index(self.camera(image))
        return self.perception if len(self.image_keys) == 1 else cast(Perception, self.perceptions[index])

    def camera(self, image: str | None = None) -> str | None:
        """Return the key of a camera's image; arguments and errors as `perception_of`."""
        if image in self.image_keys:
            return image
        if image is None and len(self.image_keys) == 1:
            return self.image_keys[0]
        if image is None:
            raise ValueError(
                f"expected the name of one of the cameras {list(self.image_keys)}, got none: choose one, "
                f"such as image={self.image_keys[0]!r}"
            )
        raise ValueError(
            f"expected one of the cameras {list(self.image_keys)} that the policy uses, got {image!r}: name "
            "one of them"
        )

    def forward(self, observations: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Return features [B, features_dim] of prepared observations; images may also be uint8."""
        return self.extract_all(observations)[0]

    def percept(self, observations: Tensor | Mapping[str, Tensor], image: str | None = None) -> Percept:
        """Return a camera's features [B, F] and attention [B, heads, rows, cols].

        Args:
            observations: as `forward`.
            image: key of the camera's image; None for the only one.
        """
        frames, context, _ = self.inputs(observations, image)
        return self.perception_of(image)(frames, context)

    def extract(
        self, observations: Tensor | Mapping[str, Tensor], image: str | None = None
    ) -> tuple[Tensor, Percept]:
        """Return the features of `forward` and the percept of `percept`, from one pass."""
        key = self.camera(image)
        features, percepts = self.extract_all(observations)
        return features, percepts[key]

    def extract_all(
        self, observations: Tensor | Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str | None, Percept]]:
        """Return the features of `forward` and the percept of every camera by its key, from one pass."""
        context, vectors = self._context(observations)
        percepts = {
            key: self.perception_of(key)(self._frames(observations, key), context) for key in self.image_keys
        }
        parts = [percept.features for percept in percepts.values()]
        parts += [] if vectors is None else [vectors]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0], percepts

    def inputs(
        self, observations: Tensor | Mapping[str, Tensor], image: str | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Split observations into a perception's inputs and the vectors that follow the features.

        Args:
            observations: as `forward`.
            image: key of the camera's image; None for the only one.

        Returns:
            Frames [B, C, H, W]; the context [B, D], None if the perception has none; and the vectors [B, V],
            None if the space has none.
        """
        return self._frames(observations, self.camera(image)), *self._context(observations)

    def _frames(self, observations: Tensor | Mapping[str, Tensor], key: str | None) -> Tensor:
        frames = observations if isinstance(observations, Tensor) else observations[cast(str, key)]
        low, high = self._scales[key]
        if frames.dtype != torch.uint8 and (low, high) != (0, 1):
            frames = (frames - low) / (high - low)
        return self._layouts[key].to_channels_first(frames)

    def _context(self, observations: Tensor | Mapping[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
        if isinstance(observations, Tensor):
            return None, None
        # Concatenation copies into memory that torch aligns. Memory of NumPy may be aligned differently in
        # every run, and rounding depends on alignment.
        parts = [observations[key].flatten(1).float() for key in self.vector_keys]
        tokens = observations[TOKENS] if self._has_tokens else None
        if tokens is not None and not self._reads_tokens:
            parts.append(bag_of_words(tokens.long()))
        vectors = torch.cat(parts, 1) if parts else None
        if tokens is not None and self._reads_tokens:
            parts.append(tokens.float())
        return torch.cat(parts, 1) if parts else None, vectors


def perceive(
    source: BaseAlgorithm | BasePolicy,
    observation: Any,
    *,
    extractor: Literal["actor", "critic"] = "actor",
    image: str | None = None,
) -> Percept:
    """Return a policy's features and attention for an observation, of one camera.

    Args:
        source: an SB3 algorithm or its policy, with a `PerceptionExtractor`.
        observation: an observation or a batch, arrays or tensors of the space's dtype. Frames have the axes
            of the policy's space or those of the environment, such as (C, H, W) and (H, W, C); if both fit,
            those of the space.
        extractor: whose extractor to use if actor and critic have separate ones (SAC's default).
        image: key of the camera's image; None for a policy with one camera.

    Returns:
        Percept with features [B, F] and attention [B, heads, rows, cols], detached; B is 1 for a single
        observation.

    Raises:
        ValueError: a policy without `PerceptionExtractor`, an observation that does not fit its space, or no
            `image` for a policy with several cameras.
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
        layouts = image_entries(space)
        tensors = {
            key: _as_tensor(observation[key], entry, key, layouts.get(key))
            for key, entry in space.spaces.items()
        }
        sizes = {key: len(tensor) for key, tensor in tensors.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f"expected one batch size for all entries, got {sizes}: pass entries of one batch"
            )
        prepared: Any = {key: tensor.to(policy.device) for key, tensor in tensors.items()}
    else:
        prepared = _as_tensor(observation, space, None, image_entries(space).get(None)).to(policy.device)
    was_training = policy.training
    policy.set_training_mode(False)
    try:
        with torch.no_grad():
            return probe.percept(
                preprocess_obs(prepared, space, normalize_images=policy.normalize_images), image
            )
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
    found = features_extractor_of(policy, extractor)
    if not isinstance(found, PerceptionExtractor):
        raise ValueError(
            "expected a policy whose features extractor is a PerceptionExtractor, got "
            f"{type(found).__name__}: train it with "
            "policy_kwargs=dict(features_extractor_class=PerceptionExtractor)"
        )
    return found


def features_extractor_of(
    policy: BasePolicy, extractor: Literal["actor", "critic"] = "actor"
) -> nn.Module | None:
    """Return the features extractor of a policy, of whatever class; None if it has none.

    Args:
        policy: the policy.
        extractor: the actor's, or the critic's if that is separate.

    Raises:
        ValueError: `extractor` is neither "actor" nor "critic".
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
            return cast(nn.Module, found)
    return None


def _choose_images(
    space: spaces.Space[Any], images: Sequence[str | None], image: str | Sequence[str] | None
) -> tuple[str | None, ...]:
    """Return the keys of the images to use, (None,) for an image `Box`."""
    if not isinstance(space, spaces.Dict):
        if image is not None:
            raise ValueError(f"expected a Dict space for image={image!r}, got {space}: leave it out")
        if not images:
            raise ValueError(
                f"expected an image space, such as a Box of shape (C, H, W), got {space}: use an environment "
                "with frames"
            )
        return (None,)
    if not images:
        raise ValueError(
            f"expected an image among the space's entries, such as a Box of shape (C, H, W), got {space}: "
            "add frames"
        )
    if image is None:
        return tuple(images)
    chosen = (image,) if isinstance(image, str) else tuple(image)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(images):
        raise ValueError(
            f"expected image to name one or more of the space's images {list(images)}, each once, got "
            f"{image!r}: use their names"
        )
    unseen = [key for key in images if key not in chosen]
    if unseen:
        warnings.warn(
            f"the policy does not see the images {unseen}, since image={image!r}: leave image out to use all",
            stacklevel=3,
        )
    return chosen


def _check_instruction(space: spaces.Space[Any]) -> None:
    whole = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer)
    if not whole or space.shape != (MAX_TOKENS,) or space.low.min() < 0 or space.high.max() > len(WORDS):  # type: ignore[attr-defined]
        raise ValueError(
            f"expected the entry {TOKENS!r} to be {MAX_TOKENS} whole numbers from 0 to {len(WORDS)}, as "
            f"robot_attn.tokenize returns them, got {space}: rename an entry that is not an instruction"
        )


def _as_tensor(value: Any, space: spaces.Space[Any], key: str | None, layout: ImageLayout | None) -> Tensor:
    """Convert an entry to a batch [B, *space.shape] of the space's dtype; `layout` is that of an image."""
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
    given = None if layout is None else image_layout(array.shape[1:], layout.image_size)
    if layout is not None and given is not None and given.image_shape == layout.image_shape:
        array = rearrange(array, given, layout)
    if array.shape[1:] != shape:
        is_channels_first = layout is not None and layout.order == "CHW"
        order = f" (C, H, W), or {(*shape[1:], shape[0])} (H, W, C)" if is_channels_first else ""
        got = array.shape[1:] if single else array.shape
        raise ValueError(
            f"expected {name} of shape {shape}{order}, alone or in a batch, got {got}: reshape it"
        )
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise ValueError(f"expected a finite {name}, got NaN or infinity: check the environment")
    return torch.as_tensor(np.ascontiguousarray(array))
