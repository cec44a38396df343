"""Typed client of the HTTP API: the public Python SDK, and the dashboard's only door.

>>> client = Client("http://127.0.0.1:8050")  # doctest: +SKIP
>>> sweep = client.create_sweep(SweepRequest(workload="mlp"))  # doctest: +SKIP
>>> client.law(sweep.id).laws[0].fit.exponent  # doctest: +SKIP
0.55
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Self, TypeVar, Unpack

import httpx
from pydantic import TypeAdapter, ValidationError

from lora_alpha.errors import (
    LoraAlphaError,
    ServiceUnreachable,
)
from lora_alpha.request import SweepRequest
from lora_alpha.spec import ProbeSpec
from lora_alpha.wire.analysis import (
    MARGIN,
    Advice,
    BoundedOptima,
    Cells,
    Collapse,
    Curvature,
    Equivalences,
    Horizons,
    Laws,
    Schedules,
    SweepMetrics,
    Target,
)
from lora_alpha.wire.http import Params, read_error, to_body, to_path, to_query
from lora_alpha.wire.jobs import (
    IngestPoints,
    IngestReceipt,
    IngestRun,
    Inspection,
    InspectionRequest,
    PresetItem,
    Probe,
    SavedView,
    ViewRequest,
)
from lora_alpha.wire.queries import CsvKind, ReadingQuery, Verb
from lora_alpha.wire.sweeps import (
    Curves,
    ExtendRequest,
    Health,
    MethodItem,
    Page,
    Run,
    Sweep,
    SweepPatch,
    SweepPlan,
    Worker,
    WorkloadItem,
)

IDLE_S = 3.0
Model = TypeVar("Model")


class Client:
    """Talks to one service. Safe to share between threads; close it, or use it as a context manager.

    Args:
        base_url: Address of the service, without ``/api``.
        token: ``LORA_ALPHA_TOKEN`` of the service, if it has one.
        timeout_s: Seconds to wait for an answer.
        transport: Replaces the network: an ``httpx`` transport around an application, for tests.

    Every method raises ``ServiceUnreachable`` if no service answers, ``InvalidSpec`` with every invalid
    field, ``NotFound``, ``Conflict`` if the request does not fit the current state, ``LoraAlphaError``
    otherwise.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8050",
        *,
        token: str | None = None,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = httpx.Client(
            base_url=f"{self.base_url}/api",
            timeout=httpx.Timeout(timeout_s, connect=5.0),
            # An idle connection is given up before the service does so (uvicorn: after 5 s): a request that
            # went out on one just being closed would be lost.
            limits=httpx.Limits(max_keepalive_connections=20, keepalive_expiry=IDLE_S),
            transport=transport,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # Sweeps

    def plan_sweep(self, request: SweepRequest | Params) -> SweepPlan:
        """What ``request`` would run; an invalid one gives a plan that lists every problem."""
        return self._post("/sweeps/plan", SweepPlan, to_body(request))

    def create_sweep(self, request: SweepRequest | Params, idempotency_key: str | None = None) -> Sweep:
        """Submit a sweep; the same key with the same request gives the same sweep."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._post("/sweeps", Sweep, to_body(request), headers=headers)

    def sweeps(
        self,
        cursor: str | None = None,
        *,
        limit: int = 50,
        state: str | Sequence[str] | None = None,
        workload: str | None = None,
        tag: str | None = None,
        search: str | None = None,
    ) -> Page[Sweep]:
        """A page of sweeps, newest first."""
        params = {
            "cursor": cursor,
            "limit": limit,
            "state": state,
            "workload": workload,
            "tag": tag,
            "search": search,
        }
        return self._get("/sweeps", Page[Sweep], params)

    def sweep(self, sweep_id: str) -> Sweep:
        """One sweep."""
        return self._get(f"/sweeps/{to_path(sweep_id)}", Sweep)

    def patch_sweep(
        self,
        sweep_id: str,
        *,
        name: str | None = None,
        notes: str | None = None,
        tags: list[str] | None = None,
    ) -> Sweep:
        """Change name, notes or tags; None leaves a field as it is."""
        change = SweepPatch(name=name, notes=notes, tags=tags).model_dump(exclude_none=True)
        return self._model(self._request("PATCH", f"/sweeps/{to_path(sweep_id)}", json=change), Sweep)

    def delete_sweep(self, sweep_id: str) -> None:
        """Delete a sweep that is not running, with its runs, curves and probes."""
        self._request("DELETE", f"/sweeps/{to_path(sweep_id)}")

    def sweep_action(self, sweep_id: str, verb: Verb) -> Sweep:
        """Pause, resume, stop, cancel or retry."""
        return self._post(f"/sweeps/{to_path(sweep_id)}/{verb}", Sweep)

    def extend_sweep(self, sweep_id: str, request: ExtendRequest | Params) -> Sweep:
        """Add axis values or cells; those that exist are left alone."""
        return self._post(f"/sweeps/{to_path(sweep_id)}/extend", Sweep, to_body(request))

    # Runs

    def runs(
        self,
        sweep: str | Sequence[str] | None = None,
        *,
        state: str | Sequence[str] | None = None,
        method: str | Sequence[str] | None = None,
        rank: int | Sequence[int] | None = None,
        alpha: float | Sequence[float] | None = None,
        lr: float | Sequence[float] | None = None,
        seed: int | Sequence[int] | None = None,
        diverged: bool | None = None,
        sort: str = "position",
        cursor: str | None = None,
        limit: int = 200,
    ) -> Page[Run]:
        """A page of runs; ``sort`` names a column, with ``-`` before it for descending."""
        params = {
            "sweep": sweep,
            "state": state,
            "method": method,
            "rank": rank,
            "alpha": alpha,
            "lr": lr,
            "seed": seed,
            "diverged": diverged,
            "sort": sort,
            "cursor": cursor,
            "limit": limit,
        }
        return self._get("/runs", Page[Run], params)

    def all_runs(self, sweep: str, **filters: Any) -> list[Run]:
        """Every run of a sweep, page by page."""
        page = self.runs(sweep, limit=1000, **filters)
        runs = page.items
        while page.next is not None:
            page = self.runs(sweep, limit=1000, cursor=page.next, **filters)
            runs += page.items
        return runs

    def run(self, run_id: str) -> Run:
        """One run."""
        return self._get(f"/runs/{to_path(run_id)}", Run)

    def run_log(self, run_id: str) -> str:
        """Why a run is in the state it is in, and the end of its log."""
        return self._request("GET", f"/runs/{to_path(run_id)}/log").text

    def run_adapter(self, run_id: str) -> Iterator[bytes]:
        """The run's adapter as a zip of a PEFT folder, in blocks."""
        return self._stream(f"/runs/{to_path(run_id)}/adapter")

    def curves(
        self,
        sweep: str | Sequence[str] | None = None,
        metric: str = "train_loss",
        *,
        points: int = 500,
        group_by: str = "run",
        from_step: int | None = None,
        run: str | Sequence[str] | None = None,
        metrics: Sequence[str] | None = None,
        **filters: Any,
    ) -> Curves:
        """One metric of many runs. ``group_by="cell"`` collapses seeds to mean ± std with n.

        ``metrics`` asks for several in place of ``metric``: names, or beginnings of names with ``*`` behind
        them. ``filters`` are those of ``runs`` (method, rank, alpha, lr, seed, state, diverged).
        """
        params = {
            "sweep": sweep,
            "run": run,
            "metric": None if metrics else metric,
            "metrics": metrics,
            "points": points,
            "group_by": group_by,
            "from_step": from_step,
            **filters,
        }
        return self._get("/curves", Curves, params)

    # Analysis

    # Each of these takes how runs are read, see ``ReadingQuery``.

    def metrics(self, sweep_id: str) -> SweepMetrics:
        """What α can be chosen by in a sweep, and what it is chosen by."""
        return self._get(f"/sweeps/{to_path(sweep_id)}/metrics", SweepMetrics)

    def cells(self, sweep_id: str, **reading: Unpack[ReadingQuery]) -> Cells:
        """Seeds taken together, one cell per method, rank, α and lr."""
        return self._get(f"/sweeps/{to_path(sweep_id)}/cells", Cells, reading)

    def law(self, sweep_id: str, *, target: Target = "alpha", **reading: Unpack[ReadingQuery]) -> Laws:
        """Optima and fitted laws of α, or of η with ``target="lr"``."""
        return self._get(f"/sweeps/{to_path(sweep_id)}/law", Laws, {"target": target, **reading})

    def bounded(
        self, sweep_id: str, *, max_forgetting: float, **reading: Unpack[ReadingQuery]
    ) -> BoundedOptima:
        """The best measured α of each rank whose forgetting stays within a bound."""
        params = {"max_forgetting": max_forgetting, **reading}
        return self._get(f"/sweeps/{to_path(sweep_id)}/bounded", BoundedOptima, params)

    def horizon(
        self,
        sweep_id: str,
        *,
        steps: Sequence[int] | None = None,
        fixed: float | None = None,
        target: Target = "alpha",
        **reading: Unpack[ReadingQuery],
    ) -> Horizons:
        """The law against the step: at up to 16 evaluations, or the last ones up to each of ``steps``.

        ``fixed`` asks only for laws at this η (at this α with ``target="lr"``); ``at_step`` ends the horizon.
        """
        params = {"steps": steps, "fixed": fixed, "target": target, **reading}
        return self._get(f"/sweeps/{to_path(sweep_id)}/horizon", Horizons, params)

    def equivalence(
        self, sweep_id: str, *, margin: float = MARGIN, **reading: Unpack[ReadingQuery]
    ) -> Equivalences:
        """Whether tuning α and tuning η reach the same loss."""
        params = {"margin": margin, **reading}
        return self._get(f"/sweeps/{to_path(sweep_id)}/equivalence", Equivalences, params)

    def collapse(self, sweep_id: str, **reading: Unpack[ReadingQuery]) -> Collapse:
        """Which coordinate lays the loss curves on each other."""
        return self._get(f"/sweeps/{to_path(sweep_id)}/collapse", Collapse, reading)

    def schedules(
        self, sweep_id: str, *, margin: float = MARGIN, **reading: Unpack[ReadingQuery]
    ) -> Schedules:
        """Whether any schedule of α beats the best constant α."""
        return self._get(f"/sweeps/{to_path(sweep_id)}/schedules", Schedules, {"margin": margin, **reading})

    def recommend(
        self,
        sweep: str,
        *,
        rank: int,
        lr: float | None = None,
        max_forgetting: float | None = None,
        **reading: Unpack[ReadingQuery],
    ) -> Advice:
        """Which α to use at ``rank``, with its interval, the cells behind it and a PEFT snippet."""
        params = {"sweep": sweep, "rank": rank, "lr": lr, "max_forgetting": max_forgetting, **reading}
        return self._get("/recommend", Advice, params)

    def export_csv(
        self,
        kind: CsvKind | str,
        sweep: str | Sequence[str] | None = None,
        *,
        max_forgetting: float | None = None,
        **reading: Unpack[ReadingQuery],
    ) -> Iterator[bytes]:
        """A complete CSV export in blocks as they arrive; of all sweeps unless some are named.

        ``max_forgetting`` adds to the optima the best α within that bound.
        """
        ids = sweep if sweep is None or isinstance(sweep, str) else ",".join(sweep)
        params = {"sweep": ids, "max_forgetting": max_forgetting, **reading}
        return self._stream(f"/export/{to_path(kind)}.csv", params)

    # Probes and inspections

    def create_probe(self, spec: ProbeSpec | Params) -> Probe:
        """Queue a Hessian probe."""
        return self._post("/probes", Probe, to_body(spec))

    def probes(
        self,
        *,
        sweep: str | None = None,
        run: str | None = None,
        state: str | None = None,
        kind: str | None = None,
        space: str | None = None,
        fresh: bool | None = None,
        cursor: str | None = None,
        limit: int = 200,
    ) -> Page[Probe]:
        """A page of probes, newest first; ``fresh`` ones belong to no sweep."""
        params = {
            "sweep": sweep,
            "run": run,
            "state": state,
            "kind": kind,
            "space": space,
            "fresh": fresh,
            "cursor": cursor,
            "limit": limit,
        }
        return self._get("/probes", Page[Probe], params)

    def probe(self, probe_id: str) -> Probe:
        """One probe."""
        return self._get(f"/probes/{to_path(probe_id)}", Probe)

    def curvature(self, sweep: str | None = None) -> Curvature:
        """Extremes and suppression of a sweep's finished probes, or of those at fresh points."""
        return self._get("/curvature", Curvature, {"sweep": sweep})

    def cancel_probe(self, probe_id: str) -> Probe:
        """Ask a probe to stop."""
        return self._post(f"/probes/{to_path(probe_id)}/cancel", Probe)

    def create_inspection(self, workload: str, workload_options: Params | None = None) -> Inspection:
        """Queue a check of a workload with these options."""
        request = InspectionRequest(workload=workload, workload_options=dict(workload_options or {}))
        return self._post("/inspections", Inspection, to_body(request))

    def inspection(self, inspection_id: str) -> Inspection:
        """One inspection."""
        return self._get(f"/inspections/{to_path(inspection_id)}", Inspection)

    # Runs trained elsewhere

    def ingest_run(self, request: IngestRun | Params) -> Run:
        """Register a run that is trained elsewhere."""
        return self._post("/ingest/runs", Run, to_body(request))

    def ingest_points(self, run_id: str, request: IngestPoints | Params) -> IngestReceipt:
        """Send points of an ingested run; sending them twice does no harm."""
        return self._post(f"/ingest/runs/{to_path(run_id)}/points", IngestReceipt, to_body(request))

    # The service itself

    def workers(self) -> Page[Worker]:
        """Worker processes."""
        return self._get("/workers", Page[Worker])

    def health(self) -> Health:
        """Whether database, broker and workers are there."""
        return self._get("/health", Health)

    def workloads(self) -> Page[WorkloadItem]:
        """What can be trained."""
        return self._get("/workloads", Page[WorkloadItem])

    def methods(self) -> Page[MethodItem]:
        """How it can be trained."""
        return self._get("/methods", Page[MethodItem])

    def presets(self) -> Page[PresetItem]:
        """Sweeps that are ready to run."""
        return self._get("/presets", Page[PresetItem])

    def views(self) -> Page[SavedView]:
        """Saved views."""
        return self._get("/views", Page[SavedView])

    def save_view(self, name: str, address: str) -> SavedView:
        """Save a page address under a name."""
        return self._post("/views", SavedView, to_body(ViewRequest(name=name, address=address)))

    def delete_view(self, view_id: str) -> None:
        """Forget a saved view."""
        self._request("DELETE", f"/views/{to_path(view_id)}")

    def _get(self, path: str, model: type[Model], params: Params | None = None) -> Model:
        return self._model(self._request("GET", path, params=params), model)

    def _post(
        self,
        path: str,
        model: type[Model],
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Model:
        return self._model(self._request("POST", path, json=body, headers=headers), model)

    def _request(
        self,
        verb: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        try:
            response = self._http.request(verb, path, params=to_query(params), json=json, headers=headers)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            raise read_error(response)
        return response

    def _model(self, response: httpx.Response, model: type[Model]) -> Model:
        try:
            answer: Model = _adapter(model).validate_json(response.content)
            return answer
        except ValidationError as error:
            raise LoraAlphaError(
                f"{response.request.url} did not answer in the format of this version: "
                "is it another service, or another version of it?"
            ) from error

    def _stream(self, path: str, params: Params | None = None) -> Iterator[bytes]:
        try:
            with self._http.stream("GET", path, params=to_query(params)) as response:
                if response.is_error:
                    response.read()
                    raise read_error(response)
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.TransportError) -> ServiceUnreachable:
        kind = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
        return ServiceUnreachable(
            f"the service at {self.base_url} {kind} ({error or type(error).__name__}). "
            "Is it running? Start it with 'lora-alpha up', or name another address."
        )


# What reads a model, or a dataclass; making one takes a millisecond.
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
