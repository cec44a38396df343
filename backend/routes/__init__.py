"""HTTP routes, one file per noun."""

from backend.routes import events, exports, ingest, probes, runs, status, sweeps, views

ROUTERS = (
    sweeps.router,
    runs.router,
    exports.router,
    probes.router,
    ingest.router,
    views.router,
    status.router,
    events.router,
)
