"""A perception module as an ONNX file: what it sees and where it looks, without Python or torch.

Needs onnx and onnxscript (`pip install "robot-attn[onnx]"`), imported only when something is exported.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import warnings
from pathlib import Path

import torch

from robot_attn.files import replacing
from robot_attn.optional import import_optional
from robot_attn.perception import Perception


def export_onnx(module: Perception, path: str | os.PathLike[str], *, uint8: bool = False) -> Path:
    """Write `module` to `path` as an ONNX model, which any number of frames can be given; return the path.

    Inputs: `frames` [B, C, H, W], uint8 in [0, 255] where `uint8` is true, else of the module's dtype in
    [0, 1]; and, for a module with a context, `context` [B, context_dim] of its dtype. Outputs: `features`
    [B, features_dim] and `attention` [B, heads, rows, cols], as in `Percept`. B may be any number each time.
    The graph has no check in it: numbers that are not finite, or out of range, go through.

    path: where to; ends in .onnx. The file appears whole, weights included, or whatever was there stays.
    uint8: take frames as a camera gives them; the graph then begins with the division by 255.

    Raises ValueError for what is no Perception or another ending, ModuleNotFoundError where onnx or
    onnxscript is not installed, and OSError where the folder is missing or cannot be written.
    """
    if not isinstance(module, Perception):
        raise ValueError(
            f"only a robot_attn.Perception is exported here; this is a {type(module).__name__}. "
            "For other modules use torch.onnx.export."
        )
    target = Path(path)
    if target.suffix.lower() != ".onnx":
        raise ValueError(f"the name of an ONNX model ends in .onnx; this one is {target.name}.")
    # Before torch's exporter, which would miss one at a time, and less clearly.
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    for name in missing:
        import_optional(name, needs=f"an export to ONNX needs {' and '.join(missing)}", extra="onnx")

    # A copy: what runs on a robot is what the module does in evaluation, and the caller may be training it.
    module = copy.deepcopy(module).eval()
    example = next(module.parameters())
    batch = 2  # of 0 or 1 torch's exporter would make a constant
    frames = example.new_zeros(batch, *module.image_shape, dtype=torch.uint8 if uint8 else example.dtype)
    inputs = {"frames": frames}
    if module.context_dim:
        inputs["context"] = example.new_zeros(batch, module.context_dim)
    dynamic = {name: {0: torch.export.Dim("batch")} for name in inputs}
    with replacing(target) as temporary, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own inner workings
        # Recorded here and strictly. Left to itself, torch.onnx.export takes `len(frames)` for a constant,
        # and then writes a model of this one batch rather than fail.
        program = torch.export.export(module, (), inputs, dynamic_shapes=dynamic, strict=True)
        torch.onnx.export(
            program,
            f=temporary,
            input_names=list(inputs),
            output_names=["features", "attention"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return target
