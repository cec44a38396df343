"""Rows of the store as the API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.services.actions import allowed_actions
from backend.services.estimates import sweep_etas, sweep_progress
from backend.services.outcomes import schedule_label
from backend.services.sweep_metrics import is_number
from backend.store.sweeps import INGESTED, run_counts
from backend.store.tables import JobRow, RunRow, SweepRow
from lora_alpha.analysis.cells import MIN_SEEDS
from lora_alpha.catalog import WORKLOADS
from lora_alpha.wire.sweeps import Run, Sweep


def timestamp(seconds: float | None) -> datetime | None:
    """Epoch seconds as an aware UTC time."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def show_sweep(session: Session, row: SweepRow, *, now: float) -> Sweep:
    """One sweep, pending changes included."""
    session.flush()
    return show_sweeps(session, [row], now=now)[0]


def show_sweeps(session: Session, rows: Sequence[SweepRow], *, now: float) -> list[Sweep]:
    """Sweeps with counts, progress and time left."""
    ids = [row.id for row in rows]
    counts = run_counts(session, ids)
    progress = sweep_progress(session, ids)
    etas = sweep_etas(session, rows, now=now)
    shown = []
    for row in rows:
        created = timestamp(row.created)
        assert created is not None
        shown.append(
            Sweep(
                id=row.id,
                name=row.name,
                state=row.state,  # type: ignore[arg-type]
                workload=row.workload,
                created_at=created,
                started_at=timestamp(row.started),
                finished_at=timestamp(row.finished),
                counts=counts[row.id],
                progress=progress.get(row.id, 0.0),
                eta_seconds=etas.get(row.id),
                spec=row.spec,
                notes=row.notes,
                tags=row.tags,
                metric_label=WORKLOADS[row.workload].metric if row.workload in WORKLOADS else "eval_loss",
                warnings=spec_warnings(row.spec),
                actions=allowed_actions(row.state, ingested=row.spec.get("source") == INGESTED),  # type: ignore[arg-type]
            )
        )
    return shown


def show_runs(session: Session, rows: Sequence[RunRow]) -> list[Run]:
    """Runs with their sweeps' tags and the attempts of their packs."""
    sweeps = select(SweepRow.id, SweepRow.tags).where(SweepRow.id.in_({row.sweep_id for row in rows}))
    tags = {row.id: row.tags for row in session.execute(sweeps)}
    jobs = select(JobRow.id, JobRow.attempt).where(JobRow.id.in_({row.job_id for row in rows if row.job_id}))
    attempts = {row.id: row.attempt for row in session.execute(jobs)}
    return [show_run(row, tags[row.sweep_id], attempt=attempts.get(row.job_id or "", 0)) for row in rows]


def show_run(row: RunRow, tags: Sequence[str], *, attempt: int = 0) -> Run:
    """One run; what its row holds under the same name crosses as it is."""
    fields = {name: getattr(row, name) for name in Run.model_fields.keys() & RunRow.__table__.columns.keys()}
    fields |= {
        "scale": _final_scale(row),
        "lr_ratio": row.configuration.get("lr_ratio", 1.0),
        "summary": {name: value for name, value in row.summary.items() if is_number(value)},
        "started_at": timestamp(row.started),
        "finished_at": timestamp(row.finished),
        "duration_s": None if row.finished is None or row.started is None else row.finished - row.started,
        "tags": list(tags),
        "attempt": attempt,
        "alpha_schedule": schedule_label(row),
    }
    return Run(**fields)


def _final_scale(row: RunRow) -> float | None:
    final = row.summary.get("scale")
    return final if is_number(final) else row.scale


def spec_warnings(spec: dict[str, object]) -> list[str]:
    """What a reader of this sweep's numbers should know before trusting them."""
    seeds = spec.get("seeds")
    if isinstance(seeds, list) and 0 < len(seeds) < MIN_SEEDS:
        return [
            f"Only {len(seeds)} seed{'s' if len(seeds) > 1 else ''}: differences between cells may be noise. "
            f"Take at least {MIN_SEEDS}."
        ]
    return []
