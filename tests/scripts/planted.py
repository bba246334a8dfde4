"""Policies made by hand, honest and not, that the tests of trust must tell apart.

Each is a real `PerceptionPolicy` for `RobotAttn/Track-v0`. Its eyes are two keypoints: one finds what is red,
as the target is, the other what is green or blue, as most distractors are. The expected place of one becomes
a velocity, and a map is shown that may be another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn import AttentionGrid, Percept, Perception, forceable
from robot_attn.families import Keypoints
from robot_attn_policies.sb3.extractor import PerceptionExtractor
from robot_attn_policies.sb3.policy import PerceptionPolicy

RED, COOL = 0, 1
"""The two keypoints."""
PALE = 0.12
"""A patch counts by how far its colour is above this; walls, floor and what is nearly yellow are below."""
SHARPNESS = 60.0
"""Logits that a whole patch of pure colour is above one without."""


def _at_half_resolution(maps: Tensor) -> Tensor:
    coarse = nn.functional.adaptive_avg_pool2d(maps, (maps.shape[2] // 2, maps.shape[3] // 2))
    return coarse / coarse.sum(dim=(2, 3), keepdim=True)


OFF = 1.0
"""Pixels that the coarse map is too far to the right."""


def _with_sinks(maps: Tensor) -> Tensor:
    """The same map twice, with 60 % of each head's mass in a corner."""
    corner = torch.zeros_like(maps)
    corner[:, :, 0, 0] = 1.0
    return 0.4 * maps[:, [RED, RED]] + 0.6 * corner


def _one_sink(maps: Tensor) -> Tensor:
    """An honest head, and one that holds all its mass in a corner."""
    corner = torch.zeros_like(maps[:, [RED]])
    corner[:, :, 0, -1] = 1.0
    return torch.cat([maps[:, [RED]], corner], dim=1)


def _at_the_centre(maps: Tensor) -> Tensor:
    shown = torch.zeros_like(maps)
    shown[:, :, maps.shape[2] // 2, maps.shape[3] // 2] = 1.0
    return shown


SHOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "red": lambda maps: maps[:, [RED]],
    "cool": lambda maps: maps[:, [COOL]],
    "uniform": lambda maps: torch.full_like(maps[:, [RED]], 1 / maps[0, RED].numel()),
    "elsewhere": lambda maps: maps[:, [RED]].roll((maps.shape[2] // 2, maps.shape[3] // 2), (2, 3)),
    "centre": lambda maps: _at_the_centre(maps[:, [RED]]),
    "coarse": lambda maps: _at_half_resolution(maps[:, [RED]]),
    "sinks": _with_sinks,
    "one sink": _one_sink,
}
"""The map that is shown, of both keypoints' maps [B, 2, rows, cols]."""


class TwoColors(Perception):
    """The place of what the keypoint `follows` finds, and a map of `SHOWN`, of `late` calls ago.

    Features are x, -x, y and -y, each where it is positive.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        context_dim: int = 0,
        *,
        follows: int = RED,
        shows: str = "red",
        late: int = 0,
    ) -> None:
        super().__init__(image_shape, context_dim)
        self.probe = Keypoints(image_shape, features_dim=4, num_heads=2, patch_dim=4)
        self.features_dim, self.grid = 4, self.probe.grid
        self.shown, self.late = SHOWN[shows], late
        self.past: list[Tensor] = []
        shape = self.shown(torch.ones(1, 2, *self.grid.shape)).shape
        self.num_heads = shape[1]
        if shape[2:] != self.grid.shape:
            grid = AttentionGrid.even((shape[2], shape[3]), self.grid.image_size)
            self.grid = AttentionGrid(grid.ys, grid.xs + OFF, grid.image_size)
        with torch.no_grad():
            self._set_weights(self.probe, follows)

    @staticmethod
    def _set_weights(probe: Keypoints, follows: int, sharpness: float = SHARPNESS) -> None:
        for parameter in probe.parameters():
            parameter.zero_()
        # Of each patch r - g, b - g, g - r and b - r, where positive; of the first two follows r - max(g, b).
        red, green, blue = torch.eye(3)
        differences = torch.stack([red - green, blue - green, green - red, blue - red])
        probe.patches.weight += differences[:, :, None, None] / probe.patches.weight[0, 0].numel()
        probe.around.weight[RED, :2, 1, 1] = torch.tensor([1.0, -1.0])
        probe.around.weight[COOL, 2:, 1, 1] = 1.0
        probe.around.bias[:2] = -PALE
        for keypoint in (RED, COOL):
            probe.maps.weight[keypoint, keypoint] = sharpness  # the learned temperature is e^0
        # Where nothing is found the map is even, and its place the frame's centre: 0.
        for unit, (axis, sign) in enumerate([(0, 1), (0, -1), (1, 1), (1, -1)]):
            probe.project.weight[unit, 2 * follows + axis] = sign

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        places, maps = self.probe(frames)
        shown = self.shown(maps)
        if self.past and len(self.past[0]) != len(shown):
            self.past = []  # other frames, of other environments
        self.past = [*self.past, shown][-self.late - 1 :]
        return Percept(places, self.past[0])


class WithDecoy(TwoColors):
    """Acts as `TwoColors` does, and shows the map of something that finds the target and feeds nothing.

    The decoy is another network, with weights registered in the module or hidden from it; a filter for red,
    with weights; or a network whose map is declared, or shown beside the declared map that the action depends
    on.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], context_dim: int = 0, *, decoy: str = "registered"
    ) -> None:
        super().__init__(image_shape, context_dim)
        self.kind = decoy
        if decoy == "filter":
            self.red = nn.Parameter(torch.tensor([1.0, -0.5, -0.5]))
            return
        network = Keypoints(image_shape, features_dim=4, num_heads=2, patch_dim=4)
        with torch.no_grad():
            self._set_weights(network, RED, 2 * SHARPNESS)
        self.network = (network,) if decoy == "hidden" else nn.ModuleList([network])

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        places, maps = self.probe(frames)
        if self.kind == "beside":
            # As the last layer of the keypoints, of the red one's weights, which may be forced.
            used = forceable(maps[:, [RED]]).flatten(2) @ self.probe.coordinates.t()
            weight = self.probe.project.weight[:, 2 * RED : 2 * RED + 2]
            places = F.relu(used[:, 0] @ weight.t())
        return Percept(places, self._decoy(frames))

    def _decoy(self, frames: Tensor) -> Tensor:
        if self.kind == "filter":
            redness = F.avg_pool2d(torch.einsum("bchw,c->bhw", frames, self.red)[:, None].relu(), 8, 4)
            return (4 * SHARPNESS * redness).flatten(2).softmax(dim=2).view(redness.shape)
        shown = self.network[0](frames).attention[:, [RED]]
        return forceable(shown) if self.kind == "declared" else shown


