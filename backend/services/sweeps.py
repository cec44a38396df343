"""Plan, create, read, list and change sweeps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backend.pages import decode_cursor, encode_cursor
from backend.services import init_adapters
from backend.services.adaptive import first_stage
from backend.services.estimates import measured_seconds
from backend.services.packs import add_runs, fleet_of
from backend.services.presenters import show_sweep, show_sweeps, spec_warnings
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.jobs import new_id
from backend.store.sweeps import find_sweep
from backend.store.tables import IdempotencyRow, SweepRow
from lora_alpha.catalog.resolve import resolve
from lora_alpha.errors import Conflict, InvalidSpec
from lora_alpha.planning.planner import estimate_seconds, plan_packs
from lora_alpha.request import SweepRequest
from lora_alpha.spec import RunSpec, SweepSpec, expand
from lora_alpha.wire.sweeps import FieldError, Page, ScaleRow, Sweep, SweepPatch, SweepPlan

MAX_SCALE_ROWS = 200


def plan(store: Store, settings: Settings, request: SweepRequest, *, now: float) -> SweepPlan:
    """What a request would run and how long that takes; an invalid request lists all its problems."""
    try:
        spec = resolve(request)
        init_adapters.check(spec, settings)
    except InvalidSpec as error:
        return SweepPlan(
            valid=False,
            errors=[FieldError(field=problem.field, message=problem.message) for problem in error.problems],
        )
    runs = expand(first_stage(spec))
    with store.read() as session:
        fleet = fleet_of(session, expected=settings.fleet, now=now)
        measured = measured_seconds(session, spec.train)
    packs = plan_packs(spec.train, [run.configuration for run in runs], fleet=fleet)
    seconds = (
        estimate_seconds(spec.train, num_runs=len(runs), num_workers=fleet.num_workers)
        if measured is None
        else measured * spec.train.steps * len(runs) / max(1, min(fleet.num_workers, len(packs)))
    )
    return SweepPlan(
        valid=True,
        num_runs=len(runs),
        num_packs=len(packs),
        estimated_seconds=seconds,
        estimate_source="catalog" if measured is None else "measured",
        num_workers=fleet.num_workers,
        scales=_scale_rows(runs),
        warnings=[*spec_warnings(spec.model_dump(mode="json")), *_search_warnings(spec, len(runs))],
    )


def create(store: Store, settings: Settings, request: SweepRequest, *, key: str | None, now: float) -> Sweep:
    """Insert the sweep with its runs and jobs in one transaction; ring after it.

    A repeated ``key`` with the same body gives the first sweep back.

    Raises:
        InvalidSpec: With every invalid field.
        Conflict: If ``key`` was used with another body.
    """
    spec = resolve(request)
    spec = init_adapters.keep(spec, settings)
    body_hash = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
    try:
        return _create(store, settings, spec, key=key, body_hash=body_hash, now=now)
    except IntegrityError:
        if key is None:
            raise
        # Somebody else used the key in this very moment: theirs is there now.
        return _create(store, settings, spec, key=key, body_hash=body_hash, now=now)


def read(store: Store, sweep_id: str, *, now: float) -> Sweep:
    """One sweep.

    Raises:
        NotFound: If there is none.
    """
    with store.read() as session:
        return show_sweep(session, find_sweep(session, sweep_id), now=now)


def listing(
    store: Store,
    *,
    cursor: str | None,
    limit: int,
    state: Sequence[str],
    workload: str | None,
    tag: str | None,
    search: str | None,
    now: float,
) -> Page[Sweep]:
    """Newest first.

    Raises:
        InvalidSpec: If ``cursor`` is not one of this listing.
    """
    query = select(SweepRow).order_by(SweepRow.created.desc(), SweepRow.id.desc())
    if state:
        query = query.where(SweepRow.state.in_(state))
    if workload:
        query = query.where(SweepRow.workload == workload)
    if search:
        query = query.where(SweepRow.name.icontains(search, autoescape=True))
    if cursor:
        created, last = decode_cursor(cursor, (float, str))
        query = query.where(
            (SweepRow.created < created) | ((SweepRow.created == created) & (SweepRow.id < last))
        )
    rows = []
    with store.read() as session:
        for row in session.scalars(query, execution_options={"yield_per": limit + 1}):
            if not tag or tag in row.tags:
                rows.append(row)
            if len(rows) > limit:
                break
        page = rows[:limit]
        return Page(
            items=show_sweeps(session, page, now=now),
            next=encode_cursor(page[-1].created, page[-1].id) if len(rows) > limit else None,
        )


def patch(store: Store, sweep_id: str, change: SweepPatch, *, now: float) -> Sweep:
    """Change name, notes or tags.

    Raises:
        NotFound: If the sweep does not exist.
    """
    with store.write() as session:
        row = find_sweep(session, sweep_id)
        for name, value in change.model_dump(exclude_none=True).items():
            setattr(row, name, value)
        return show_sweep(session, row, now=now)


def _create(
    store: Store, settings: Settings, spec: SweepSpec, *, key: str | None, body_hash: str, now: float
) -> Sweep:
    with store.write() as session:
        known = _known(session, key, body_hash)
        if known is not None:
            return show_sweep(session, known, now=now)
        runs = expand(first_stage(spec))
        row = SweepRow(
            id=new_id(),
            name=spec.name or f"{spec.train.workload}, {len(runs)} runs",
            state="queued",
            intent="run",
            workload=spec.train.workload,
            spec=spec.model_dump(mode="json"),
            tags=spec.tags,
            priority=spec.priority,
            notes="",
            created=now,
        )
        session.add(row)
        if key is not None:
            session.add(IdempotencyRow(key=key, body_hash=body_hash, resource_id=row.id, created=now))
        session.flush()
        add_runs(
            session,
            row,
            runs,
            fleet=fleet_of(session, expected=settings.fleet, now=now),
            max_attempts=settings.max_attempts,
            now=now,
        )
        return show_sweep(session, row, now=now)


def _known(session: Session, key: str | None, body_hash: str) -> SweepRow | None:
    """The sweep that ``key`` has made before; a key whose sweep was deleted is free again."""
    used = session.get(IdempotencyRow, key) if key is not None else None
    if used is None:
        return None
    row = session.get(SweepRow, used.resource_id)
    if row is None:
        session.delete(used)
        session.flush()
        return None
    if used.body_hash != body_hash:
        raise Conflict(f"Idempotency-Key {key!r} was used with another body: take a new key")
    return row


def _scale_rows(runs: Sequence[RunSpec]) -> list[ScaleRow]:
    rows = {}
    for run in runs:
        c = run.configuration
        if c.rank is not None and c.alpha is not None and c.scale is not None:
            rows[c.method, c.rank, c.alpha] = ScaleRow(
                method=c.method, rank=c.rank, alpha=c.alpha, scale=c.scale
            )
    return list(rows.values())[:MAX_SCALE_ROWS]


def _search_warnings(spec: SweepSpec, num_runs: int) -> list[str]:
    if spec.search.kind == "grid":
        return []
    return [
        f"Adaptive search: these {num_runs} runs come first, then more α around each rank's optimum "
        "until it is enclosed to half an octave; the time is that of the first ones."
    ]
