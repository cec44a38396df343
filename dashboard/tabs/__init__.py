"""The tabs of all pages, in the order in which a page shows its own: a new one is a file and a line here."""

from __future__ import annotations

from dashboard.tab import Tab
from dashboard.tabs import (
    alpha_eta,
    convergence,
    density,
    equivalence,
    exports,
    extremes,
    horizon,
    law,
    layers,
    notes,
    probes,
    rates,
    routes,
    runs,
    schedules,
    steps,
    suppression,
)

TABS: tuple[Tab, ...] = (
    *(
        convergence.TAB,
        alpha_eta.TAB,
        law.TAB,
        horizon.TAB,
        equivalence.TAB,
        runs.TAB,
        exports.TAB,
        notes.TAB,
    ),
    *(steps.TAB, routes.TAB, layers.TAB, schedules.TAB),
    *(extremes.TAB, suppression.TAB, density.TAB, rates.TAB, probes.TAB),
)


def tabs_of(page: str) -> tuple[Tab, ...]:
    """The tabs of one page."""
    return tuple(tab for tab in TABS if tab.page == page)
