"""The family "instruction": attention with queries from a language instruction such as "the red ball"."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.attention import attend
from robot_attn.families._patches import Patches
from robot_attn.families._readout import Readout
from robot_attn.frames import recording
from robot_attn.head_inputs import HeadInputs
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes
from robot_attn.vocabulary import MAX_TOKENS, PAD, WORDS, check_tokens, tokenize


class Instruct(nn.Module):
    """Instruction encoder: token ids -> one query per head, from each head's own mixture of the words.

    A word is the sum of a learned embedding of its token id and one of its position. Each head has a learned
    question that attends to the words (`attend`, "scaled_dot"); the result is projected to the head's query.

    Args:
        num_heads: number of heads.
        word_dim: dimension of a word embedding.
        query_dim: dimension of a query.
    """

    def __init__(self, num_heads: int, word_dim: int, query_dim: int) -> None:
        super().__init__()
        self.words = nn.Embedding(PAD + 1 + len(WORDS), word_dim)
        # Position embeddings start small: the meaning of a word hardly depends on its position.
        self.places = nn.Parameter(0.1 * torch.randn(MAX_TOKENS, word_dim))
        self.questions = nn.Parameter(torch.randn(num_heads, word_dim))
        self.to_query = nn.Linear(word_dim, query_dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode token ids int64 [B, MAX_TOKENS] as queries [B, heads, query_dim]; 0 for a row of padding."""
        words = (self.words(tokens) + self.places)[:, None]
        questions = self.questions[:, None].expand(tokens.shape[0], -1, -1, -1)
        read = attend(questions, words, words, mask=(tokens != PAD)[:, None, None])
        queries: Tensor = self.to_query(read.values[:, :, 0])
        return queries


class Instruction(Perception):
    """Attention with queries from a language instruction, such as "the red ball" or "the blue box".

    The keys are patches after a 3 x 3 convolution. The instruction is either

    - fixed, `instruction="the red ball"`: one for the module, whatever the frame; or
    - per frame, `instruction=None`: the last `MAX_TOKENS` numbers of the context are its token ids, as
      returned by `robot_attn.tokenize`, in the context's dtype; a row of PAD stands for no instruction. The
      numbers before them are context as in any family.

    The queries also enter the features, with the context, since the required action may depend on the
    instruction.

    Train on every combination of words that the module should handle: in trials an unseen combination was
    located by its colour only, and its shape was ignored.

    Text that selects channels of a convolutional map: Chaplot et al. 2018, https://arxiv.org/abs/1706.07230,
    "gated-attention", where a sigmoid of the text multiplies the channels. Here the products are also summed
    over the channels, and a softmax of the sums over the frame gives the attention.

    Args:
        image_shape: (channels, height, width), height and width from 32 to 2048 pixels.
        context_dim: dimension of the context, 0 for none; at least `MAX_TOKENS` without a fixed instruction.
        instruction: fixed instruction, or None for one per frame.
        features_dim: F, dimension of the features.
        num_heads: h, number of queries per instruction.
        patch_dim: S, dimension of a patch embedding.
        hidden_dim: D, dimension of queries and keys.
        word_dim: W, dimension of a word embedding.
        score: a name that `robot_attn.build_score` accepts.

    Raises:
        ValueError: an image_shape or size out of range, an unknown word or score; from `forward` also numbers
            that are not token ids.

    Cost: after the patches 2 N D (9 S + h) FLOPs per frame, and for the text 2 h W (2 L + D), L = MAX_TOKENS.
    """

    good_for: ClassVar[str] = "tasks whose target is given by a language instruction"
    reads_tokens: ClassVar[bool] = True

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        context_dim: int = 0,
        *,
        instruction: str | None = "the red ball",
        features_dim: int = 128,
        num_heads: int = 4,
        patch_dim: int = 32,
        hidden_dim: int = 32,
        word_dim: int = 32,
        score: str = "standardized",
    ) -> None:
        super().__init__(image_shape, context_dim)
        check_sizes(
            features_dim=features_dim,
            num_heads=num_heads,
            patch_dim=patch_dim,
            hidden_dim=hidden_dim,
            word_dim=word_dim,
        )
        if instruction is None and self.context_dim < MAX_TOKENS:
            raise ValueError(
                f"expected context_dim of at least {MAX_TOKENS}, since without a fixed instruction the "
                f"context ends in {MAX_TOKENS} tokens, got {self.context_dim}: "
                "or pass instruction='the red ball'"
            )
        self.instruction = instruction
        tokens = None if instruction is None else tokenize(instruction)
        self.register_buffer("tokens", tokens, persistent=False)
        self.tokens: Tensor | None
        self.features_dim = features_dim
        self.num_heads = num_heads
        self.patches = Patches(self.image_shape, patch_dim)
        self.grid = self.patches.grid
        self.around = nn.Conv2d(patch_dim, hidden_dim, 3, padding=1)
        self.instruct = Instruct(num_heads, word_dim, hidden_dim)
        self.readout = Readout(
            self.grid,
            num_heads=num_heads,
            key_dim=hidden_dim,
            value_dim=hidden_dim,
            context_dim=num_heads * hidden_dim + self.context_dim - (MAX_TOKENS if tokens is None else 0),
            features_dim=features_dim,
            score=score,
        )

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        if self.tokens is not None:
            tokens = self.tokens[None]
        else:
            assert context is not None  # context_dim is at least MAX_TOKENS
            context, tokens = context[:, :-MAX_TOKENS], context[:, -MAX_TOKENS:]
            if not recording():
                check_tokens(tokens)
            tokens = tokens.long()
        query = self.instruct(tokens)
        keys = F.relu_(self.around(self.patches(frames))).flatten(2).transpose(1, 2)
        inputs = query.flatten(1).expand(frames.shape[0], -1)
        inputs = inputs if context is None else torch.cat([inputs, context], dim=1)
        return self.readout(query, keys, keys, inputs)

    def head_inputs(self) -> HeadInputs:
        return self.readout.head_inputs()
