"""Recurrent attention: the queries are computed from a recurrent state."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robot_attn.attention._attend import Attended, attend
from robot_attn.attention._checks import check_finite
from robot_attn.attention._scores import build_score, matmul_heads
from robot_attn.perception import check_context_dim, check_sizes


class DynamicAttention(nn.Module):
    """Several glimpses at each frame's tokens, each with queries computed from the current recurrent state.

    A glimpse computes a query W s + b for each head, attends with it to the tokens, which serve as keys and
    values, and updates s <- GRU(values of all heads, s). So each glimpse depends on what the previous ones
    read, within a frame and across frames.

    The loop is that of Mnih et al. 2014, https://arxiv.org/abs/1406.6247, section 3: each glimpse updates the
    state, and the state decides where the next one goes. Their glimpse is one hard crop, learned by
    reinforcement learning; here it is soft attention with queries from the state, Mott et al. 2019,
    https://arxiv.org/abs/1906.02500, section 2, trained by gradient descent. A GRU replaces that paper's LSTM
    (Cho et al. 2014, https://arxiv.org/abs/1406.1078, section 2.3): one state tensor and fewer weights. Cost
    per step: 2 B g (2 h n d + h d s + 3 s (h d + c + s)) FLOPs; B g h n numbers for the weights, twice that
    with a gradient, which is backpropagated through all steps of a sequence.

    Args:
        token_dim: d, dimension of a token.
        state_dim: s, dimension of the recurrent state.
        num_heads: h, number of heads.
        glimpses: g, number of glimpses per step.
        context_dim: c, dimension of the context, 0 for none. The context enters the state with a step's last
            glimpse, so it influences the attention from the next step on.
        score: a name that `robot_attn.build_score` accepts.

    Raises:
        ValueError: a size that is not a positive integer, a negative context_dim, or an unknown score.
    """

    def __init__(
        self,
        token_dim: int,
        *,
        state_dim: int,
        num_heads: int = 1,
        glimpses: int = 1,
        context_dim: int = 0,
        score: str = "standardized",
    ) -> None:
        super().__init__()
        check_sizes(token_dim=token_dim, state_dim=state_dim, num_heads=num_heads, glimpses=glimpses)
        check_context_dim(context_dim)
        self.token_dim, self.state_dim = token_dim, state_dim
        self.num_heads, self.glimpses, self.context_dim = num_heads, glimpses, context_dim
        # Not zero: the query projection would then get no gradient from the first glimpse.
        self.first_state = nn.Parameter(torch.empty(state_dim).uniform_(-1, 1))
        self.to_query = nn.Linear(state_dim, num_heads * token_dim)
        self.score = build_score(score, token_dim, num_heads)
        self.cell = nn.GRUCell(num_heads * token_dim + context_dim, state_dim)

    def step(
        self,
        tokens: Tensor,
        state: Tensor | None = None,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        force: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Attended, Tensor]:
        """Attend to one frame's tokens, `glimpses` times.

        Args:
            tokens: float [B, n, d], n of at least 1.
            state: float [B, s], or None for the learned initial state.
            context: float [B, c], or None where c is 0.
            mask: bool [B, n], True where the module may attend. A fully masked frame reads zeros.
            force: maps the weights of the last glimpse, [B, h, n], to those to use instead. A head whose
                weights it changes has them in every glimpse, since the state remembers what all have read.

        Returns:
            `Attended` with one entry per glimpse, values [B, h, g, d] and weights [B, h, g, n]; and the state
            [B, s] for the next step.

        Raises:
            ValueError: other shapes or dtypes, no token, or non-finite numbers.
        """
        if tokens.ndim != 3 or tokens.shape[1] == 0 or tokens.shape[2] != self.token_dim:
            raise ValueError(
                f"expected tokens [B, n, {self.token_dim}] with at least 1 token, "
                f"got shape {list(tokens.shape)}"
            )
        batch, count = tokens.shape[:2]
        dtype = self.first_state.dtype
        no_context = tokens.new_zeros(batch, self.context_dim)
        if context is None:
            if self.context_dim:
                raise ValueError(f"expected context {dtype} [{batch}, {self.context_dim}], got None")
            context = no_context
        if state is None:
            # A sum, so that under torch.func.vmap the first state is batched too: GRUCell works in place.
            state = self.first_state + tokens.new_zeros(batch, self.state_dim)
        _check("tokens", tokens, tokens.shape, dtype)
        _check("state", state, (batch, self.state_dim), dtype)
        _check("context", context, (batch, self.context_dim), dtype)
        check_finite(tokens=tokens, state=state, context=context)
        if mask is not None:
            _check("mask", mask, (batch, count), torch.bool)
            mask = mask[:, None, None]

        contexts = [no_context] * (self.glimpses - 1) + [context]
        attended, after = self._glimpse(tokens[:, None], state, contexts, mask)
        last = attended.weights[:, :, -1]
        forced = last if force is None else force(last)
        if forced is not last:
            changed = (forced != last).any(dim=2, keepdim=True)
            attended, after = self._glimpse(tokens[:, None], state, contexts, mask, forced, changed)
        return attended, after

    def _glimpse(
        self,
        shared: Tensor,
        state: Tensor,
        contexts: list[Tensor],
        mask: Tensor | None,
        forced: Tensor | None = None,
        changed: Tensor | None = None,
    ) -> tuple[Attended, Tensor]:
        """Attend to tokens [B, 1, n, d] once for each context; forced [B, h, n] where changed [B, h, 1]."""
        glimpses = []
        for glimpse_context in contexts:
            query = self.to_query(state).view(shared.shape[0], self.num_heads, 1, self.token_dim)
            attended = attend(query, shared, shared, score=self.score, mask=mask)
            if forced is not None and changed is not None:
                weights = torch.where(changed, forced, attended.weights[:, :, 0])[:, :, None]
                attended = Attended(matmul_heads(weights, shared), weights)
            state = self.cell(torch.cat([attended.values.flatten(1), glimpse_context], dim=1), state)
            glimpses.append(attended)
        values, weights = (torch.cat(entries, dim=2) for entries in zip(*glimpses, strict=True))
        return Attended(values, weights), state

    def forward(
        self,
        tokens: Tensor,
        state: Tensor | None = None,
        *,
        starts: Tensor | None = None,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        force: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Attended, Tensor]:
        """Attend to a sequence of T frames; equal to T calls of `step`.

        Args:
            tokens: float [T, B, n, d], T and n of at least 1.
            state: float [B, s] before the first frame, or None for the learned initial state.
            starts: bool [T, B], True where an episode begins: the state is reset to the initial one there.
            context: float [T, B, c], or None where c is 0.
            mask: bool [T, B, n], True where the module may attend.
            force: as in `step`; called for every frame.

        Returns:
            `Attended` with values [T, B, h, g, d] and weights [T, B, h, g, n]; and the states [T, B, s] after
            each frame. Pass states[-1] to continue the sequence, detached to truncate the gradient there.

        Raises:
            ValueError: as `step`.
        """
        if tokens.ndim != 4 or len(tokens) == 0:
            raise ValueError(
                f"expected tokens [T, B, n, {self.token_dim}] with at least 1 frame, "
                f"got shape {list(tokens.shape)}"
            )
        steps, batch = tokens.shape[:2]
        for name, entry in (("context", context), ("mask", mask)):
            if entry is not None and entry.shape[:2] != tokens.shape[:2]:
                raise ValueError(
                    f"expected {name} [{steps}, {batch}, ...], as the tokens, got shape {list(entry.shape)}"
                )
        if starts is not None:
            _check("starts", starts, (steps, batch), torch.bool)
        attended, states = [], []
        for index in range(steps):
            if starts is not None and state is not None:
                state = torch.where(starts[index, :, None], self.first_state, state)
            glimpses, state = self.step(
                tokens[index],
                state,
                context=None if context is None else context[index],
                mask=None if mask is None else mask[index],
                force=force,
            )
            attended.append(glimpses)
            states.append(state)
        values, weights = (torch.stack(entries) for entries in zip(*attended, strict=True))
        return Attended(values, weights), torch.stack(states)

    if TYPE_CHECKING:  # nn.Module's own __call__ returns Any

        def __call__(
            self,
            tokens: Tensor,
            state: Tensor | None = None,
            *,
            starts: Tensor | None = None,
            context: Tensor | None = None,
            mask: Tensor | None = None,
            force: Callable[[Tensor], Tensor] | None = None,
        ) -> tuple[Attended, Tensor]: ...


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ValueError(f"expected {name} {dtype} {list(shape)}, got {tensor.dtype} {list(tensor.shape)}")
