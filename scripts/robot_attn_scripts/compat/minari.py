"""Names and folders of Minari's datasets, by functions that Minari does not document."""

from __future__ import annotations

from pathlib import Path

DATA_FOLDER = "data"
"""Name of the folder in a dataset's folder that contains its episodes."""


def namespace_of(name: str) -> str | None:
    """Return the namespace of a dataset's name, such as "track" for "track/query-v0", or None.

    Raises:
        ValueError: the name is not that of a dataset.
    """
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        namespace, _, _ = parse_dataset_id(name)
    except TypeError as error:  # raised for a name without a version
        raise ValueError(f"expected a name like track/query-v0, got {name!r}") from error
    return namespace  # type: ignore[no-any-return]


def dataset_path(name: str) -> Path:
    """Return the folder of a dataset or namespace, whether or not it exists."""
    from minari.storage import get_dataset_path

    return Path(get_dataset_path(name))


def make_namespace(name: str) -> None:
    """Create a namespace among the local datasets unless it exists."""
    from minari.namespace import create_namespace, list_local_namespaces

    if name not in list_local_namespaces():
        create_namespace(name)
