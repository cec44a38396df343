"""Whether α over time beats the best constant α of a sweep."""

from __future__ import annotations

from dataclasses import asdict

from backend.services.outcomes import Reading, sweep_cells
from backend.store.engines import Store
from backend.store.sweeps import find_sweep
from lora_alpha.analysis.schedules import compare_schedules, schedules_verdict
from lora_alpha.wire.claims import ScheduleItem, Schedules


def read(store: Store, sweep_id: str, reading: Reading, *, margin: float) -> Schedules:
    """``GET /sweeps/{id}/schedules``.

    Raises:
        NotFound: If the sweep does not exist.
    """
    with store.read() as session:
        find_sweep(session, sweep_id)
        found = sweep_cells(session, sweep_id, reading)
    items = compare_schedules(found, margin=margin)
    return Schedules(
        sweep_id=sweep_id,
        objective=reading.objective,
        at_step=reading.at_step,
        margin=margin,
        verdict=schedules_verdict(items),
        num_pending=sum(cell.num_pending for cell in found),
        items=[ScheduleItem(**asdict(item)) for item in items],
    )
