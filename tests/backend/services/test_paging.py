"""Lists in pages end, and give each row once: whoever follows ``next`` would otherwise read for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backend.services import probes, runs, sweeps
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.tables import ProbeRow, RunRow, SweepRow
from lora_alpha.wire.sweeps import Page

NOW = 1_800_000_000.0


def all_pages(read: Callable[[str | None], Page[Any]], *, num_rows: int) -> list[str]:
    """Ids of every page's rows; fails where more pages come than there are rows, or an empty one."""
    ids: list[str] = []
    cursor: str | None = None
    for _ in range(num_rows + 1):
        page = read(cursor)
        ids += [item.id for item in page.items]
        assert page.items, "the page before said that there were more rows"
        if page.next is None:
            return ids
        cursor = page.next
    pytest.fail(f"{num_rows} rows take more than {num_rows + 1} pages: it pages for ever")


@pytest.fixture
def seven_runs(any_store: Store) -> Store:
    """Two with each of three losses, so that pages end between equal ones, and one without."""
    losses = [0.5, 0.5, 0.25, 0.25, 1.0, 1.0, None]
    with any_store.write() as session:
        session.add(SweepRow(id="sweep", name="", state="queued", workload="mlp", spec={}, created=NOW))
        session.flush()
        session.add_all(
            RunRow(
                id=f"run-{index}",
                sweep_id="sweep",
                position=index,
                name=f"name-{index % 3}",
                state="finished" if loss else "failed",
                workload="mlp",
                method="lora" if index % 2 else "full",
                rank=4 if index % 2 else None,
                alpha=None,
                lr=1e-3 / 3,
                seed=index % 2,
                steps=100,
                step=index % 2,
                configuration={},
                final_loss=loss,
                best_loss=loss,
                started=NOW + 0.1 * (index % 3) if index else None,
                created=NOW,
            )
            for index, loss in enumerate(losses)
        )
    return any_store


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
@pytest.mark.parametrize("sort", [sign + name for name in runs.SORTABLE for sign in ("", "-")])
def test_pages_of_runs_end_and_give_each_run_once(seven_runs: Store, sort: str, limit: int) -> None:
    def read(cursor: str | None) -> Page[Any]:
        return runs.listing(seven_runs, filters={}, sort=sort, cursor=cursor, limit=limit)

    ids = all_pages(read, num_rows=7)
    assert sorted(ids) == [f"run-{index}" for index in range(7)]
    (whole,) = [runs.listing(seven_runs, filters={}, sort=sort, cursor=None, limit=7)]
    assert ids == [run.id for run in whole.items]


def test_runs_without_a_value_come_last_both_ways(seven_runs: Store) -> None:
    for sort in ("final_loss", "-final_loss"):
        page = runs.listing(seven_runs, filters={}, sort=sort, cursor=None, limit=7)
        assert page.items[-1].id == "run-6"


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_pages_of_sweeps_end_and_give_each_sweep_once(store: Store, limit: int) -> None:
    with store.write() as session:
        session.add_all(
            SweepRow(
                id=f"sweep-{index}",
                name="",
                state="queued",
                workload="mlp",
                spec={"train": {"steps": 1}},
                created=NOW + index // 2,
            )
            for index in range(5)
        )

    def read(cursor: str | None) -> Page[Any]:
        given: dict[str, Any] = {"state": [], "workload": None, "tag": None, "search": None, "now": NOW}
        return sweeps.listing(store, cursor=cursor, limit=limit, **given)

    assert all_pages(read, num_rows=5) == ["sweep-4", "sweep-3", "sweep-2", "sweep-1", "sweep-0"]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_pages_of_probes_end_and_give_each_probe_once(store: Store, settings: Settings, limit: int) -> None:
    with store.write() as session:
        session.add_all(
            ProbeRow(
                id=f"probe-{index}",
                kind="top",
                space="lora",
                state="queued",
                spec={},
                created=NOW + index // 2,
            )
            for index in range(5)
        )

    def read(cursor: str | None) -> Page[Any]:
        filters = dict.fromkeys(("sweep", "run", "state", "kind", "space"))
        return probes.listing(store, **filters, cursor=cursor, limit=limit)

    assert all_pages(read, num_rows=5) == ["probe-4", "probe-3", "probe-2", "probe-1", "probe-0"]
