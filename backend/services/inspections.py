"""Use cases of inspections: a job that prepares and checks a workload before any run is queued."""

from __future__ import annotations

from pydantic import ValidationError
from sqlalchemy.orm import Session

from backend.services.presenters import timestamp
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.jobs import enqueue
from backend.store.tables import JobRow
from lora_alpha.catalog import workload_info
from lora_alpha.catalog.resolve import problems_from
from lora_alpha.errors import InvalidSpec, NotFound
from lora_alpha.wire.jobs import Inspection, InspectionRequest

KIND = "inspect"
# Before the packs that wait: a person looks at a form.
PRIORITY = 1000


def create(store: Store, settings: Settings, request: InspectionRequest, *, now: float) -> Inspection:
    """Queue an inspection.

    Raises:
        InvalidSpec: If the workload does not exist or its options are malformed.
    """
    info = workload_info(request.workload)
    try:
        options = info.options.model_validate(request.workload_options)
    except ValidationError as error:
        raise InvalidSpec(problems_from(error, prefix="workload_options")) from None
    spec = {"workload": request.workload, "workload_options": options.model_dump(mode="json")}
    with store.write() as session:
        job_id = enqueue(
            session,
            kind=KIND,
            spec=spec,
            now=now,
            priority=PRIORITY,
            max_attempts=settings.max_attempts,
        )
        return _show(session, job_id)


def read(store: Store, inspection_id: str) -> Inspection:
    """One inspection.

    Raises:
        NotFound: If there is none.
    """
    with store.read() as session:
        return _show(session, inspection_id)


def _show(session: Session, job_id: str) -> Inspection:
    job = session.get(JobRow, job_id)
    if job is None or job.kind != KIND:
        raise NotFound(f"there is no inspection {job_id!r}")
    created = timestamp(job.created)
    assert created is not None
    return Inspection(
        id=job.id,
        state=job.state,  # type: ignore[arg-type]
        workload=job.spec["workload"],
        workload_options=job.spec["workload_options"],
        progress=job.progress,
        message=job.message,
        result=job.result,
        error=job.error,
        created_at=created,
        finished_at=timestamp(job.finished),
    )
