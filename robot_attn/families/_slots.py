"""The family "slots": slot attention, in which slots compete for patches and bind to objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.attention import build_score
from robot_attn.attention._checks import check_tokens
from robot_attn.attention._scores import Score
from robot_attn.families._patches import Patches, frame_coordinates, scaled_places
from robot_attn.forcing import forceable
from robot_attn.frames import prepare_frames
from robot_attn.head_inputs import HeadInputs
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes

DECODER_CHANNELS = 32
"""C', channels of the decoder's hidden layers."""


def compete(query: Tensor, key: Tensor, score: Score) -> Tensor:
    """Compute slot-attention weights: softmax over the slots for each token, then normalised over tokens.

    Args:
        query: float [B, k, d], one query per slot.
        key: float [B, n, d].
        score: a score for one head, from `robot_attn.build_score`; called in float32 for half-precision
            inputs.

    Returns:
        Weights float [B, k, n]; those of each slot sum to 1.

    Raises:
        ValueError: other shapes, no slot, no token, or non-finite numbers.

    Locatello et al. 2020, https://arxiv.org/abs/2006.15055, eqs. 1 and 2: a softmax over the slots gives
    attn, and each slot's attn divided by its sum over the tokens gives W. Algorithm 1 adds an epsilon to
    attn, so that a slot without tokens does not divide 0 by 0; here the second step is a softmax of
    log(attn), which equals it without an epsilon. Cost: 2 B k n d FLOPs; 3 B k n numbers.
    """
    check_tokens(query, key)
    half = query.dtype in (torch.float16, torch.bfloat16)
    logits = (
        score(query[:, None].float(), key[:, None].float()) if half else score(query[:, None], key[:, None])
    )
    return logits.squeeze(1).log_softmax(dim=1).softmax(dim=2).to(key.dtype)


class SlotAttention(nn.Module):
    """Slot attention: slots compete for tokens over several rounds, and each is updated by a GRU.

    Locatello et al. 2020, https://arxiv.org/abs/2006.15055, algorithm 1; "scaled_dot" is its score. There the
    initial slots are sampled from one normal distribution, which makes slots exchangeable. Here each slot has
    a learned initial state, as in Jia et al. 2023, https://arxiv.org/abs/2210.08990: the module is
    deterministic, and a slot can specialise in one kind of object, which a policy that reads the slots in
    order needs. Cost: 4 B n s D + T B (4 k n D + 22 k D^2) FLOPs for k slots and n tokens of s numbers, and B
    n (2 D + 3 T k) numbers with a gradient.

    Args:
        token_dim: s, dimension of a token.
        slots: k, number of slots.
        slot_dim: D, dimension of a slot.
        rounds: T, number of rounds (iterations).
        score: a name that `robot_attn.build_score` accepts.

    Raises:
        ValueError: sizes that are not positive integers, or an unknown score.
    """

    def __init__(
        self, token_dim: int, *, slots: int, slot_dim: int, rounds: int = 3, score: str = "scaled_dot"
    ) -> None:
        super().__init__()
        check_sizes(token_dim=token_dim, slots=slots, slot_dim=slot_dim, rounds=rounds)
        self.token_dim, self.rounds = token_dim, rounds
        self.first = nn.Parameter(torch.randn(slots, slot_dim))
        self.norm_tokens = nn.LayerNorm(token_dim)
        self.norm_slots = nn.LayerNorm(slot_dim)
        self.norm_update = nn.LayerNorm(slot_dim)
        self.query = nn.Linear(slot_dim, slot_dim, bias=False)
        self.key = nn.Linear(token_dim, slot_dim, bias=False)
        self.value = nn.Linear(token_dim, slot_dim, bias=False)
        self.score = build_score(score, slot_dim, 1)
        self.cell = nn.GRUCell(slot_dim, slot_dim)
        self.update = nn.Sequential(
            nn.Linear(slot_dim, 2 * slot_dim),
            nn.ReLU(inplace=True),
            nn.Linear(2 * slot_dim, slot_dim),
        )

    def forward(
        self, tokens: Tensor, force: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the slots of tokens float [B, n, s].

        Args:
            tokens: float [B, n, s].
            force: maps the weights of the last round, [B, k, n], to those to use instead. A slot whose
                weights it changes has them in every round, since what it reads in earlier ones stays with it.

        Returns:
            Slots [B, k, D], and the weights of the last round [B, k, n].

        Raises:
            ValueError: another shape, no token, or non-finite numbers.
        """
        if tokens.ndim != 3 or tokens.shape[1] == 0 or tokens.shape[2] != self.token_dim:
            raise ValueError(
                f"expected tokens [B, n, {self.token_dim}] with at least 1 token, "
                f"got shape {list(tokens.shape)}"
            )
        tokens = self.norm_tokens(tokens)
        key, value = self.key(tokens), self.value(tokens)
        slots, weights = self._run(key, value)
        used = weights if force is None else force(weights)
        if used is not weights:
            slots, weights = self._run(key, value, used, (used != weights).any(dim=2, keepdim=True))
        return slots, weights

    def _run(
        self, key: Tensor, value: Tensor, forced: Tensor | None = None, changed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run all rounds, with the weights `forced` [B, k, n] in the slots `changed`, bool [B, k, 1]."""
        # A sum, so that torch.func.vmap batches the initial state too: GRUCell works in place.
        slots = self.first + key.new_zeros(key.shape[0], *self.first.shape)
        for _ in range(self.rounds):
            weights = compete(self.query(self.norm_slots(slots)), key, self.score)
            if forced is not None and changed is not None:
                weights = torch.where(changed, forced, weights)
            read = weights @ value
            slots = self.cell(read.flatten(0, 1), slots.flatten(0, 1)).view_as(read)
            slots = slots + self.update(self.norm_update(slots))
        return slots, weights

    if TYPE_CHECKING:  # nn.Module's own __call__ returns Any

        def __call__(
            self, tokens: Tensor, force: Callable[[Tensor], Tensor] | None = None
        ) -> tuple[Tensor, Tensor]: ...


class Slots(Perception):
    """Slot attention over a grid of patches: the content and position of each slot.

    Locatello et al. 2020, https://arxiv.org/abs/2006.15055: an encoder with position embeddings, an MLP, and
    `SlotAttention`. The paper embeds a position as a linear map of (x, y, 1 - x, 1 - y), which equals one of
    (x, y) with a bias. The features are a linear map, then ReLU, of every slot, its expected (x, y) in [-1,
    1] (Levine et al. 2016, https://arxiv.org/abs/1504.00702, section 5.1), and the context.

    The attention is each slot's weights in the last round, normalised over the patches: one head per slot.
    The initial slots are learned, so the module is deterministic, in training too.

    Args:
        image_shape: (channels, height, width), height and width from 32 to 2048 pixels.
        context_dim: dimension of the context, 0 for none.
        features_dim: F, dimension of the features.
        slots: k, number of slots.
        patch_dim: S, dimension of a patch embedding.
        slot_dim: D, dimension of a slot.
        rounds: T, number of rounds.
        score: a name that `robot_attn.build_score` accepts; "scaled_dot" is the paper's.
        decoder: build the decoder that `reconstruct` needs. The features do not depend on it: it is trained
            by `reconstruction_loss` only.

    Raises:
        ValueError: an image_shape or size out of range, or an unknown score.

    Cost: 4 N S^2 FLOPs per frame after the N patches, and those of `SlotAttention`.
    """

    good_for: ClassVar[str] = "several objects at once, one slot each; can be pretrained by reconstruction"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        context_dim: int = 0,
        *,
        features_dim: int = 128,
        slots: int = 7,
        patch_dim: int = 32,
        slot_dim: int = 32,
        rounds: int = 3,
        score: str = "scaled_dot",
        decoder: bool = False,
    ) -> None:
        super().__init__(image_shape, context_dim)
        check_sizes(features_dim=features_dim, slots=slots, patch_dim=patch_dim)
        self.features_dim = features_dim
        self.num_heads = slots
        self.patches = Patches(self.image_shape, patch_dim)
        self.grid = self.patches.grid
        self.register_buffer("coordinates", frame_coordinates(self.grid), persistent=False)
        self.coordinates: Tensor
        self.place = nn.Linear(2, patch_dim)
        self.hidden = nn.Sequential(
            nn.LayerNorm(patch_dim),
            nn.Linear(patch_dim, patch_dim),
            nn.ReLU(inplace=True),
            nn.Linear(patch_dim, patch_dim),
        )
        self.attention = SlotAttention(patch_dim, slots=slots, slot_dim=slot_dim, rounds=rounds, score=score)
        self.project = nn.Linear(slots * (slot_dim + 2) + self.context_dim, features_dim)
        self.decoder = _Decoder(slot_dim, self.image_shape) if decoder else None

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        slots, weights = self._attend(frames)
        inputs = [slots.flatten(1), F.linear(weights, self.coordinates).flatten(1)]
        if context is not None:
            inputs.append(context)
        features = F.relu_(self.project(torch.cat(inputs, dim=1)))
        return Percept(features, weights.view(-1, self.num_heads, *self.grid.shape))

    def reconstruct(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct the frames from the slots.

        A spatial broadcast decoder (Watters et al. 2019, https://arxiv.org/abs/1901.07017) decodes a frame
        and a mask from each slot separately; a softmax over the slots' masks mixes the frames, as in
        Locatello et al. 2020. Cost: 8 C' (C + 1) + 3 C'^2 FLOPs for each slot and pixel, C' = 32 channels,
        and about 2 C + C' / 3 numbers with a gradient.

        Args:
            frames: as in `forward`.

        Returns:
            Frames float [B, C, H, W], about in [0, 1], and masks float [B, slots, H, W], which sum to 1 over
            the slots.

        Raises:
            ValueError: as `forward`, or a module without a decoder.
        """
        return self._decode(self._float(frames))

    def reconstruction_loss(self, frames: Tensor) -> Tensor:
        """Mean squared error of `reconstruct`, float []: an unsupervised loss from which slots learn objects.

        Locatello et al. 2020, section 4.1.

        Args:
            frames: as in `forward`.

        Raises:
            ValueError: as `reconstruct`.
        """
        frames = self._float(frames)
        return F.mse_loss(self._decode(frames)[0], frames)

    def head_inputs(self) -> HeadInputs:
        return HeadInputs.values_then_places(self.project, self.num_heads, self.attention.first.shape[1])

    def _attend(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.patches(frames).flatten(2).transpose(1, 2)
        return self.attention(self.hidden(patches + self.place(self.coordinates.t())), forceable)

    def _decode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        if self.decoder is None:
            raise ValueError("expected a module with a decoder, got none: build Slots with decoder=True")
        return self.decoder(self._attend(frames)[0])

    def _float(self, frames: Tensor) -> Tensor:
        return prepare_frames(frames, self.image_shape, self.place.weight.dtype)


class _Decoder(nn.Module):
    """Spatial broadcast decoder: slots [B, k, D] -> frames [B, C, H, W] and masks [B, k, H, W]."""

    def __init__(self, slot_dim: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.image_size = (height, width)
        self.grid = (-(-height // 8), -(-width // 8))
        ys, xs = (8 * torch.arange(float(cells)) + 3.5 for cells in self.grid)
        places = scaled_places(ys, xs, self.image_size).t().contiguous()
        self.register_buffer("places", places, persistent=False)
        self.places: Tensor
        self.place = nn.Linear(2, slot_dim)
        self.paint = nn.Sequential(
            nn.ConvTranspose2d(slot_dim, DECODER_CHANNELS, 4, 2, 1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(DECODER_CHANNELS, DECODER_CHANNELS, 4, 2, 1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(DECODER_CHANNELS, channels + 1, 4, 2, 1),
        )

    def forward(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        height, width = self.image_size
        cells = slots[:, :, None] + self.place(self.places)
        cells = cells.flatten(0, 1).transpose(1, 2).unflatten(2, self.grid)
        painted = self.paint(cells)[:, :, :height, :width].unflatten(0, slots.shape[:2])
        masks = painted[:, :, -1].softmax(dim=1)
        return (painted[:, :, :-1] * masks[:, :, None]).sum(dim=1), masks

    if TYPE_CHECKING:  # nn.Module's own __call__ returns Any

        def __call__(self, slots: Tensor) -> tuple[Tensor, Tensor]: ...
