"""Multi-head attention as a module, with weights interchangeable with `torch.nn.MultiheadAttention`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robot_attn.attention._attend import Attended, attend
from robot_attn.attention._scores import build_score, scaled_dot
from robot_attn.perception import check_sizes


class MultiHeadAttention(nn.Module):
    """Multi-head self- or cross-attention that returns the attention weights of each head.

    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.2: `to_query`, `to_key`, `to_value`
    hold the W^Q, W^K, W^V of all heads, one after the other, and `to_output` is W^O; E is d_model, E / h is
    d_k and d_v. Cost: 2 B (2 q E + n (Ek + Ev)) E FLOPs for the projections, 4 B q n E for the attention, and
    B h q n numbers for the weights.

    Args:
        embed_dim: E, dimension of queries and outputs, a multiple of `num_heads`.
        num_heads: h, number of heads; each has dimension E / h.
        key_dim: Ek, dimension of the keys; None for E.
        value_dim: Ev, dimension of the values; None for `key_dim`.
        bias: whether the four projections have a bias.
        score: a name that `robot_attn.build_score` accepts.

    Raises:
        ValueError: sizes that are not positive integers, an embed_dim that is not a multiple of num_heads, or
            an unknown score.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        key_dim: int | None = None,
        value_dim: int | None = None,
        bias: bool = True,
        score: str = "scaled_dot",
    ) -> None:
        super().__init__()
        key_dim = embed_dim if key_dim is None else key_dim
        value_dim = key_dim if value_dim is None else value_dim
        sizes = {
            "embed_dim": embed_dim,
            "num_heads": num_heads,
            "key_dim": key_dim,
            "value_dim": value_dim,
        }
        check_sizes(**sizes)
        if embed_dim % num_heads:
            raise ValueError(
                f"expected embed_dim that is a multiple of num_heads, got {embed_dim} and {num_heads}"
            )
        self.num_heads = num_heads
        self.to_query = nn.Linear(embed_dim, embed_dim, bias)
        self.to_key = nn.Linear(key_dim, embed_dim, bias)
        self.to_value = nn.Linear(value_dim, embed_dim, bias)
        self.to_output = nn.Linear(embed_dim, embed_dim, bias)
        for linear in (self.to_query, self.to_key, self.to_value):
            nn.init.xavier_uniform_(linear.weight)
        if bias:
            for linear in (self.to_query, self.to_key, self.to_value, self.to_output):
                nn.init.zeros_(linear.bias)
        self.score = build_score(score, embed_dim // num_heads, num_heads)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        mask: Tensor | None = None,
    ) -> Attended:
        """Compute multi-head attention.

        Args:
            query: float [B, q, E].
            key: float [B, n, Ek]; None for self-attention.
            value: float [B, n, Ev]; None for `key`.
            mask: bool, True where a query may attend (the opposite of torch's module), broadcast to [B, h, q,
                n]. A fully masked query has weights 0 and values 0, so `to_output` returns its bias.

        Returns:
            Values [B, q, E] and the weights of each head, [B, h, q, n].

        Raises:
            ValueError: incompatible shapes, no key, non-finite numbers, or a mask that is not bool.
        """
        key = query if key is None else key
        value = key if value is None else value
        self._check(query, key, value)
        attended = attend(
            self._split(self.to_query(query)),
            self._split(self.to_key(key)),
            self._split(self.to_value(value)),
            score=self.score,
            mask=mask,
        )
        return Attended(self.to_output(attended.values.transpose(1, 2).flatten(2)), attended.weights)

    if TYPE_CHECKING:  # nn.Module's own __call__ returns Any

        def __call__(
            self,
            query: Tensor,
            key: Tensor | None = None,
            value: Tensor | None = None,
            *,
            mask: Tensor | None = None,
        ) -> Attended: ...

    def _split(self, tokens: Tensor) -> Tensor:
        """Split [B, n, E] into heads [B, h, n, E / h]."""
        batch, count, embed_dim = tokens.shape
        return tokens.view(batch, count, self.num_heads, embed_dim // self.num_heads).transpose(1, 2)

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        for name, tensor, linear in (
            ("query", query, self.to_query),
            ("key", key, self.to_key),
            ("value", value, self.to_value),
        ):
            if tensor.ndim != 3 or tensor.shape[2] != linear.in_features:
                raise ValueError(
                    f"expected {name} [batch, tokens, {linear.in_features}], got shape {list(tensor.shape)}"
                )
        if not query.shape[0] == key.shape[0] == value.shape[0] or key.shape[1] != value.shape[1]:
            raise ValueError(
                "expected query [B, q, .], key [B, n, .] and value [B, n, .] that agree on B and n, "
                f"got shapes {list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
            )

    @classmethod
    def from_torch(cls, module: nn.MultiheadAttention) -> MultiHeadAttention:
        """Copy a torch module, with its dtype and device, into one with the same outputs in eval mode.

        The copy returns what module(q, k, v, need_weights=True, average_attn_weights=False) returns. Its mask
        is the negation of torch's, and its inputs are always batch-first. Dropout of the weights is not
        copied.

        Raises:
            ValueError: a module with add_bias_kv or add_zero_attn, which have no equivalent here.
        """
        if module.add_zero_attn:
            raise ValueError(
                "expected a module without add_zero_attn, got one with it, which attends to an extra key: "
                "build nn.MultiheadAttention without it"
            )
        weight = module.out_proj.weight
        copy = cls(
            module.embed_dim,
            module.num_heads,
            key_dim=module.kdim,
            value_dim=module.vdim,
            bias=module.in_proj_bias is not None,
        ).to(weight.device, weight.dtype)
        copy.load_torch_state_dict(module.state_dict())
        return copy

    def to_torch(self, *, batch_first: bool = True) -> nn.MultiheadAttention:
        """Build a torch module, with our dtype and device, that has the same outputs; see `from_torch`.

        Args:
            batch_first: the option of the same name of `torch.nn.MultiheadAttention`.

        Raises:
            ValueError: the score is not scaled_dot.
        """
        state = self.torch_state_dict()
        weight = self.to_output.weight
        module = nn.MultiheadAttention(
            self.to_query.in_features,
            self.num_heads,
            bias="in_proj_bias" in state,
            kdim=self.to_key.in_features,
            vdim=self.to_value.in_features,
            batch_first=batch_first,
            device=weight.device,
            dtype=weight.dtype,
        )
        module.load_state_dict(state)
        return module

    def load_torch_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights in the state_dict of a torch.nn.MultiheadAttention of the same sizes.

        Raises:
            ValueError: the state of a module with add_bias_kv, or names or shapes that differ from those of a
                module of these sizes; nothing is loaded then.
        """
        if "bias_k" in state or "bias_v" in state:
            raise ValueError(
                "expected the state of a module without add_bias_kv, got one with it, which attends to an "
                "extra key: build nn.MultiheadAttention without it"
            )
        ours = self._torch_parameters()
        expected = {
            name: [sum(len(part) for part in parts), *parts[0].shape[1:]] for name, parts in ours.items()
        }
        got = {name: list(tensor.shape) for name, tensor in state.items()}
        if got != expected:
            raise ValueError(f"expected state with tensors of the shapes {expected}, got {got}")
        with torch.no_grad():
            for name, parts in ours.items():
                for part, theirs in zip(parts, state[name].chunk(len(parts)), strict=True):
                    part.copy_(theirs)

    def torch_state_dict(self) -> dict[str, Tensor]:
        """Copy our weights into the state_dict of a torch.nn.MultiheadAttention of the same sizes.

        Raises:
            ValueError: the score is not scaled_dot, the only one of torch's module.
        """
        if self.score is not scaled_dot:
            raise ValueError(
                "expected score 'scaled_dot', the only one of torch.nn.MultiheadAttention, got another: "
                "build MultiHeadAttention with score='scaled_dot' to export it"
            )
        return {name: torch.cat(parts).detach() for name, parts in self._torch_parameters().items()}

    def _torch_parameters(self) -> dict[str, list[Tensor]]:
        """Map torch's parameter names to our parameters that are concatenated in the tensor of that name."""
        inputs = [self.to_query, self.to_key, self.to_value]
        if len({linear.in_features for linear in inputs}) == 1:
            names: dict[str, list[Tensor]] = {"in_proj_weight": [linear.weight for linear in inputs]}
        else:
            names = {
                f"{letter}_proj_weight": [linear.weight] for letter, linear in zip("qkv", inputs, strict=True)
            }
        names["out_proj.weight"] = [self.to_output.weight]
        if self.to_output.bias is not None:
            names["in_proj_bias"] = [linear.bias for linear in inputs]
            names["out_proj.bias"] = [self.to_output.bias]
        return names
