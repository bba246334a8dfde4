"""One sentence for a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: object, known: Iterable[str], *, more: str = "") -> ValueError:
    """The error for a name that is not among those known; it gives the nearest and all of them.

    Args:
        kind: what the name should have named, such as "score".
        name: the name.
        known: the names that there are.
        more: what else could have been named, to stand behind the list.

    Returns:
        The error, to be raised.
    """
    names = sorted(known)
    article = "an" if kind[0] in "aeiou" else "a"
    return ValueError(
        f"expected {article} {kind} among {', '.join(names)}{more}, got {name!r}{did_you_mean(name, names)}"
    )


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of an error that gives the nearest of the names, whatever the case; "" where none is near."""
    lower = {spelling.lower(): spelling for spelling in known}
    near = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.6)
    return f": did you mean {lower[near[0]]!r}?" if near else ""
