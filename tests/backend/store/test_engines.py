from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, Integer, inspect, select, text

from backend.store.engines import open_store
from backend.store.jobs import enqueue
from backend.store.tables import Base, JobRow, RunRow
from lora_alpha.errors import LoraAlphaError

NOW = 1_800_000_000.0


def test_the_migrations_make_the_schema_of_the_tables(store):
    def compared(_object, name, *_):
        # alembic cannot compare an index with an expression (priority DESC) on SQLite
        return store.dialect == "postgresql" or name != "jobs_claim"

    with store.writer.connect() as connection:
        options = {"compare_type": True, "include_object": compared}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_migrating_twice_keeps_everything(store, add_sweep):
    add_sweep(num_runs=2, job_id="job")
    store.migrate()
    with store.read() as session:
        assert len(session.scalars(select(RunRow)).all()) == 2


def test_processes_that_start_together_may_all_migrate(tmp_path):
    url = f"sqlite:///{tmp_path / 'new' / 'store.db'}"
    program = f"from backend.store.engines import open_store; open_store({url!r}).migrate()"
    starts = [
        subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    ends = [process.communicate(timeout=60) + (process.returncode,) for process in starts]
    assert [code for *_, code in ends] == [0] * 4, ends
    store = open_store(url)
    assert "runs" in inspect(store.reader).get_table_names()
    store.close()


@pytest.mark.services
def test_threads_that_start_together_may_all_migrate_on_postgresql(postgres_url):
    stores = [open_store(postgres_url) for _ in range(4)]
    with stores[0].write() as session:
        session.execute(text("DROP SCHEMA public CASCADE"))
        session.execute(text("CREATE SCHEMA public"))
    errors = []

    def migrate(store):
        try:
            store.migrate()
        except Exception as error:  # whatever it is, the test tells
            errors.append(error)

    threads = [threading.Thread(target=migrate, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert "runs" in inspect(stores[0].reader).get_table_names()
    for store in stores:
        store.close()


def test_a_later_migration_that_rebuilds_a_table_deletes_no_rows_that_refer_to_it(store, add_sweep):
    # SQLite alters a table by dropping the old one, which would cascade to the runs of every sweep.
    add_sweep(num_runs=3, job_id="job")
    with store._schema_connection() as connection, connection.begin():
        operations = Operations(MigrationContext.configure(connection))
        recreate = "always" if store.dialect == "sqlite" else "auto"
        with operations.batch_alter_table("sweeps", recreate=recreate) as batch:
            batch.add_column(Column("later", Integer))
    with store.write() as session:
        assert len(session.scalars(select(RunRow)).all()) == 3
        if store.dialect == "sqlite":
            assert session.scalar(text("PRAGMA foreign_keys")) == 1
        else:
            session.execute(text("ALTER TABLE sweeps DROP COLUMN later"))


def test_a_database_of_a_newer_version_is_refused_with_a_reason(store):
    with store.write() as session:
        newest = session.scalar(text("SELECT version_num FROM alembic_version"))
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LoraAlphaError, match="9999.*newer"):
        store.migrate()
    with store.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :newest"), {"newest": newest})


def test_a_failed_write_leaves_nothing_behind(store):
    def fail():
        with store.write() as session:
            enqueue(session, kind="pack", spec={}, now=NOW, max_attempts=3)
            raise RuntimeError("in mid-transaction")

    with pytest.raises(RuntimeError):
        fail()
    with store.read() as session:
        assert session.scalars(select(JobRow)).all() == []


def test_writers_that_read_first_wait_for_each_other(store):
    """The classic "database is locked": two transactions that read, then write."""
    with store.write() as session:
        enqueue(session, kind="pack", spec={}, now=NOW, max_attempts=3, job_id="job")

    def raise_priority():
        for _ in range(20):
            with store.write() as session:
                job = session.get(JobRow, "job", with_for_update=True)
                job.priority += 1

    threads = [threading.Thread(target=raise_priority) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as session:
        assert session.get_one(JobRow, "job").priority == 80


def test_a_reader_is_not_held_up_by_a_writer(store, add_sweep):
    add_sweep(num_runs=1, job_id="job")
    with store.write() as writing:
        writing.get_one(RunRow, "sweep-0").step = 7
        writing.flush()
        with store.read() as reading:
            assert reading.get_one(RunRow, "sweep-0").step == 0


def test_sqlite_keeps_its_journal_and_checks_foreign_keys(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'a' / 'store.db'}")
    for engine in (store.reader, store.writer):
        with engine.connect() as connection:
            assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
            assert connection.scalar(text("PRAGMA synchronous")) == 1  # NORMAL
            assert connection.scalar(text("PRAGMA foreign_keys")) == 1
    store.close()


def test_a_writer_waits_half_a_minute_for_another(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'waits.db'}")
    with store.writer.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
    store.close()
