"""What α is chosen by: any recorded metric, with its direction; steps to a target; a bound on forgetting."""

from __future__ import annotations

import csv
import io
import itertools
import math
from typing import Any

import pytest
from starlette.testclient import TestClient

from backend.store.engines import Store
from backend.store.metrics import append_points
from backend.store.tables import RunRow
from lora_alpha.errors import InvalidSpec
from lora_alpha.request import SweepRequest
from lora_alpha.spec import Configuration
from lora_alpha.wire.client import Client

NOW = 1_800_000_000.0
RANKS, LRS, SEEDS = (1, 4, 16), (1e-4, 4e-4), (0, 1)
ALPHAS = tuple(2.0**k for k in range(4, 12))
# One surface under three names: what is recorded for a loss, and which way is better.
AS = {
    "eval_loss": lambda loss: loss,
    "accuracy": lambda loss: 1 - loss,
    "reward": lambda loss: 5 - loss,
}


def planted(rank: int, alpha: float, lr: float, seed: int) -> float:
    """Lowest at α·η = 0.02·√r; values in (0, 1), so that they are accuracies, too."""
    away = math.log2(alpha * lr / (0.02 * rank**0.5))
    return 0.2 + 0.01 * away**2 + 0.002 * seed + 0.001 * math.sin(5 * seed + away)


def ingest(client: Client, store: Store, metric: str) -> str:
    """A sweep of the planted surface: one run is told to the service, the others are stored beside it."""
    first = client.ingest_run({"sweep_name": metric, "rank": 1, "alpha": 1, "lr": 1e-4, "steps": 10})
    grid = itertools.product(RANKS, LRS, ALPHAS, SEEDS)
    with store.write() as session:
        row = session.get_one(RunRow, first.id)
        for position, (rank, lr, alpha, seed) in enumerate(grid):
            value = AS[metric](planted(rank, alpha, lr, seed))
            loss = value if metric == "eval_loss" else None
            fields = {"rank": rank, "alpha": alpha, "lr": lr, "seed": seed, "method": "lora"}
            session.add(
                RunRow(
                    **fields, id=f"{metric}-{position}", sweep_id=first.sweep_id, position=position + 1,
                    name="", state="finished", workload="external", scale=alpha / rank, steps=10, created=NOW,
                    configuration=fields, final_loss=loss, best_loss=loss, summary={metric: value},
                )
            )  # fmt: skip
        session.delete(row)
    return first.sweep_id


@pytest.fixture
def three(client: Client, store: Store) -> dict[str, str]:
    """The planted surface as a loss, as an accuracy and as a reward."""
    return {metric: ingest(client, store, metric) for metric in AS}


def test_a_loss_an_accuracy_and_a_reward_of_one_surface_give_the_same_answers(
    three: dict[str, str], client: Client
) -> None:
    losses = three["eval_loss"]
    law = client.law(losses)
    assert (law.metric.name, law.metric.goal) == ("eval_loss", "min")
    assert len(law.laws) == len(LRS)
    assert not any(optimum.censored for item in law.laws[1:2] for optimum in item.optima)
    for metric in ("accuracy", "reward"):
        found = client.law(three[metric])
        assert (found.metric.name, found.metric.goal) == (metric, "max")
        for mine, theirs in zip(found.laws, law.laws, strict=True):
            assert [o.censored for o in mine.optima] == [o.censored for o in theirs.optima]
            assert [o.value for o in mine.optima] == pytest.approx([o.value for o in theirs.optima], rel=0.01)
            assert [AS[metric](o.loss) for o in theirs.optima] == pytest.approx([o.loss for o in mine.optima])
        advised = client.recommend(three[metric], rank=4, lr=4e-4)
        assert advised.alpha == pytest.approx(client.recommend(losses, rank=4, lr=4e-4).alpha, rel=0.02)
        assert advised.metric.name == metric


def test_they_give_the_same_verdicts(three: dict[str, str], client: Client) -> None:
    routes, collapse = client.equivalence(three["eval_loss"]), client.collapse(three["eval_loss"])
    for metric in ("accuracy", "reward"):
        found = client.equivalence(three[metric])
        assert [item.verdict for item in found.items] == [item.verdict for item in routes.items]
        assert client.collapse(three[metric]).verdict == collapse.verdict


