import math

import torch

from robot_attn import build


def test_two_equal_objects_give_one_keypoint_midway() -> None:
    """The known limit of expected coordinates, by hand: the features contain the mean of two positions."""
    module = build("keypoints", (1, 64, 64), features_dim=2, num_heads=1, patch_dim=1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.get_parameter("patches.weight").fill_(1.0)
        module.get_parameter("patches.bias").fill_(32.0)  # a black patch is 0
        module.get_parameter("around.weight")[0, 0, 1, 1] = 1.0
        module.get_parameter("maps.weight").fill_(1.0)
        module.get_parameter("score.log_temperature").fill_(math.log(2.0))
        module.get_parameter("project.weight").copy_(torch.eye(2))
    frames = torch.zeros(1, 1, 64, 64)
    frames[0, 0, 40:48, 32:40] = 1.0
    frames[0, 0, 40:48, 56:64] = 1.0
    percept = module(frames)
    row = percept.attention[0, 0, 10]
    torch.testing.assert_close(row[[8, 14]], torch.tensor([0.5, 0.5]), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        percept.features, torch.tensor([[2 * 48 / 64 - 1, 2 * 44 / 64 - 1]]), rtol=0, atol=1e-3
    )
