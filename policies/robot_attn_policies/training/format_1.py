"""Names in run folders of format 1, written before version 0.2, and their current names.

Only names changed: a policy of format 1 computes the same actions as before. Its training cannot be resumed,
because its checkpoint has the old parameter names.
"""

from __future__ import annotations

OPTIONS = {
    "heads": "num_heads",
    "layer_heads": "num_layer_heads",
    "features_size": "features_dim",
    "patch_size": "patch_dim",
    "hidden_size": "hidden_dim",
    "embed_size": "embed_dim",
    "key_size": "key_dim",
    "slot_size": "slot_dim",
    "state_size": "state_dim",
    "word_size": "word_dim",
}
"""Options of the perception families: former name -> current name."""

PARAMETERS = {"looks": "queries", "inner_looks": "inner_queries"}
"""Components of parameter names, between the dots: former name -> current name."""


def current_parameter(name: str) -> str:
    """The current name of a policy's parameter or buffer."""
    return ".".join(PARAMETERS.get(part, part) for part in name.split("."))


def former_option(name: str) -> str:
    """The name that format 1 has for an option of a perception family."""
    return {current: former for former, current in OPTIONS.items()}.get(name, name)