def test_the_three_are_sorted_best_first_in_the_same_order(three: dict[str, str], client: Client) -> None:
    losses = [run.final_loss for run in client.runs(three["eval_loss"], sort="final_loss", limit=1000).items]
    for metric in ("accuracy", "reward"):
        page = client.runs(three[metric], sort=f"-{metric}", limit=100)
        found = page.items
        while page.next:
            page = client.runs(three[metric], sort=f"-{metric}", limit=100, cursor=page.next)
            found += page.items
        assert len({run.id for run in found}) == len(found) == 96
        assert [run.summary[metric] for run in found] == pytest.approx([AS[metric](loss) for loss in losses])


def test_a_sort_by_what_no_run_holds_is_refused(three: dict[str, str], client: Client) -> None:
    with pytest.raises(InvalidSpec, match="sort: got '-colour': choose one of"):
        client.runs(three["reward"], sort="-colour")
    assert len(client.runs(three["reward"], sort="-bleu", limit=1000).items) == 96


def csv_rows(client: Client, kind: str, sweep: str, **reading: Any) -> list[dict[str, str]]:
    text = b"".join(client.export_csv(kind, sweep, **reading)).decode()
    return list(csv.DictReader(io.StringIO(text)))


def test_csvs_say_metric_goal_and_unit(three: dict[str, str], client: Client) -> None:
    for kind, metric, *said in (
        ("runs", "eval_loss", "min", "nats"),
        ("cells", "reward", "max", ""),
        ("optima", "reward", "max", ""),
        ("law", "eval_loss", "min", "nats"),
    ):
        rows = csv_rows(client, kind, three[metric])
        assert {(row["metric"], row["goal"], row["unit"]) for row in rows} == {(metric, *said)}
    assert float(csv_rows(client, "runs", three["reward"])[0]["value"]) > 4


def test_a_metric_that_is_not_recorded_or_has_no_direction_is_refused(
    three: dict[str, str], client: Client
) -> None:
    with pytest.raises(InvalidSpec, match=r"metric: got 'acuracy'.*recorded accuracy"):
        client.cells(three["accuracy"], metric="acuracy")
    with pytest.raises(InvalidSpec, match="metric: got 'acuracy'"):
        list(client.export_csv("cells", three["accuracy"], metric="acuracy"))
    run = client.ingest_run({"rank": 4, "alpha": 8, "lr": 1e-4, "steps": 3})
    client.ingest_points(run.id, {"state": "finished", "summary": {"zest": 3.0, "eval/bleu": 0.5}})
    with pytest.raises(InvalidSpec, match="goal: whether lower or higher 'zest' is better is unknown: pass"):
        client.cells(run.sweep_id, metric="zest")
    (cell,) = client.cells(run.sweep_id, metric="zest", goal="max").cells
    assert (cell.mean, cell.metric.goal_from) == (3.0, "given")
    guessed = client.cells(run.sweep_id)
    assert (guessed.metric.name, guessed.metric.goal, guessed.cells[0].mean) == ("eval/bleu", "max", 0.5)
    assert guessed.notes == [
        "No run of this sweep has recorded eval_loss: α is chosen by eval/bleu.",
        "By its name eval/bleu is taken for a metric where higher is better: goal overrules it.",
    ]
    metrics = client.metrics(run.sweep_id)
    assert ([m.name for m in metrics.metrics], metrics.unclear) == (["eval/bleu"], ["zest"])


def test_best_on_the_way_follows_the_direction(client: Client) -> None:
    run = client.ingest_run({"rank": 4, "alpha": 8, "lr": 1e-4, "steps": 30})
    series = [{"metric": "accuracy", "steps": [10, 20, 30], "values": [0.5, 0.9, 0.7]}]
    client.ingest_points(run.id, {"state": "finished", "series": series})

    def mean(**reading: Any) -> float | None:
        (cell,) = client.cells(run.sweep_id, **reading).cells
        return cell.mean

    assert (mean(), mean(objective="best"), mean(objective="best", goal="min")) == (0.7, 0.9, 0.5)
    assert (mean(at_step=10), mean(at_step=25), mean(at_step=25, objective="best")) == (0.5, 0.9, 0.9)
    assert mean(at_step=31) is None
    (cell,) = client.cells(run.sweep_id, at_step=31).cells
    assert (cell.num_unrecorded, cell.num_diverged) == (1, 0)


