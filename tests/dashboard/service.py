"""A service in a dictionary: the answers that pages ask for, and a note of every request."""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx

from lora_alpha.wire.client import Client

SPEC: dict[str, Any] = {
    "methods": ["lora"],
    "ranks": [1, 4, 16],
    "alphas": [16.0, 64.0],
    "lrs": [2e-4, 8e-4],
    "seeds": [0, 1, 2],
    "cells": [],
    "train": {"steps": 100, "dynamics_every": 10, "adapter_steps": [50]},
    "probes": {"at": ["init"]},
}
SWEEP: dict[str, Any] = {
    "id": "s1",
    "name": "mlp",
    "state": "running",
    "workload": "mlp",
    "created_at": "2026-01-01T00:00:00Z",
    "counts": {"running": 4, "finished": 8, "total": 12},
    "progress": 0.5,
    "spec": SPEC,
    "metric_label": "held-out MSE",
    "actions": ["pause", "stop", "cancel", "extend"],
}
RUN: dict[str, Any] = {
    "id": "r1",
    "sweep_id": "s1",
    "name": "r4-a16-lr2e-4-s0",
    "state": "finished",
    "workload": "mlp",
    "method": "lora",
    "rank": 4,
    "alpha": 16.0,
    "scale": 4.0,
    "lr": 2e-4,
    "seed": 0,
    "steps": 100,
}
LOSS = {"name": "eval_loss", "goal": "min", "unit": "nats", "has_zero": True}
ACCURACY = {"name": "accuracy", "goal": "max", "has_zero": True}
METRICS = {"sweep_id": "s1", "metric": LOSS, "metrics": [LOSS, ACCURACY], "unclear": []}
ANSWER = {"sweep_id": "s1", "objective": "final"}


def labels(alpha: float) -> dict[str, Any]:
    where = {"method": "lora", "rank": 4, "alpha": alpha, "scale": alpha / 4, "lr": 2e-4, "lr_ratio": 1.0}
    return {**where, "alpha_schedule": "constant"}


def curve(metric: str, alpha: float = 16.0, value: float = 0.5) -> dict[str, Any]:
    return {
        "key": f"lora-{alpha}",
        "run_ids": ["r1"],
        "labels": labels(alpha),
        "step": [0, 100],
        "value": [1.0, value],
        "metric": metric,
    }


def cell(alpha: float, lr: float, mean: float) -> dict[str, Any]:
    where = {"method": "lora", "rank": 4, "alpha": alpha, "scale": alpha / 4, "lr": lr}
    spread = {"std": 0.01, "ci_low": mean - 0.01, "ci_high": mean + 0.01}
    return {**where, "n": 3, "mean": mean, **spread, "num_diverged": 0, "num_failed": 0}


def optimum(lr: float) -> dict[str, Any]:
    basin = {"basin_low": 32.0, "basin_high": 64.0, "basin_open_low": False, "basin_open_high": True}
    nothing = dict.fromkeys(("low", "high", "scale", "alpha", "bound_low", "bound_high"))
    known = {"method": "lora", "rank": 4, "lr": lr, "lr_ratio": 1.0, "target": "alpha", "value": 64.0}
    counts = {"basin_octaves": 1.0, "loss": 0.4, "num_seeds": 3, "num_diverged": 0, "censored": "high_edge"}
    return {**nothing, **known, **basin, **counts}


def law(lr: float) -> dict[str, Any]:
    counts = {"num_ranks": 1, "num_censored": 1, "num_seeds": 3, "num_diverged": 0, "num_excluded": 0}
    lists = {"optima": [optimum(lr)], "models": [], "rules": [], "rivals": [], "reasons": []}
    nothing = {"fit": None, "fit_uncensored": None, "band": None, "alpha": None}
    known = {"method": "lora", "lr": lr, "lr_ratio": 1.0, "target": "alpha", "verdict": "No law."}
    return {**known, **nothing, **lists, **counts}


ROUTE: dict[str, Any] = {
    "method": "lora",
    "rank": 4,
    "base_alpha": 16.0,
    "base_lr": 2e-4,
    "best_alpha": 64.0,
    "best_lr": None,
    "loss_alpha_route": 0.4,
    "loss_lr_route": None,
    "diverged_alpha_route": 0,
    "diverged_lr_route": 0,
    "difference": None,
    "low": None,
    "high": None,
    "margin": 0.02,
    "num_seeds": 3,
    "verdict": "not_enough_data",
    "reason": "one learning rate",
}
SCHEDULE: dict[str, Any] = {
    "method": "lora",
    "rank": 4,
    "lr": 2e-4,
    "lr_ratio": 1.0,
    "alpha_schedule": "ramp 0.1→1 in 20",
    "best_alpha": 64.0,
    "loss": 0.4,
    "constant_alpha": 64.0,
    "constant_loss": 0.41,
    "num_alphas": 2,
    "num_diverged": 0,
    "difference": -0.02,
    "low": -0.05,
    "high": 0.01,
    "num_seeds": 3,
    "verdict": "undecided",
    "reason": "",
}
CELLS = [cell(16.0, 2e-4, 0.5), cell(64.0, 2e-4, 0.4), cell(16.0, 8e-4, 0.45)]
WORKLOAD: dict[str, Any] = {
    "id": "mlp",
    "name": "mlp",
    "family": "synthetic",
    "title": "MLP",
    "summary": "",
    "regime": "",
    "metric": "held-out MSE",
    "forgetting": "",
    "options_schema": {"properties": {}},
    "defaults": {"methods": ["lora"], "ranks": [1], "alphas": [8.0], "lrs": [1e-3], "seeds": [0]},
}
PROBE: dict[str, Any] = {
    "id": "p1",
    "state": "queued",
    "sweep_id": "s1",
    "kind": "extremes",
    "space": "lora",
    "spec": {},
    "created_at": "2026-01-01T00:00:00Z",
}
WORKER: dict[str, Any] = {
    "id": "w1",
    "host": "here",
    "pid": 1,
    "device": "cpu",
    "state": "idle",
    "heartbeat": "2026-01-01T00:00:00Z",
    "started_at": "2026-01-01T00:00:00Z",
}
VIEW = {"id": "v1", "name": "mine", "address": "/sweep/s1", "created_at": "2026-01-01T00:00:00Z"}
PRESET: dict[str, Any] = {
    "id": "p",
    "name": "p",
    "title": "P",
    "question": "?",
    "expect": "!",
    "page": "dynamics",
    "needs": [],
    "request": {"workload": "mlp"},
}


