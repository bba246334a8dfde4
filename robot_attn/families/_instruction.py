"""The family "instruction": it looks for what a short text names, such as "the red ball"."""

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
    """Tokens of a text -> what each head looks for: its own mixture of the words.

    A word is a learned vector for its token plus one for its place in the text. Each head has a learned
    question, which attends to the words (`attend`, "scaled_dot"), and the mixture that it reads is turned
    into its query.
    """

    def __init__(self, num_heads: int, word_dim: int, query_dim: int) -> None:
        super().__init__()
        self.words = nn.Embedding(PAD + 1 + len(WORDS), word_dim)
        # Places start small: a word means much the same wherever it stands.
        self.places = nn.Parameter(0.1 * torch.randn(MAX_TOKENS, word_dim))
        self.questions = nn.Parameter(torch.randn(num_heads, word_dim))
        self.to_query = nn.Linear(word_dim, query_dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [B, MAX_TOKENS] -> queries [B, heads, query_dim]; of a text without words, 0."""
        words = (self.words(tokens) + self.places)[:, None]
        questions = self.questions[:, None].expand(tokens.shape[0], -1, -1, -1)
        read = attend(questions, words, words, mask=(tokens != PAD)[:, None, None])
        queries: Tensor = self.to_query(read.values[:, :, 0])
        return queries


class Instruction(Perception):
    """Attention with queries made from a text: "the red ball" and "the blue box" look at different things.

    The keys are patches, as a convolution over 3 x 3 of them sees them. The text is one of two:

    - `instruction="the red ball"`: one for the module, whatever the frame.
    - `instruction=None`: one for each frame. The last `MAX_TOKENS` numbers of the context are then its
      tokens, as `robot_attn.tokenize` gives them, in the context's dtype; PADs alone are no instruction. What
      comes before them is context as in any family.

    The queries enter the features too, with the context: what to do about a thing may be part of the text.

    Train it on every pair of words that it shall answer: in trials a pair that it was never asked for was
    looked for by its colour alone, and its shape was not made use of.

    Text that picks channels of a convolutional map is from Chaplot et al. 2018,
    https://arxiv.org/abs/1706.07230, "gated-attention", where a sigmoid of the text multiplies the channels.
    Here their products with the text are also summed over the channels, and the softmax of the sums over the
    frame says where to look.

    features_dim: F. num_heads: how many queries a text makes. patch_dim: how many numbers a patch is seen as.
    hidden_dim: those of a key. word_dim: those of a word. score: a name that `robot_attn.build_score`
    knows.
    Raises ValueError for a text with a word that is unknown, and from `forward` for tokens that are none.
    After the patches: 2 N D (9 S + h) FLOPs a frame, and for the text 2 h W (2 L + D), L = MAX_TOKENS.
    """

    good_for: ClassVar[str] = "tasks whose target is named by words"
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
                f"without an instruction the context ends in {MAX_TOKENS} tokens, so context_dim must be at "
                f"least {MAX_TOKENS}; it is {self.context_dim}. Or pass instruction='the red ball'."
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
        seen = F.relu_(self.around(self.patches(frames))).flatten(2).transpose(1, 2)
        told = query.flatten(1).expand(frames.shape[0], -1)
        told = told if context is None else torch.cat([told, context], dim=1)
        return self.readout(query, seen, seen, told)

    def head_inputs(self) -> HeadInputs:
        return self.readout.head_inputs()