def test_a_curve_that_ends_in_nan_has_diverged_whatever_the_metric(client: Client) -> None:
    run = client.ingest_run({"rank": 4, "alpha": 8, "lr": 1e-4, "steps": 30})
    series = [{"metric": "accuracy", "steps": [10, 20], "values": [0.5, None]}]
    client.ingest_points(run.id, {"state": "finished", "series": series})
    (cell,) = client.cells(run.sweep_id).cells
    assert (cell.mean, cell.num_diverged, cell.num_unrecorded) == (None, 1, 0)


@pytest.fixture
def timed(client: Client) -> str:
    """At α = 8, 16, 32 the loss 1 is reached at 20, at 15, by one seed of two only; at α = 64 it diverges."""
    curves = {
        (8, 0): [3, 2, 1], (8, 1): [3, 2, 1],
        (16, 0): [3, 1.5, 0.5], (16, 1): [3, 1.5, 0.5],
        (32, 0): [3, 0.5, 0.4], (32, 1): [3, 1.4, 1.2],
        (64, 0): [3, 4, None], (64, 1): [3, 0.9, None],
    }  # fmt: skip
    for (alpha, seed), values in curves.items():
        fields = {"rank": 4, "alpha": alpha, "lr": 1e-4, "seed": seed, "steps": 20}
        run = client.ingest_run({**fields, "sweep_name": "timed"})
        series = [{"metric": "eval_loss", "steps": [0, 10, 20], "values": values}]
        client.ingest_points(run.id, {"state": "finished", "series": series})
    return run.sweep_id


def test_steps_to_a_target_are_a_metric_and_a_run_that_never_got_there_is_not_the_best(
    timed: str, client: Client
) -> None:
    read = client.cells(timed, steps_to=1.0)
    assert (read.metric.name, read.metric.goal, read.metric.unit) == (
        "steps to eval_loss ≤ 1",
        "min",
        "steps",
    )
    by_alpha = {cell.alpha: cell for cell in read.cells}
    assert by_alpha[8].losses == {0: 20.0, 1: 20.0}
    assert by_alpha[16].losses == {0: 15.0, 1: 15.0}, "between two evaluations, on a straight line"
    assert by_alpha[32].losses == {0: 8.0}
    assert (by_alpha[32].num_unreached, by_alpha[32].measured, by_alpha[32].tried) == (1, False, True)
    assert by_alpha[64].losses == {1: pytest.approx(200 / 21, rel=1e-6)}, "it was there before it diverged"
    assert (by_alpha[64].num_diverged, by_alpha[64].num_unreached) == (1, 0)
    ((optimum,),) = [law.optima for law in client.law(timed, steps_to=1.0).laws]
    assert (optimum.loss, optimum.censored) == (15.0, "cliff")
    rows = csv_rows(client, "runs", timed, steps_to=1.0)
    assert [(row["value"], row["status"]) for row in rows if row["alpha"] == "32.0"] == [
        ("8.0", "finished"),
        ("", "unreached"),
    ]
    (cell,) = [row for row in csv_rows(client, "cells", timed, steps_to=1.0) if row["alpha"] == "32.0"]
    assert (cell["num_unreached"], cell["steps_to"]) == ("1", "1.0")


def test_steps_to_and_at_step_exclude_each_other(timed: str, http: TestClient) -> None:
    answer = http.get(f"/api/sweeps/{timed}/cells", params={"steps_to": 1, "at_step": 3})
    assert answer.status_code == 422
    assert "give one of them" in answer.text


