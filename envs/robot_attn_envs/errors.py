"""Error messages shared by the package."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """Build the error for an unknown name, with the known names and the nearest of them.

    Args:
        kind: kind of thing that the name is for, such as "visual shift".
        name: the unknown name.
        known: the known names.

    Returns:
        The error, for the caller to raise.
    """
    names = list(known)
    article = "an" if kind[0] in "aeiou" else "a"
    lower = {spelling.lower(): spelling for spelling in names}
    near = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.6)
    hint = f": did you mean {lower[near[0]]!r}?" if near else ""
    return ValueError(f"expected {article} {kind} among {', '.join(names)}, got {name!r}{hint}")
