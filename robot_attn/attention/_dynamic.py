"""Attention whose query is a recurrent state: where it looks next depends on what it saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robot_attn.attention._attend import Attended, attend
from robot_attn.attention._checks import check_finite
from robot_attn.attention._scores import build_score
from robot_attn.perception import check_context_dim, check_sizes


class DynamicAttention(nn.Module):
    """A few looks at each frame's tokens, every one with queries made from the state that the former left.

    A look is q = W s + b for each head, attention with q over the tokens, which are keys and values alike,
    and s <- GRU(what the heads read, s). So the second look at a frame, and the first at the next one, go
    where the looks before them lead.

    token_dim: d. state_dim: s. num_heads: h. glimpses: g, how many looks a step takes. context_dim: c,
    numbers
    that enter the state with a step's last look, so that they move the attention from the next step on; 0 for
    none. score: a name that `robot_attn.build_score` knows. Raises ValueError for sizes that are none or an
    unknown score.

    The loop is that of Mnih et al. 2014, https://arxiv.org/abs/1406.6247, section 3: what a glimpse saw
    enters the state, and the state says where the next one goes. Its glimpse is one hard crop, learned by
    reinforcement; here it is soft attention with queries from the state, Mott et al. 2019,
    https://arxiv.org/abs/1906.02500, section 2, which learns by gradient. The paper's LSTM is a GRU here (Cho
    et al. 2014, https://arxiv.org/abs/1406.1078, section 2.3): one tensor of state, with fewer weights.
    Cost a step: 2 B g (2 h n d + h d s + 3 s (h d + c + s)) FLOPs; B g h n numbers for the weights, twice
    that with a gradient, which reaches back over all steps of a sequence.
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
        # Not zero: the weights that make the query would then learn nothing from a first look.
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
    ) -> tuple[Attended, Tensor]:
        """Look at one frame's tokens, `glimpses` times.

        tokens: float [B, n, d]; state: float [B, s], or None for the first state, which is learned; context:
        float [B, c], None where c is 0; mask: bool [B, n], True where it may look. A frame that it may look
        at nowhere is read as zeros.
        Returns `Attended` with an entry for each look, values [B, h, g, d] and weights [B, h, g, n], and the
        state [B, s] for the next step.
        Raises ValueError for other shapes or dtypes, no token, or numbers that are not finite.
        """
        if tokens.ndim != 3 or tokens.shape[1] == 0 or tokens.shape[2] != self.token_dim:
            raise ValueError(
                f"tokens must be [B, n, {self.token_dim}] with n of at least 1; "
                f"their shape is {list(tokens.shape)}."
            )
        batch, count = tokens.shape[:2]
        dtype = self.first_state.dtype
        untold = tokens.new_zeros(batch, self.context_dim)
        if context is None:
            if self.context_dim:
                raise ValueError(f"context must be {dtype} [{batch}, {self.context_dim}]; it is None.")
            context = untold
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

        shared = tokens[:, None]
        looks = []
        for told in [untold] * (self.glimpses - 1) + [context]:
            query = self.to_query(state).view(batch, self.num_heads, 1, self.token_dim)
            seen = attend(query, shared, shared, score=self.score, mask=mask)
            state = self.cell(torch.cat([seen.values.flatten(1), told], dim=1), state)
            looks.append(seen)
        values, weights = (torch.cat(entries, dim=2) for entries in zip(*looks, strict=True))
        return Attended(values, weights), state

    def forward(
        self,
        tokens: Tensor,
        state: Tensor | None = None,
        *,
        starts: Tensor | None = None,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Attended, Tensor]:
        """Look at a sequence of T frames, the same as T calls of `step`.

        tokens: float [T, B, n, d], T of at least 1; starts: bool [T, B], True where an episode begins: there
        the state is the first one; context: float [T, B, c]; mask: bool [T, B, n]; else as in `step`.
        Returns values [T, B, h, g, d], weights [T, B, h, g, n] and the states [T, B, s], each as its frame
        left it: the last, states[-1], goes on with the sequence. Detach it to stop the gradient there.
        """
        if tokens.ndim != 4 or len(tokens) == 0:
            raise ValueError(
                f"tokens must be [T, B, n, {self.token_dim}] with T of at least 1; "
                f"their shape is {list(tokens.shape)}."
            )
        steps, batch = tokens.shape[:2]
        for name, entry in (("context", context), ("mask", mask)):
            if entry is not None and entry.shape[:2] != tokens.shape[:2]:
                raise ValueError(
                    f"{name} must be [{steps}, {batch}, ...], as the tokens are; "
                    f"its shape is {list(entry.shape)}."
                )
        if starts is not None:
            _check("starts", starts, (steps, batch), torch.bool)
        seen, states = [], []
        for index in range(steps):
            if starts is not None and state is not None:
                state = torch.where(starts[index, :, None], self.first_state, state)
            looks, state = self.step(
                tokens[index],
                state,
                context=None if context is None else context[index],
                mask=None if mask is None else mask[index],
            )
            seen.append(looks)
            states.append(state)
        values, weights = (torch.stack(entries) for entries in zip(*seen, strict=True))
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
        ) -> tuple[Attended, Tensor]: ...


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tensor.shape != shape or tensor.dtype != dtype:
        came = f"{tensor.dtype} {list(tensor.shape)}"
        raise ValueError(f"{name} must be {dtype} {list(shape)}; it is {came}.")
