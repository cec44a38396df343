"""What a migration makes of rows that an earlier version wrote."""

from __future__ import annotations

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import select

from backend.store.engines import MIGRATIONS, Store
from backend.store.tables import RunRow, SweepRow

NEW = {
    "train": {"workload": "mlp", "steps": 3, "batch_size": 4, "lr_schedule": "constant"},
    "alpha_schedule": {"kind": "hold", "target_metric": "update_norm", "target": 2.0},
    "cells": [{"lr": 0.1, "alpha_schedule": {"kind": "ramp", "target_metric": "drift_ratio"}}],
    "workload_options": {"schedule": "a user's own word"},
}
OLD = {
    **NEW,
    "train": {"workload": "mlp", "steps": 3, "batch_size": 4, "schedule": "constant"},
    "alpha_schedule": {"kind": "drift", "target_metric": "update_norm", "target": 2.0},
}


def downgrade(store: Store, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with store._schema_connection() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def spec_of(store: Store) -> dict[str, object]:
    with store.read() as session:  # the column alone: an older table lacks some of today's
        return session.scalars(select(SweepRow.spec)).one()


@pytest.fixture
def sweep(store, add_sweep):
    (run_id,) = add_sweep(num_runs=1, job_id="job")
    with store.write() as session:
        session.get_one(SweepRow, "sweep").spec = NEW
        session.get_one(RunRow, run_id).configuration = {"alpha_schedule": NEW["alpha_schedule"]}


def test_specs_of_before_get_the_words_of_today_and_nothing_else_changes(store, sweep):
    downgrade(store, "0002")
    assert spec_of(store) == OLD
    store.migrate()
    assert spec_of(store) == NEW
    with store.read() as session:
        assert session.scalars(select(RunRow.configuration)).one()["alpha_schedule"]["kind"] == "hold"


@pytest.mark.parametrize(
    ("kind", "intent", "state", "due"),
    [
        ("adaptive", "run", "running", True),
        ("adaptive", "stop", "finished", True),  # it would go on if it were resumed
        ("adaptive", "run", "finished", False),
        ("grid", "run", "running", False),
    ],
)
def test_searches_of_before_that_have_not_ended_have_yet_to_decide(
    store, add_sweep, kind, intent, state, due
):
    add_sweep(num_runs=1, job_id="job")
    with store.write() as session:
        row = session.get_one(SweepRow, "sweep")
        row.spec, row.intent, row.state = {"search": {"kind": kind}}, intent, state
    downgrade(store, "0003")
    store.migrate()
    with store.read() as session:
        assert session.get_one(SweepRow, "sweep").refinement_due is due
