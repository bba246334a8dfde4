"""Names in run folders of format 1, written before version 0.2, and what they are called now.

Only names changed: a policy of format 1 computes what it always did. Its training does not go on, since its
checkpoint names the parameters in the old way.
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
"""Options of the perception families."""

PARAMETERS = {"looks": "queries", "inner_looks": "inner_queries"}
"""Parts of the names of parameters, between their dots."""


def current_parameter(name: str) -> str:
    """The present name of a policy's parameter or buffer."""
    return ".".join(PARAMETERS.get(part, part) for part in name.split("."))


def former_option(name: str) -> str:
    """The name that format 1 gives to an option of a perception family."""
    return {now: before for before, now in OPTIONS.items()}.get(name, name)
