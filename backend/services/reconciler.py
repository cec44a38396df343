"""The reconciler: puts right what nobody else will, once a second for as long as the API lives."""

from __future__ import annotations

import asyncio
import logging
import time

from celery import Celery

from backend.queue import ring
from backend.services.adaptive import refine_due
from backend.services.jobs import reconcile
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.jobs import jobs_to_ring
from backend.store.workers import retire_workers

INTERVAL_S = 1.0
# Workers give a sign of life three times a lease; they are shown as gone for this long.
SILENT_LEASES = 2
FORGET_S = 24 * 3600.0
LOG = logging.getLogger("lora_alpha.reconciler")


async def keep_reconciling(store: Store, settings: Settings, celery: Celery) -> None:
    """Reconcile until cancelled; an error (the database is away) ends one round, not the reconciler."""
    while True:
        try:
            await asyncio.to_thread(reconcile_once, store, settings, celery, now=time.time())
        except Exception:
            # Whatever was due in this round is still due in the next.
            LOG.exception("this round failed, the next is in %g s", INTERVAL_S)
        await asyncio.sleep(INTERVAL_S)


def reconcile_once(store: Store, settings: Settings, celery: Celery, *, now: float) -> None:
    """Expired leases back to the queue, cancels settled, queued jobs rung again, silent workers gone.

    Adaptive searches that no worker took further (it was killed in between) go on.
    """
    reconcile(store, now=now)
    refine_due(store, settings, now=now)
    silent_since = now - SILENT_LEASES * settings.lease_s
    with store.write() as session:
        retire_workers(session, silent_since=silent_since, forget_before=now - FORGET_S)
    for queue in jobs_to_ring(store, now=now, ring_after_s=settings.ring_after_s, idle_since=silent_since):
        if not ring(celery, settings, queue):
            return