def test_a_run_on_its_way_to_a_target_is_waited_for(client: Client) -> None:
    run = client.ingest_run({"rank": 4, "alpha": 8, "lr": 1e-4, "steps": 30})
    series = [{"metric": "eval_loss", "steps": [0, 10], "values": [3, 2]}]
    client.ingest_points(run.id, {"series": series})
    (cell,) = client.cells(run.sweep_id, steps_to=1).cells
    assert (cell.num_pending, cell.num_unreached) == (1, 0)
    (cell,) = client.cells(run.sweep_id, steps_to=2.5).cells
    assert (cell.mean, cell.num_pending) == (5.0, 0)


def test_runs_with_another_loss_are_not_mixed_with_held_out_ones(client: Client) -> None:
    for seed, metric in ((0, "eval_loss"), (1, "train_loss")):
        run = client.ingest_run({"rank": 4, "alpha": 8, "lr": 1e-4, "seed": seed, "steps": 30})
        series = [{"metric": metric, "steps": [0, 10], "values": [3, 2]}]
        client.ingest_points(run.id, {"state": "finished", "series": series})
    (cell,) = client.cells(run.sweep_id).cells
    assert (cell.losses, cell.num_unrecorded) == ({0: 2.0}, 1)
    (cell,) = client.cells(run.sweep_id, metric="train_loss").cells
    assert (cell.losses, cell.num_unrecorded) == ({1: 2.0}, 1)


def test_a_sweep_of_training_losses_alone_says_that_it_is_read_by_them(client: Client) -> None:
    run = client.ingest_run({"rank": 4, "alpha": 8, "lr": 1e-4, "steps": 30})
    series = [{"metric": "train_loss", "steps": [0, 10], "values": [3, 2]}]
    client.ingest_points(run.id, {"state": "finished", "series": series})
    read = client.cells(run.sweep_id)
    assert (read.metric.name, read.cells[0].mean) == ("train_loss", 2.0)
    assert "α is chosen by train_loss" in read.notes[0]


def test_an_ingested_run_may_say_what_the_sweep_is_chosen_by(client: Client) -> None:
    fields = {"rank": 4, "alpha": 8, "lr": 1e-4, "steps": 30}
    run = client.ingest_run({**fields, "metric": "zest", "goal": "max"})
    client.ingest_points(run.id, {"state": "finished", "summary": {"zest": 1.0, "eval_loss": 2.0}})
    read = client.cells(run.sweep_id)
    assert (read.metric.name, read.metric.goal, read.cells[0].mean) == ("zest", "max", 1.0)
    with pytest.raises(InvalidSpec, match="pass goal"):
        client.ingest_run({**fields, "metric": "zest"})


def test_a_search_follows_the_metric_of_its_sweep(client: Client, store: Store, worker: Any) -> None:
    """The loss is lowest at α = 32, the accuracy highest at 512: the search must refine around 512."""

    def loss(c: Configuration) -> float:
        return 1 + 0.1 * math.log2((c.alpha or 1) / 32) ** 2

    sweep = client.create_sweep(
        SweepRequest(
            workload="mlp", ranks=[4], alphas=[2.0**k for k in range(3, 12)], seeds=[0], steps=50,
            search={"kind": "adaptive"}, metric="accuracy",
        )
    )  # fmt: skip
    assert (sweep.spec["metric"], sweep.spec["goal"]) == ("accuracy", "max")
    while True:
        while (job := worker.claim()) is not None:
            worker.finish(job, loss)
            with store.write() as session:
                for spec in job.spec["runs"]:
                    alpha = spec["configuration"]["alpha"]
                    value = 0.9 - 0.05 * math.log2(alpha / 512) ** 2
                    append_points(
                        session, spec["id"], "accuracy", steps=[50], values=[value], token=1, now=NOW
                    )
        if not worker.refine():
            break
    tried = sorted(run.alpha or 0.0 for run in client.all_runs(sweep.id))
    assert [alpha for alpha in tried if 300 < alpha < 800] == pytest.approx([362.039, 512, 724.077])
    assert [alpha for alpha in tried if 20 < alpha < 100] == [32.0]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"metric": "zest"}, "goal: whether lower or higher 'zest'"),
        ({"goal": "max"}, "goal: is about a metric"),
    ],
)
def test_a_sweep_cannot_be_chosen_by_what_has_no_direction(
    given: dict[str, str], complaint: str, client: Client
) -> None:
    with pytest.raises(InvalidSpec, match=complaint):
        client.create_sweep({"workload": "mlp", "ranks": [4], **given})


@pytest.fixture
def forgetful(client: Client) -> str:
    """Loss 1, 0.8, 0.7, 0.75 and forgetting 0.1, 0.2, 0.4, 0.6 at α = 16 … 128; at η = 2e-4 it is unknown."""
    for lr in (1e-4, 2e-4):
        for alpha, loss, kept in ((16, 1.0, 0.1), (32, 0.8, 0.2), (64, 0.7, 0.4), (128, 0.75, 0.6)):
            for seed in (0, 1):
                fields = {"rank": 4, "alpha": alpha, "lr": lr, "seed": seed, "steps": 20, "sweep_name": "f"}
                run = client.ingest_run(fields)
                forgot = {"forgetting": kept + 0.01 * seed} if lr == 1e-4 else {}
                client.ingest_points(run.id, {"state": "finished", "final_loss": loss, **forgot})
    return run.sweep_id


def test_alpha_under_a_bound_on_forgetting(forgetful: str, client: Client) -> None:
    known, unknown = client.bounded(forgetful, max_forgetting=0.3).items
    assert (known.alpha, known.free_alpha, known.value) == (32.0, 64.0, 0.8)
    assert known.price == pytest.approx(0.1)
    assert (known.num_obeying, known.num_exceeding, known.num_unknown) == (2, 2, 0)
    assert known.boundary_high == pytest.approx(32 * 2 ** ((0.3 - 0.205) / 0.2))
    assert known.boundary_low is None
    assert (unknown.alpha, unknown.num_unknown) == (None, 4)
    assert "not recorded" in unknown.reason
    assert client.recommend(forgetful, rank=4, lr=1e-4, max_forgetting=0.3).bounded == known
    rows = csv_rows(client, "optima", forgetful, max_forgetting=0.3)
    first = next(row for row in rows if row["target"] == "alpha" and row["lr"] == "0.0001")
    assert (first["bounded_alpha"], first["max_forgetting"]) == ("32.0", "0.3")
    assert float(first["bounded_boundary_high"]) == known.boundary_high


def test_a_bound_that_nothing_keeps_and_one_that_costs_nothing(forgetful: str, client: Client) -> None:
    tight = client.bounded(forgetful, max_forgetting=0.05).items[0]
    assert (tight.alpha, tight.reason) == (None, "no measured α keeps forgetting ≤ 0.05; try smaller α")
    loose = client.bounded(forgetful, max_forgetting=9).items[0]
    assert (loose.alpha, loose.price, loose.boundary_high) == (64.0, 0.0, None)


def test_where_forgetting_is_not_recorded_it_says_so(three: dict[str, str], client: Client) -> None:
    answer = client.bounded(three["accuracy"], max_forgetting=1)
    assert answer.items == []
    assert answer.reasons == ["forgetting was not recorded in this sweep: record forgetting_loss to bound it"]


def test_forgetting_can_be_what_alpha_is_chosen_by(forgetful: str, client: Client) -> None:
    read = client.cells(forgetful, metric="forgetting_loss")
    known = [cell for cell in read.cells if cell.lr == 1e-4]
    assert [cell.mean for cell in known] == pytest.approx([0.105, 0.205, 0.405, 0.605])
    assert all(cell.num_unrecorded == 2 for cell in read.cells if cell.lr == 2e-4)


def test_runs_of_before_are_read_as_before(client: Client, store: Store, worker: Any) -> None:
    sweep = client.create_sweep({"workload": "mlp", "ranks": [4], "alphas": [16, 64], "seeds": [0, 1]})
    worker.work()
    read = client.cells(sweep.id)
    assert (read.metric.unit, read.notes) == ("of the base's MSE", [])
    with store.read() as session:
        stored = {(row.alpha, row.seed): row.final_loss for row in session.query(RunRow)}
    assert {(cell.alpha, seed): loss for cell in read.cells for seed, loss in cell.losses.items()} == stored
