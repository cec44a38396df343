"""A job's life: every transition of a job, one function each. What is not here does not change a job.

Each function changes the job, its runs or its probe, and the sweep's state, in one transaction: after a crash
either all of it has happened or nothing.

- A job is claimed by one conditional update that also raises ``attempt``, the fencing token.
- Whoever holds a job names its attempt in each call (``held``): an update on (id, attempt, running) renews
  the lease and tells of a cancel or pause. No row updated means the job is somebody else's now:
  ``LeaseLost``, and nothing of the call is kept.
- Metric points, checkpoint pointer, progress and run states change inside such a transaction only.
- The claim deletes points after the checkpoint, so a resumed attempt writes each point once.
- A user's wishes (``requests``) reach a running job as flags; what nobody holds is changed at once.
- What nobody else will do, the reconciler does (``expiry``): expired leases, cancels of waiting jobs.
- Locks are taken in one order, jobs before runs before sweeps, or PostgreSQL would meet deadlocks. Who has
  all unfinished jobs of a sweep (``Change.sweep``) may take the sweep at once: nobody else is at its runs.
"""

from backend.services.jobs.change import Change, open_change
from backend.services.jobs.expiry import Reconciled, reconcile
from backend.services.jobs.held import (
    ClaimedJob,
    Signals,
    Write,
    cancel,
    claim,
    fail,
    finish,
    hand_back,
    progress,
    release,
    renew,
    split,
)
from backend.services.jobs.requests import (
    cancel_sweep,
    pause_sweep,
    request_cancel,
    requeue_runs,
    resume_sweep,
    stop_sweep,
)

__all__ = [
    "Change",
    "ClaimedJob",
    "Reconciled",
    "Signals",
    "Write",
    "cancel",
    "cancel_sweep",
    "claim",
    "fail",
    "finish",
    "hand_back",
    "open_change",
    "pause_sweep",
    "progress",
    "reconcile",
    "release",
    "renew",
    "request_cancel",
    "requeue_runs",
    "resume_sweep",
    "split",
    "stop_sweep",
]
