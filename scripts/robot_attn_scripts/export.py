"""Export a trained policy to ONNX."""

from __future__ import annotations

from rich.console import Console

from robot_attn_policies.sb3.export import export_policy_onnx, read_onnx_metadata
from robot_attn_scripts import _loaded_run, _report
from robot_attn_scripts._tasks import action_names, env_id
from robot_attn_scripts.options.export import Options


def run(options: Options) -> dict[str, object]:
    """Export the policy, print its inputs and outputs, write the JSON file of --json, and return the figures.

    Raises:
        ValueError: the run cannot be loaded, or torch cannot export its perception.
        ModuleNotFoundError: onnx or onnxscript is not installed.
        OSError: the file cannot be written.
    """
    console = Console()
    loaded = _loaded_run.load(options.run, options.which, options.module)
    task, perception = loaded.config.task, loaded.config.perception
    about = {
        "task": env_id(task),
        "perception": perception,
        "policy": f"{options.run.name} ({options.which})",
        "action_names": action_names(task),
    }
    options.onnx.parent.mkdir(parents=True, exist_ok=True)
    with Console(stderr=True).status("exporting"):
        try:
            export_policy_onnx(
                loaded.policy, options.onnx, channels_first=options.channels_first, about=about
            )
        except RuntimeError as error:  # from torch's exporter, with pages of its internals
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"expected a perception that torch.export accepts, got {perception!r}: {reason}"
            ) from error
    metadata = read_onnx_metadata(options.onnx)
    size = options.onnx.stat().st_size
    console.print(f"{options.onnx}: {size / 1e6:.1f} MB", highlight=False, soft_wrap=True)
    for kind in ("inputs", "outputs"):
        table = _report.figure_table(kind[:-1], "type", "shape", left=3)
        for name, entry in metadata[kind].items():
            table.add_row(name, entry["dtype"], f"[{', '.join(map(str, ['batch', *entry['shape']]))}]")
        console.print(table, markup=False)
    figures: dict[str, object] = {
        "run": str(options.run),
        "policy": options.which,
        "file": str(options.onnx),
        "size": _report.figure(size, "bytes"),
        **metadata,
    }
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures
