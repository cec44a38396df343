"""The demo: two sweeps through the public API, each to a fitted law, printed and exported."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from command_line.progress import follow
from command_line.remote import write_csv_folder
from lora_alpha.request import SweepRequest
from lora_alpha.spec import Configuration
from lora_alpha.wire.analysis import WITHIN_BASIN, Law, Laws, RuleCost
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import ExtendRequest, Sweep

DEMO_SWEEPS = (
    SweepRequest(name="Demo: synthetic flagship", workload="mlp", tags=["demo"]),
    SweepRequest(name="Demo: handwritten digits", workload="digits", tags=["demo"]),
)


def run_demo(address: str, *, out: Path | None) -> int:
    """Submit the demo's sweeps to the service at ``address`` and print what they say.

    A demo that was interrupted goes on where it stopped, and one that is done is shown again: the sweeps
    carry an idempotency key made of their body.

    Returns:
        0 if every sweep finished, 1 otherwise.
    """
    console = Console()
    started = time.monotonic()
    with Client(address, token=os.environ.get("LORA_ALPHA_TOKEN")) as client:
        sweeps = [client.create_sweep(request, idempotency_key=_key(request)) for request in DEMO_SWEEPS]
        ids = [sweep.id for sweep in sweeps]
        follow(client, ids, console=console)
        for sweep_id in ids:
            _run_missing_rules(client, sweep_id)
        sweeps = follow(client, ids, console=console)
        for sweep in sweeps:
            print_law(client.law(sweep.id), sweep, console)
        if out is not None:
            write_csv_folder(client, out, sweeps=ids)
            console.print(f"CSV files: [bold]{out}[/bold]")
    console.print(f"\nDone in {time.monotonic() - started:.0f} s. Dashboard: [bold]{address}[/bold]")
    return 0 if all(sweep.state == "finished" for sweep in sweeps) else 1


def print_law(laws: Laws, sweep: Sweep, console: Console) -> None:
    """Optima, law and cost of the common rules, as tables and sentences."""
    console.rule(f"{sweep.name}: {sweep.counts.finished} runs of {sweep.workload}")
    console.print(f"[dim]metric: {sweep.metric_label}[/dim]")
    for law in laws.laws:
        console.print(_optima_table(law))
        console.print(_law_sentence(law, laws.steps))
        if law.rules:
            console.print(_rule_table(law))
    for line in [*laws.reasons, *laws.warnings]:
        console.print(f"[yellow]{line}[/yellow]")


def _optima_table(law: Law) -> Table:
    table = Table(title=f"Best α per rank at η = {law.lr:g} ({law.method})" if law.lr else law.method)
    for heading in ("rank", "α*", "95 % interval", "scale s*", WITHIN_BASIN, "octaves", "loss", ""):
        table.add_column(heading, justify="right")
    for optimum in law.optima:
        low, high = "≤" if optimum.basin_open_low else "", "≥" if optimum.basin_open_high else ""
        table.add_row(
            str(optimum.rank),
            f"{optimum.value:.0f}",
            _interval(optimum.low, optimum.high, digits=0),
            f"{optimum.scale:.3g}" if optimum.scale else "",
            f"{low}{optimum.basin_low:.0f} to {high}{optimum.basin_high:.0f}",
            f"{optimum.basin_octaves:.1f}",
            f"{optimum.loss:.4f}",
            optimum.censored.replace("_", " "),
        )
    return table


def _law_sentence(law: Law, steps: int | None) -> str:
    fit = law.fit
    if fit is None:
        return f"[yellow]{law.verdict}[/yellow]"
    exponent = _interval(fit.exponent_low, fit.exponent_high, digits=3)
    coefficient = _interval(fit.coefficient_low, fit.coefficient_high, digits=0)
    return (
        f"After {steps} steps α* = C·r^p with p = [bold]{fit.exponent:.3f}[/bold] (95 %: {exponent}), "
        f"C = [bold]{fit.coefficient:.0f}[/bold] (95 %: {coefficient})\n"
        f"from {law.num_ranks} ranks and {law.num_seeds} seeds; {law.num_censored} optima censored, "
        f"{law.num_diverged} runs diverged\n{law.verdict}"
    )


def _rule_table(law: Law) -> Table:
    rules = list(dict.fromkeys(cost.rule for cost in law.rules))
    ranks = sorted({cost.rank for cost in law.rules})
    costs = {(cost.rule, cost.rank): cost for cost in law.rules}
    table = Table(title=f"Cost of common rules: above the best measured α, {law.rules[0].share_of}")
    table.add_column("rule")
    for rank in ranks:
        table.add_column(f"r = {rank}", justify="right")
    for rule in rules:
        table.add_row(rule, *(_cost(costs.get((rule, rank))) for rank in ranks))
    return table


def _cost(cost: RuleCost | None) -> str:
    if cost is None or not cost.measured:
        return "not run"
    if cost.diverged or cost.excess is None:
        return "diverged"
    return f"{cost.excess:+.3g}" if cost.cost is None else f"{cost.cost:+.1%}"


def _run_missing_rules(client: Client, sweep_id: str) -> None:
    """Add the cells that the rules ask for and the grid lacks: costs are measured, never extrapolated."""
    seeds: Sequence[int] = client.sweep(sweep_id).spec["seeds"]
    cells = [
        Configuration(method=law.method, rank=cost.rank, alpha=cost.alpha, lr=law.lr, seed=seed)
        for law in client.law(sweep_id).laws
        if law.lr is not None
        for cost in law.rules
        if not cost.measured
        for seed in seeds
    ]
    if cells:
        client.extend_sweep(sweep_id, ExtendRequest(cells=cells))


def _interval(low: float | None, high: float | None, *, digits: int) -> str:
    if low is None or high is None:
        return "no interval"
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _key(request: SweepRequest) -> str:
    return "demo-" + hashlib.sha256(request.model_dump_json().encode()).hexdigest()[:24]
