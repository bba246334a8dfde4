"""The sections of a report by name, each made on its own: one that fails costs no other."""

from __future__ import annotations

import logging
from collections.abc import Callable

from robot_attn.optional import import_optional
from robot_attn_policies.pages.report import Section

TITLES: dict[str, str] = {
    "focus": "Localised: is attention on the target?",
    "faithful": "Faithful: does the return depend on the attended pixels?",
    "mediation": "Mediated: does forcing the attention force the action?",
    "interventions": "Causally specific: do actions and attention respond to the target alone?",
    "heads": "Which head drives the actions?",
    "things": "Where attention goes, thing by thing",
    "captured": "Captured: what takes attention away from the target?",
    "failures": "Where does it fail?",
    "weights": "Weight-dependent: do the maps depend on the learned weights?",
    "actions": "Do actions depend on the attended pixels?",
    "causal": "Does what it attends to matter? (causal map)",
    "gradients": "Do gradients agree with the map?",
    "clusters": "What does it attend to?",
    "time": "How does attention move?",
    "memory": "How far back does a frame matter?",
}
"""Heading of each section, by its name."""

EXTRA = {"captum.attr": "captum", "sklearn": "scikit-learn"}
"""Modules that the sections import, and their packages."""

_logger = logging.getLogger(__name__)


def check_extra() -> None:
    """Check that the extra "explain" is installed, before episodes are run.

    Raises:
        ModuleNotFoundError: it is not.
    """
    for module, package in EXTRA.items():
        import_optional(module, needs=f"explanations need {package}", extra="explain")


def guarded_section(name: str, make: Callable[[], Section]) -> Section:
    """Make a section; if that fails, make one that says why instead.

    The other sections of a report hold whatever one of them could not do, and episodes that took minutes are
    not lost. The traceback is logged at the level INFO.

    Args:
        name: the section's name, a key of `TITLES`.
        make: makes the section.

    Raises:
        ModuleNotFoundError: an optional dependency is not installed.
    """
    try:
        return make()
    except ModuleNotFoundError:
        raise  # it names what to install
    except Exception as error:
        _logger.info("section %r failed", name, exc_info=True)
        reason = " ".join(str(error).split()).rstrip(".")
        if not reason or not isinstance(error, ValueError):  # our own refusals are ValueErrors
            reason = f"{type(error).__name__}{reason and ': '}{reason}"
        text = f"This could not be measured: {reason}."
        return Section(name, TITLES[name], (text,))
