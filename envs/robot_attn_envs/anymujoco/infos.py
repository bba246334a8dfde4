"""What infos say of the target in the frames."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from robot_attn_envs.anymujoco.frames import SceneFrames


def target_infos(frames: SceneFrames, *, masks: bool) -> dict[str, NDArray[Any]]:
    """`target_visible`, bool [N], and `target_mask`, bool [N, H, W], of the frames that were drawn last.

    Args:
        frames: the frames.
        masks: whether masks are wanted: that of the first camera, and with several cameras also
            `target_mask/NAME` of each.

    Returns:
        The entries; none without a target.
    """
    if frames.objects.things[0] is None:
        return {}
    own = {camera.name: frames.target_mask(index) for index, camera in enumerate(frames.cameras)}
    first, *others = own.values()
    visible = first.any(axis=(1, 2))
    for mask in others:
        visible = visible | mask.any(axis=(1, 2))
    infos = {"target_visible": visible}
    if masks:
        infos["target_mask"] = first
        if others:
            infos |= {f"target_mask/{name}": mask for name, mask in own.items()}
    return infos
