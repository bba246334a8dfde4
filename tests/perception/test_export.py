"""Every family runs without torch: the ONNX model gives the same percept as the module."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robot_attn import FAMILIES, Percept, Perception, build
from robot_attn.export import export_onnx
from robot_attn.families import Query

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


def run(path: Path, **inputs: Tensor) -> Percept:
    """Run a model with onnxruntime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == list(inputs)
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    return Percept(*map(torch.from_numpy, session.run(["features", "attention"], arrays)))


def assert_close(one: Percept, other: Percept) -> None:
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(left, right.detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "context_dim"), [((40, 56), 3), pytest.param((64, 64), 0, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_onnx_gives_the_same_percept(
    family: str, size: tuple[int, int], context_dim: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = build(family, (3, *size), context_dim)
    path = export_onnx(module, tmp_path / f"{family}.onnx")
    assert [file.name for file in tmp_path.iterdir()] == [f"{family}.onnx"]
    for batch in (1, 3):
        inputs = {"frames": torch.rand(batch, 3, *size)}
        if context_dim:
            inputs["context"] = torch.randn(batch, context_dim)
        percept = run(path, **inputs)
        assert_close(percept, module(**inputs))
        assert percept.attention.shape == (batch, module.num_heads, *module.grid.shape)


def test_uint8_frames_and_overwriting_a_model(tmp_path: Path) -> None:
    path = tmp_path / "mask.onnx"
    path.write_text("what was there")
    module = build("mask", (3, 40, 32))
    assert export_onnx(module, str(path), uint8=True) == path
    frames = torch.randint(0, 256, (5, 3, 40, 32), dtype=torch.uint8)
    assert_close(run(path, frames=frames), module(frames))


class Louder(Query):
    """Behaves differently in training, and uses `len(frames)`, which only strict export keeps dynamic."""

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        features, attention = super().perceive(frames, context)
        loudness = torch.full((len(frames), 1), 3.0 if self.training else 2.0)
        return Percept(features * loudness, attention)


def test_eval_mode_is_exported_and_the_module_stays_in_training_mode(tmp_path: Path) -> None:
    module = build(Louder, (3, 32, 32))
    frames = torch.rand(4, 3, 32, 32)
    module(frames).features.sum().backward()
    path = export_onnx(module, tmp_path / "a.onnx")
    assert all(each.training for each in module.modules())
    assert all(each.requires_grad and each.grad is not None for each in module.parameters())
    assert_close(run(path, frames=frames), module.eval()(frames))


class Undecided(Query):
    """Branches on the frames' values, which cannot be exported."""

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        return super().perceive(frames if float(frames.mean()) > 0.5 else 1 - frames, context)


def test_a_failed_export_leaves_the_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_text("what was there")
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        export_onnx(build(Undecided, (3, 32, 32)), path)
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("module", "name", "match"),
    [
        (torch.nn.Linear(2, 3), "a.onnx", "expected a robot_attn.Perception, got Linear"),
        (None, "a.pt", "ends in .onnx, got a.pt"),
        (None, "a", "ends in .onnx, got a"),
    ],
)
def test_invalid_arguments_are_refused(
    module: Perception | None, name: str, match: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=match):
        export_onnx(module or build("query", (3, 32, 32)), tmp_path / name)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        export_onnx(build("query", (3, 32, 32)), tmp_path / "nowhere" / "a.onnx")


@pytest.mark.parametrize(
    ("absent", "named"),
    [(["onnx"], "onnx"), (["onnxscript"], "onnxscript"), (["onnx", "onnxscript"], "onnx and onnxscript")],
)
def test_without_onnx_the_error_names_the_install_line(
    absent: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)  # how Python marks a module that cannot be imported
    with pytest.raises(
        ModuleNotFoundError, match=rf'needs {named}, .*: run pip install "robot-attn\[onnx\]"$'
    ):
        export_onnx(build("query", (3, 32, 32)), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []
