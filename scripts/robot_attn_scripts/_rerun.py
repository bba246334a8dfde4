"""Write an episode as a recording for the Rerun viewer, with a layout: `rerun out.rrd` opens it.

Entities, on the timelines "step" and, if the length of a step is known, "time":

| entity            | content                                                                        |
|-------------------|--------------------------------------------------------------------------------|
| camera/frame      | the policy's camera frame                                                      |
| camera/target     | the target's pixels, as a segmentation image                                   |
| camera/regions    | boxes around the best head's regions of attention (`robot_attn.regions`)       |
| view              | the same steps from another camera, if one is given                            |
| maps/head_<k>     | the attention weights of each head, one number per cell                        |
| focus/head_<k>    | the head's attention mass on the target, where the target is visible           |
| focus/chance      | the target's share of the frame                                                |
| reward            | reward of each step                                                            |
| return            | sum of the rewards so far                                                      |
| value             | the policy's value estimate                                                    |
| action/<name>     | one component of the action                                                    |

The recording is written to the file only; nothing is sent to a viewer or server.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_attn import focus
from robot_attn.drawing.colors import HEADS, TARGET
from robot_attn.episode import MAPS
from robot_attn.files import replacing
from robot_attn.optional import import_optional

if TYPE_CHECKING:
    from robot_attn.episode import Episode
    from robot_attn_policies.pages.page import View


def rerun_module() -> Any:
    """Import `rerun`.

    Raises:
        ModuleNotFoundError: rerun-sdk is not installed.
    """
    return import_optional("rerun", needs="a Rerun recording needs rerun-sdk", extra="rerun")


def write_rerun(
    path: str | os.PathLike[str],
    episode: Episode,
    mass: NDArray[np.floating],
    *,
    title: str = "",
    view: View | None = None,
) -> None:
    """Write the recording of an episode. The file appears only once it is complete.

    Args:
        path: output file, ending in .rrd.
        episode: the episode of T steps.
        mass: float [T, heads] in [0, 1], attention mass on the target, NaN where the target is not visible.
        title: name of the recording in the viewer.
        view: frames of the same steps from another camera.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full.
        ModuleNotFoundError: rerun-sdk is not installed.
    """
    rr = rerun_module()
    lenient = not rr.strict_mode()
    rr.set_strict_mode(True)  # raise errors, which Rerun otherwise logs as warnings
    try:
        with replacing(path) as temporary, rr.RecordingStream("robot-attn") as stream:
            stream.set_log_tick_enabled(False)
            stream.set_log_time_enabled(False)
            stream.save(temporary, default_blueprint=_layout(rr, episode, view))
            if title:
                stream.send_recording_name(title)
            _log(rr, stream, episode, mass, view)
    finally:
        if lenient:
            rr.set_strict_mode(False)


def _log(rr: Any, stream: Any, episode: Episode, mass: NDArray[np.floating], view: View | None) -> None:
    steps = np.arange(len(episode))

    def timelines(at: NDArray[np.int64]) -> list[Any]:
        columns = [rr.TimeColumn("step", sequence=at)]
        return [*columns, rr.TimeColumn("time", duration=at * episode.dt)] if episode.dt else columns

    def pictures(entity: str, archetype: Any, pixels: NDArray[Any], **still: Any) -> None:
        """Log raw bytes for each step, and their format and the `still` fields once."""
        height, width = pixels.shape[1:3]
        kind = rr.components.ImageFormat(
            width=width,
            height=height,
            color_model=rr.ColorModel.RGB if pixels.ndim == 4 else None,
            channel_datatype=rr.ChannelDatatype.from_np_dtype(pixels.dtype),
        )
        stream.log(entity, archetype.from_fields(format=kind, **still), static=True)
        rows = archetype.columns(buffer=pixels.reshape(len(pixels), -1).view(np.uint8))
        stream.send_columns(entity, indexes=timelines(steps), columns=rows)

    def numbers(entity: str, values: NDArray[np.floating], **style: Any) -> None:
        if style:
            stream.log(entity, rr.SeriesLines(**style), static=True)
        known = np.flatnonzero(np.isfinite(values))
        columns = rr.Scalars.columns(scalars=values[known])
        stream.send_columns(entity, indexes=timelines(known), columns=columns)

    pictures("camera/frame", rr.Image, episode.images)
    if view is not None:
        pictures("view", rr.Image, view.images)
    numbers("reward", episode.rewards)
    numbers("return", np.cumsum(episode.rewards))
    if episode.values is not None:
        numbers("value", episode.values)
    names = episode.action_names or [str(i) for i in range(episode.actions.shape[1])]
    for name, values in zip(names, episode.actions.T, strict=True):
        numbers(rr.new_entity_path(["action", name]), values)
    masks = episode.target_masks
    if masks is not None:
        pictures("camera/target", rr.SegmentationImage, masks.astype(np.uint8), opacity=0.3)
        classes = [rr.AnnotationInfo(0, color=(0, 0, 0, 0)), rr.AnnotationInfo(1, "target", TARGET)]
        stream.log("camera", rr.AnnotationContext(classes), static=True)
        numbers("focus/chance", np.where(masks.any(axis=(1, 2)), focus.chance(masks), np.nan))
        for head, share in enumerate(mass.T):
            numbers(f"focus/head_{head}", share, names=f"head {head}", colors=HEADS[head % len(HEADS)])
    if episode.uniform:
        return
    known = episode.attention[np.isfinite(episode.attention)]
    highest = float(known.max(initial=0)) or 1.0  # one colour scale for all heads and steps
    for head in range(episode.attention.shape[1]):
        pictures(
            f"maps/head_{head}",
            rr.DepthImage,
            np.ascontiguousarray(episode.attention[:, head]),
            colormap="inferno",
            depth_range=(0, highest),
            magnification_filter="nearest",
        )
    boxes = _boxes(episode)
    places = np.array([box for found in boxes for box in found], dtype=np.float32).reshape(-1, 4)
    halves = places[:, 2:] / 2
    columns = rr.Boxes2D.columns(half_sizes=halves, centers=places[:, :2] + halves)
    stream.log("camera/regions", rr.Boxes2D.from_fields(colors=HEADS[0]), static=True)
    counts = [len(found) for found in boxes]
    stream.send_columns("camera/regions", indexes=timelines(steps), columns=columns.partition(counts))


def _boxes(episode: Episode) -> list[list[tuple[int, int, int, int]]]:
    """Find the regions of the best head at each step, as (x, y, w, h) in pixels."""
    from robot_attn.regions import regions

    shown = episode.attention_maps[:, episode.best_head, None].cleaned()
    return [[region.box for region in regions(map)] for _, maps in shown.in_batches() for map in maps]


def _layout(rr: Any, episode: Episode, view: View | None) -> Any:
    """Lay out cameras on the left, heads in the middle and curves on the right."""
    rrb = rr.blueprint
    cameras = [rrb.Spatial2DView(origin="camera", name="Camera")]
    if view is not None:
        cameras.append(rrb.Spatial2DView(origin="view", name=f"Camera {view.name}"))
    curves = [
        rrb.TimeSeriesView(origin="reward", name="Reward"),
        rrb.TimeSeriesView(contents=["/return", "/value"], name="Return so far, value estimate"),
        rrb.TimeSeriesView(origin="action", name="Action"),
    ]
    if episode.target_masks is not None:
        curves.insert(0, rrb.TimeSeriesView(origin="focus", name="Focus on target"))
    columns = [rrb.Vertical(*cameras), rrb.Vertical(*curves)]
    if not episode.uniform:
        heads = [
            rrb.Spatial2DView(
                origin=f"maps/head_{head}",
                name=f"Head {head}"
                if episode.maps == "attention"
                else f"{MAPS[episode.maps]} of the action".capitalize(),
            )
            for head in range(episode.attention.shape[1])
        ]
        columns.insert(1, rrb.Grid(*heads))
    return rrb.Blueprint(
        rrb.Horizontal(*columns),
        rrb.TimePanel(timeline="step", fps=1 / episode.dt if episode.dt else None, state="collapsed"),
        rrb.BlueprintPanel(state="hidden"),
        rrb.SelectionPanel(state="hidden"),
        auto_views=False,
    )
