"""The error for an unknown name. Only the standard library is imported, to keep option errors quick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, also: Mapping[str, str] | None = None, more: str = ""
) -> ValueError:
    """Make the error for an unknown name. It lists the known names and suggests the nearest.

    Args:
        kind: what the name is of, such as "task".
        name: the unknown name.
        known: the names to list, in this order.
        also: further spellings to search for the nearest, and the name that each stands for.
        more: text to put after the list of names, such as another way to give a name.

    Returns:
        The error to raise.
    """
    import difflib

    names = list(known)
    article = "an" if kind[0] in "aeiou" else "a"
    lower = {spelling.lower(): meant for spelling, meant in (also or {}).items()}
    lower |= {spelling.lower(): spelling for spelling in names}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    hint = f": did you mean {lower[near[0]]!r}?" if near else ""
    return ValueError(f"expected {article} {kind} among {', '.join(names)}{more}, got {name!r}{hint}")
