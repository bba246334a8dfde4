"""What gymnasium-robotics does before it draws, which its public interface does not offer."""

from __future__ import annotations

from typing import Any


def prepare_frame(env: Any) -> None:
    """Have an environment place what only its pictures show, such as the goal of Fetch, which is a site.

    Its environments do this in `render`, before they draw: without it the goal stays where it was drawn last.

    Args:
        env: any environment without its wrappers; one that has nothing to place is left as it is.
    """
    place = getattr(env, "_render_callback", None)
    if callable(place):
        place()
