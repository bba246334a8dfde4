"""Export of a perception module to ONNX, for inference without Python or torch.

Needs onnx and onnxscript (`pip install "robot-attn[onnx]"`), imported on first use.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from robot_attn.files import replacing
from robot_attn.optional import import_optional
from robot_attn.perception import Perception


def export_onnx(module: Perception, path: str | os.PathLike[str], *, uint8: bool = False) -> Path:
    """Export a perception module, in eval mode, as an ONNX model with a dynamic batch size.

    Inputs of the model: `frames` [B, C, H, W], uint8 in [0, 255] if `uint8`, else of the module's dtype in
    [0, 1]; for a module with a context also `context` [B, context_dim] of its dtype. Outputs: `features` [B,
    features_dim] and `attention` [B, heads, rows, cols], as in `Percept`. The graph contains no checks:
    numbers that are not finite or out of range are passed through.

    Args:
        module: the perception module; it is not changed.
        path: output file, ending in .onnx. It is written completely, weights included, or not at all.
        uint8: accept frames as a camera provides them; the graph then starts with the division by 255.

    Returns:
        The path of the file.

    Raises:
        ValueError: a module that is not a Perception, or another file ending.
        ModuleNotFoundError: onnx or onnxscript is not installed.
        OSError: the folder is missing or not writable.
    """
    if not isinstance(module, Perception):
        raise ValueError(
            f"expected a robot_attn.Perception, got {type(module).__name__}: "
            "export other modules with torch.onnx.export"
        )
    # A copy in eval mode: the caller may still be training the module.
    module = copy.deepcopy(module).eval()
    example = next(module.parameters())
    batch = 2  # torch's exporter would specialise a batch of 0 or 1 to a constant
    frames = example.new_zeros(batch, *module.image_shape, dtype=torch.uint8 if uint8 else example.dtype)
    inputs = {"frames": frames}
    if module.context_dim:
        inputs["context"] = example.new_zeros(batch, module.context_dim)
    return write_onnx(module, path, inputs, ("features", "attention"))


def write_onnx(
    module: nn.Module,
    path: str | os.PathLike[str],
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    *,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write any torch module as an ONNX model with a dynamic batch size.

    Args:
        module: the module, in the mode in which to export it. It takes the inputs in their order and returns
            a tensor for each output, each with the batch as its first axis.
        path: output file, ending in .onnx. It is written completely, weights included, or not at all.
        inputs: an example of each input by its name in the model, a batch of at least 2.
        outputs: names of the outputs in the model.
        metadata: texts to store in the file, by key.

    Returns:
        The path of the file.

    Raises:
        ValueError: another file ending.
        ModuleNotFoundError: onnx or onnxscript is not installed.
        OSError: the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    if target.suffix.lower() != ".onnx":
        raise ValueError(f"expected a file name that ends in .onnx, got {target.name}")
    # Checked before torch's exporter, which reports one missing package at a time.
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    for name in missing:
        import_optional(name, needs=f"an export to ONNX needs {' and '.join(missing)}", extra="onnx")

    dynamic = tuple({0: torch.export.Dim("batch")} for _ in inputs)
    with replacing(target) as temporary, _quiet_exporter(), torch.no_grad():
        # Exported here in strict mode: torch.onnx.export alone would treat `len(frames)` as a constant, and
        # write a model for this one batch size instead of failing.
        program = torch.export.export(
            _Positional(module), tuple(inputs.values()), dynamic_shapes=(dynamic,), strict=True
        )
        model = torch.onnx.export(
            program, input_names=list(inputs), output_names=list(outputs), dynamo=True, verbose=False
        )
        assert model is not None, "torch.onnx.export returns the model where it gets no file"
        model.model.metadata_props.update(metadata or {})
        model.save(temporary, external_data=False)
    return target


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide the warnings of torch's exporter, which are about its own internals and absent packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _Positional(nn.Module):
    """A module with any number of inputs, so that one description of dynamic shapes fits all."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.module(*inputs))
