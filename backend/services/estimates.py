"""How long things take: from what this installation has measured, else from the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from backend.store.tables import JobRow, RunRow, SweepRow
from lora_alpha.spec import ENDED_RUNS, ENDED_SWEEPS, TrainSpec

# Packs that say how fast the sweep goes now: enough to even out ranks, few enough to be recent.
RECENT_PACKS = 8
# A pack that has just begun spends its time on loading, not on steps.
MIN_ELAPSED_S = 1.0
MEASURED_PACKS = 32


@dataclass(frozen=True)
class _Pack:
    sweep_id: str
    state: str
    started: float | None
    finished: float | None
    attempt: int
    steps: int
    done: int

    def rate(self, now: float) -> float | None:
        """Configuration-steps per second, None where too little has happened to say."""
        if self.started is None or self.done == 0 or self.state not in {"running", "finished"}:
            return None
        elapsed = (self.finished or now) - self.started
        return self.done / elapsed if elapsed >= MIN_ELAPSED_S or self.finished else None


def sweep_progress(session: Session, sweep_ids: Sequence[str]) -> dict[str, float]:
    """Share of each sweep's steps that are done or will not be done any more, 0 … 1."""
    done = func.sum(case((RunRow.state.in_(ENDED_RUNS), RunRow.steps), else_=RunRow.step))
    query = (
        select(RunRow.sweep_id, done, func.sum(RunRow.steps))
        .where(RunRow.sweep_id.in_(sweep_ids))
        .group_by(RunRow.sweep_id)
    )
    return {
        sweep_id: min(1.0, float(part) / float(total))
        for sweep_id, part, total in session.execute(query)
        if total
    }


def sweep_etas(session: Session, sweeps: Iterable[SweepRow], *, now: float) -> dict[str, float]:
    """Seconds left for each sweep that is being worked on, from its most recent packs.

    A sweep that nobody works on (queued, paused, ended, ingested) has none.
    """
    active = [sweep.id for sweep in sweeps if sweep.state not in {*ENDED_SWEEPS, "queued", "paused"}]
    if not active:
        return {}
    packs = _packs(session, active)
    etas = {}
    for sweep_id in active:
        own = [pack for pack in packs if pack.sweep_id == sweep_id]
        running = sum(pack.state == "running" for pack in own)
        rate = _recent_rate(own, now)
        if running and rate:
            left = sum(pack.steps - pack.done for pack in own if pack.state in {"running", "queued"})
            etas[sweep_id] = left / (rate * running)
    return etas


def measured_seconds(session: Session, train: TrainSpec) -> float | None:
    """Median seconds per configuration and step of finished packs of the same task, whole stack included.

    None where this installation has not trained this workload with these options and batch size yet.
    """
    query = (
        select(JobRow)
        .join(SweepRow, SweepRow.id == JobRow.sweep_id)
        .where(SweepRow.workload == train.workload, JobRow.kind == "pack", JobRow.state == "finished")
        .order_by(JobRow.finished.desc())
        .limit(MEASURED_PACKS)
    )
    seconds = []
    for job in session.scalars(query):
        ran = TrainSpec.model_validate(job.spec["train"])
        same = all(
            getattr(ran, name) == getattr(train, name) for name in ("workload_options", "batch_size", "dtype")
        )
        # A resumed pack counts its waits as well.
        if same and job.attempt == 1 and job.started is not None and job.finished is not None:
            seconds.append((job.finished - job.started) / (len(job.spec["runs"]) * ran.steps))
    return median(seconds) if seconds else None


def _packs(session: Session, sweep_ids: Sequence[str]) -> list[_Pack]:
    ended = RunRow.state.in_(ENDED_RUNS)
    query = (
        select(
            JobRow.sweep_id,
            JobRow.state,
            JobRow.started,
            JobRow.finished,
            JobRow.attempt,
            func.sum(RunRow.steps),
            func.sum(case((ended, RunRow.steps), else_=RunRow.step)),
        )
        .join(RunRow, RunRow.job_id == JobRow.id)
        .where(JobRow.sweep_id.in_(sweep_ids))
        .group_by(JobRow.id)
    )
    return [_Pack(*row) for row in session.execute(query)]


def _recent_rate(packs: Sequence[_Pack], now: float) -> float | None:
    timed = [(pack, rate) for pack in packs if (rate := pack.rate(now)) is not None]
    # A resumed pack's time includes its wait: use those only where there is nothing better.
    best = [item for item in timed if item[0].attempt == 1] or timed
    best.sort(key=lambda item: item[0].finished or now, reverse=True)
    rates = [rate for _, rate in best[:RECENT_PACKS]]
    return sum(rates) / len(rates) if rates else None
