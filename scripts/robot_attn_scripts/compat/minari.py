"""What Minari does not document of how it names datasets and where it keeps them."""

from __future__ import annotations

from pathlib import Path

DATA_FOLDER = "data"
"""Minari's name for what is in a dataset's folder."""


def namespace_of(name: str) -> str | None:
    """The namespace in the name of a dataset, such as "track" in "track/query-v0"; None where it has none.

    Raises:
        ValueError: it is not the name of a dataset.
    """
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        namespace, _, _ = parse_dataset_id(name)
    except TypeError as error:  # from a name without a version
        raise ValueError(f"expected a name like track/query-v0, got {name!r}") from error
    return namespace  # type: ignore[no-any-return]


def dataset_path(name: str) -> Path:
    """Where the dataset, or the namespace, of that name is kept, whether there is one or not."""
    from minari.storage import get_dataset_path

    return Path(get_dataset_path(name))


def make_namespace(name: str) -> None:
    """Make a namespace among this machine's datasets, unless there is one."""
    from minari.namespace import create_namespace, list_local_namespaces

    if name not in list_local_namespaces():
        create_namespace(name)