def page(*items: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(items), "next": None}


def answers() -> dict[str, Any]:
    """Path below /api → answer."""
    return {
        "/sweeps": page(SWEEP, {**SWEEP, "id": "s2", "name": "another", "state": "finished"}),
        "/sweeps/s1": SWEEP,
        "/sweeps/s2": {**SWEEP, "id": "s2", "name": "another", "state": "finished", "actions": ["delete"]},
        "/sweeps/s1/cells": {**ANSWER, "cells": CELLS},
        "/sweeps/s2/cells": {**ANSWER, "cells": CELLS},
        "/sweeps/s1/metrics": METRICS,
        "/sweeps/s2/metrics": METRICS,
        "/sweeps/s1/law": {
            **ANSWER,
            "laws": [law(2e-4), law(8e-4)],
            "rules": [{"name": "α = 2r", "coefficient": 2.0, "exponent": 1.0}],
        },
        "/sweeps/s1/equivalence": {
            **ANSWER,
            "margin": 0.02,
            "verdict": "not_enough_data",
            "items": [ROUTE],
        },
        "/sweeps/s1/collapse": {**ANSWER, "verdict": "not_enough_data", "items": []},
        "/sweeps/s1/schedules": {**ANSWER, "margin": 0.02, "verdict": "Undecided.", "items": [SCHEDULE]},
        "/recommend": {
            "sweep_id": "s1",
            "method": "lora",
            "rank": 4,
            "lr": 2e-4,
            "alpha": 64.0,
            "scale": 16.0,
            **dict.fromkeys(("alpha_low", "alpha_high", "basin_low", "basin_high", "expected_loss")),
            "basis": "measured",
            "warnings": [],
            "snippet": "LoraConfig(r=4)",
            "num_supporting_runs": 3,
            "supporting_cells": [],
        },
        "/curves": {
            "metric": "eval_loss",
            "metrics": ["drift_ratio/0", "drift_ratio/1", "eval_loss", "train_loss"],
            "curves": [
                curve(metric, alpha)
                for metric in ("eval_loss", "drift_ratio/0", "drift_ratio/1")
                for alpha in (16.0, 64.0)
            ],
            "last_step": 100,
        },
        "/curvature": {
            "sweep_id": "s1",
            "points": [],
            "suppression": [],
            "rates": [],
            "rate_exponent": None,
            "num_unfinished": 1,
            "num_failed": 0,
        },
        "/probes": page(PROBE, {**PROBE, "id": "p2"}),
        "/runs": page(RUN),
        "/workloads": page(WORKLOAD),
        "/methods": page({"id": "lora", "name": "lora", "summary": "", "uses_rank": True}),
        "/presets": page(PRESET, {**PRESET, "id": "q"}),
        "/views": page(VIEW, {**VIEW, "id": "v2"}),
        "/workers": page(WORKER),
        "/health": {
            "state": "ok",
            "version": "0",
            "database": "sqlite",
            "broker": "file",
            "num_workers": 1,
            "num_queued_jobs": 0,
        },
    }


class FakeService(httpx.BaseTransport):
    """Answers from ``self.answers``; ``self.requests`` are all that came, ``counted`` by path."""

    def __init__(self) -> None:
        self.answers = answers()
        self.requests: list[httpx.Request] = []
        self.gone = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.gone:
            raise httpx.ConnectError("nobody is there", request=request)
        found = self.answers.get(request.url.path.removeprefix("/api"))
        if found is None:
            return httpx.Response(404, json={"title": "not found", "status": 404}, request=request)
        if "fresh" in request.url.params:
            found = page({**PROBE, "id": "p3", "sweep_id": None})
        if "metrics" in request.url.params:
            start = request.url.params["metrics"].removesuffix("*")
            found = found | {"curves": [c for c in found["curves"] if c["metric"].startswith(start)]}
        return httpx.Response(200, json=found, request=request)

    def client(self) -> Client:
        return Client("http://lab.example:8050", transport=self)

    def counted(self) -> Counter[str]:
        counts = Counter(request.url.path.removeprefix("/api") for request in self.requests)
        self.requests.clear()
        return counts
