"""Multi-head attention as a module, which takes and gives the weights of torch's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robot_attn.attention._attend import Attended, attend
from robot_attn.attention._scores import build_score, scaled_dot
from robot_attn.perception import check_sizes


class MultiHeadAttention(nn.Module):
    """Attention with several heads, to oneself or to others, which says where each head looks.

    embed_dim: E, numbers in a query and in an output. num_heads: h, a divisor of E; each gets E / h of them.
    key_dim, value_dim: numbers in a key (E if None) and in a value (as in a key if None).
    bias: whether the four projections have one. score: a name that `robot_attn.build_score` knows.
    Raises ValueError for sizes that are no whole numbers of at least 1, heads that do not divide E, and an
    unknown score.

    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.2: `to_query`, `to_key`, `to_value`
    hold the W^Q, W^K, W^V of all heads, head after head, and `to_output` is W^O; E is d_model, E / h is d_k
    and d_v.
    Cost: 2 B (2 q E + n (Ek + Ev)) E FLOPs for the projections, 4 B q n E for the attention, and B h q n
    numbers for the weights.
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
                f"embed_dim must be a multiple of heads; it is {embed_dim}, with {num_heads} heads."
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
        """Attend: query float [B, q, E], key float [B, n, Ek], value float [B, n, Ev].

        key: None for the queries themselves; value: None for the keys.
        mask: bool, True where a query may look (torch's module has True where it may not), broadcast to
            [B, h, q, n]. A query that may look nowhere has weights 0 and reads 0, of which `to_output`
            leaves its bias.

        Returns values [B, q, E] and the weights of each head, [B, h, q, n].
        Raises ValueError for shapes that do not go together, no key, numbers that are not finite, or a mask
        that is not bool.
        """
        key = query if key is None else key
        value = key if value is None else value
        self._check(query, key, value)
        seen = attend(
            self._split(self.to_query(query)),
            self._split(self.to_key(key)),
            self._split(self.to_value(value)),
            score=self.score,
            mask=mask,
        )
        return Attended(self.to_output(seen.values.transpose(1, 2).flatten(2)), seen.weights)

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
        """[B, n, E] -> [B, h, n, E / h]."""
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
                    f"{name} must be [batch, tokens, {linear.in_features}]; "
                    f"its shape is {list(tensor.shape)}."
                )
        if not query.shape[0] == key.shape[0] == value.shape[0] or key.shape[1] != value.shape[1]:
            raise ValueError(
                "query [B, q, .], key [B, n, .] and value [B, n, .] must agree on B and n; "
                f"their shapes are {list(query.shape)}, {list(key.shape)} and {list(value.shape)}."
            )

    @classmethod
    def from_torch(cls, module: nn.MultiheadAttention) -> MultiHeadAttention:
        """Make a copy of torch's module, with its dtype and device, that gives what it gives in eval mode.

        That is module(q, k, v, need_weights=True, average_attn_weights=False). Where its mask is True, ours
        is False; a module that is not batch_first has its first two axes the other way round. Its dropout
        of weights is not taken over.
        Raises ValueError for a module with add_bias_kv or add_zero_attn, which have no equal here.
        """
        if module.add_zero_attn:
            raise ValueError(
                "a module with add_zero_attn looks at a key that is not there; "
                "build nn.MultiheadAttention without it to take its weights."
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
        """Make a module of torch's, with our dtype and device, that gives what ours gives; see `from_torch`.

        Raises ValueError where the score is not scaled_dot.
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
        """Take over the weights in the state_dict of a torch.nn.MultiheadAttention of our sizes.

        Raises ValueError for the state of a module with add_bias_kv, and for names or shapes that are not
        those of a module of our sizes; nothing is then taken over.
        """
        if "bias_k" in state or "bias_v" in state:
            raise ValueError(
                "a module with add_bias_kv looks at a key that is not there; "
                "build nn.MultiheadAttention without it to take its weights."
            )
        ours = self._torch_parameters()
        wanted = {
            name: [sum(len(part) for part in parts), *parts[0].shape[1:]] for name, parts in ours.items()
        }
        came = {name: list(tensor.shape) for name, tensor in state.items()}
        if came != wanted:
            raise ValueError(f"state must hold tensors of the shapes {wanted}; it holds {came}.")
        with torch.no_grad():
            for name, parts in ours.items():
                for part, theirs in zip(parts, state[name].chunk(len(parts)), strict=True):
                    part.copy_(theirs)

    def torch_state_dict(self) -> dict[str, Tensor]:
        """Copy our weights into the state_dict of a torch.nn.MultiheadAttention of our sizes.

        Raises ValueError where the score is not scaled_dot, the only one that torch's module has.
        """
        if self.score is not scaled_dot:
            raise ValueError(
                "torch.nn.MultiheadAttention scores with scaled_dot alone; "
                "only a MultiHeadAttention built with score='scaled_dot' can be exported to it."
            )
        return {name: torch.cat(parts).detach() for name, parts in self._torch_parameters().items()}

    def _torch_parameters(self) -> dict[str, list[Tensor]]:
        """Torch's names, and our parameters that lie one after the other in the tensor of each name."""
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
