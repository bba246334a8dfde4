"""One sentence for a name that is not known; it costs help and refusals the standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, also: Mapping[str, str] | None = None, more: str = ""
) -> ValueError:
    """The error for a name that is not among those known; it gives the nearest and all of them.

    Args:
        kind: what the name should have named, such as "task".
        name: the name.
        known: the names that are listed, in this order.
        also: further spellings that the name may be near, and the name that each stands for.
        more: what else could have been named, to stand behind the list.

    Returns:
        The error, to be raised.
    """
    import difflib

    names = list(known)
    article = "an" if kind[0] in "aeiou" else "a"
    lower = {spelling.lower(): meant for spelling, meant in (also or {}).items()}
    lower |= {spelling.lower(): spelling for spelling in names}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    hint = f": did you mean {lower[near[0]]!r}?" if near else ""
    return ValueError(f"expected {article} {kind} among {', '.join(names)}{more}, got {name!r}{hint}")
