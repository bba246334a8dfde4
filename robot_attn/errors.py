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
    lower = {spelling.lower(): spelling for spelling in names}
    near = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.6)
    hint = f": did you mean {lower[near[0]]!r}?" if near else ""
    return ValueError(f"expected {article} {kind} among {', '.join(names)}{more}, got {name!r}{hint}")
