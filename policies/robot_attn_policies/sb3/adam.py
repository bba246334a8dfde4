"""Adam without torch's compiler: the optimiser of training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


class Adam:
    """Adam, Kingma & Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1.

    Takes the steps of `torch.optim.Adam`, up to rounding, and has its state dict. torch's optimisers import
    torch's compiler on first use, which takes more than a second of every start. The moments of all
    parameters are one vector, so that a step is a few operations.

    A parameter without a gradient has the gradient 0.

    Args:
        parameters: the parameters, float on one device.
        lr: learning rate (the paper's alpha).
        betas: decay rates of the moments.
        eps: added to the denominator.

    Attributes:
        param_groups: one group, as in torch; its "lr" may be set.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self._parameters = list(parameters)
        self.param_groups: list[dict[str, Any]] = [
            {"lr": lr, "betas": betas, "eps": eps, "params": self._parameters}
        ]
        self._steps = 0
        flat = torch.cat([parameter.detach().flatten() for parameter in self._parameters])
        self._mean, self._square = torch.zeros_like(flat), torch.zeros_like(flat)

    def zero_grad(self) -> None:
        """Delete the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters by their gradients."""
        group = self.param_groups[0]
        beta1, beta2 = group["betas"]
        gradient = torch.cat(
            [
                (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).flatten()
                for parameter in self._parameters
            ]
        )
        self._steps += 1
        self._mean.lerp_(gradient, 1 - beta1)
        self._square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        spread = self._square.sqrt().div_(math.sqrt(1 - beta2**self._steps)).add_(group["eps"])
        change = (self._mean / spread).mul_(-group["lr"] / (1 - beta1**self._steps))
        for parameter, part in zip(self._parameters, self._split(change), strict=True):
            parameter.add_(part)

    def state_dict(self) -> dict[str, Any]:
        """The state, as that of `torch.optim.Adam`; its tensors are views."""
        moments = zip(self._split(self._mean), self._split(self._square), strict=True)
        state = {
            i: {"step": torch.tensor(float(self._steps)), "exp_avg": mean, "exp_avg_sq": square}
            for i, (mean, square) in enumerate(moments)
        }
        group = {**self.param_groups[0], "params": list(range(len(self._parameters)))}
        return {"state": state if self._steps else {}, "param_groups": [group]}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a state from `state_dict`, or from that of `torch.optim.Adam`.

        Raises:
            ValueError: the state of other parameters.
        """
        (group,), state = state_dict["param_groups"], state_dict["state"]
        if len(group["params"]) != len(self._parameters):
            raise ValueError(
                f"expected the state of {len(self._parameters)} parameters, got {len(group['params'])}"
            )
        self.param_groups[0] |= {name: group[name] for name in ("lr", "betas", "eps")}
        self._steps = max((int(moments["step"]) for moments in state.values()), default=0)
        for name, vector in (("exp_avg", self._mean), ("exp_avg_sq", self._square)):
            vector.zero_()
            parts = self._split(vector)
            for i, moments in state.items():
                if moments[name].shape != parts[i].shape:
                    raise ValueError(
                        f"expected {name} of parameter {i} of shape {list(parts[i].shape)}, "
                        f"got {list(moments[name].shape)}"
                    )
                parts[i].copy_(moments[name])

    def _split(self, vector: Tensor) -> list[Tensor]:
        """Views of the parts of a vector that belong to each parameter, in its shape."""
        parts = torch.split(vector, [parameter.numel() for parameter in self._parameters])
        return [part.view_as(parameter) for part, parameter in zip(parts, self._parameters, strict=True)]