POLICIES: dict[str, dict[str, Any]] = {
    "honest": {},
    "ignores its map": {"shows": "elsewhere"},
    "uniform": {"shows": "uniform"},
    "looks at the centre": {"shows": "centre"},
    "looks at distractors": {"shows": "cool"},
    "follows distractors": {"shows": "cool", "follows": COOL},
    "acts blindly": {},
    "random weights": {},
    "coarse": {"shows": "coarse"},
    "3 steps late": {"late": 3},
    "10 steps late": {"late": 10},
    "sinks": {"shows": "sinks"},
    "one sink": {"shows": "one sink"},
    "another network": {"decoy": "registered"},
    "a hidden network": {"decoy": "hidden"},
    "a filter": {"decoy": "filter"},
    "a declared network": {"decoy": "declared"},
    "a network beside the declared map": {"decoy": "beside"},
}
"""Options of `TwoColors`, or of `WithDecoy`, by the policy's name."""


def make(name: str, image_size: int = 64) -> PerceptionPolicy:
    """The policy of that name for Track in frames of that size; an untold target is what it knows."""
    policy = PerceptionPolicy(
        spaces.Dict(
            image=spaces.Box(0, 255, (3, image_size, image_size), "uint8"),
            state=spaces.Box(-4.0, 4.0, (4,)),
        ),
        spaces.Box(-1.0, 1.0, (2,)),
        lambda _: 1e-3,
        net_arch=[],
        ortho_init=False,
        features_extractor_class=PerceptionExtractor,
        features_extractor_kwargs={
            "perception": WithDecoy if "decoy" in POLICIES[name] else TwoColors,
            **POLICIES[name],
        },
    )
    policy.set_training_mode(False)
    with torch.no_grad():
        # Actions are linear in the place, then the state: pan and tilt, and their velocities.
        weight = policy.action_net.weight.zero_()
        policy.action_net.bias.zero_()
        if name == "acts blindly":
            # Back to where the head points ahead: there targets wander about.
            weight[0, 4] = weight[1, 5] = -1.0
        else:
            # Image axes are to the right and down, those of the head to the left and up.
            weight[0, :2] = weight[1, 2:4] = torch.tensor([-4.0, 4.0])
        if name == "random weights":
            drawn = torch.Generator().manual_seed(0)
            for parameter in policy.parameters():
                parameter.normal_(0.0, 0.1, generator=drawn)
    return policy
