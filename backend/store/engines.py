"""Connections to the database. SQLite gets two engines, PostgreSQL one.

On SQLite a transaction that starts reading and then writes fails with "database is locked" as soon as
somebody else wrote in between; so writers begin IMMEDIATE on an engine of their own, readers stay deferred.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.orm import Session

from lora_alpha.errors import LoraAlphaError

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_S = 30
# Any number: names the advisory lock under which PostgreSQL installations migrate one at a time.
MIGRATION_LOCK = 720_612_883


class Store:
    """Sessions on one database: ``read()`` and ``write()``."""

    def __init__(self, url: str) -> None:
        self.url = url
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            if parsed.database and parsed.database != ":memory:":
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self.reader = _sqlite(url, begin="BEGIN")
            self.writer = _sqlite(url, begin="BEGIN IMMEDIATE")
        else:
            if parsed.drivername == "postgresql":
                parsed = parsed.set(drivername="postgresql+psycopg")
            self.reader = self.writer = create_engine(parsed, pool_pre_ping=True, pool_size=10)

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.writer.dialect.name

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads."""
        with Session(self.reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session in one write transaction, committed at the end, rolled back on an error."""
        with Session(self.writer, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self) -> None:
        """Bring the schema to the newest version; safe when several processes start at once.

        Raises:
            LoraAlphaError: If the database was made by a newer version of this program.
        """
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        with self._schema_connection() as connection, connection.begin():
            if self.dialect == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            current = MigrationContext.configure(connection).get_current_revision()
            if current is not None and current not in known:
                raise LoraAlphaError(
                    f"the database is at schema {current}, which this version does not know: "
                    "install the version that made it, or a newer one"
                )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def _schema_connection(self) -> Iterator[Connection]:
        """A connection that may alter tables.

        SQLite alters most things by making a new table and dropping the old one, and with foreign keys on a
        drop deletes the rows that refer to it. They can only be switched off outside a transaction.
        """
        with self.writer.connect() as connection:
            if self.dialect == "postgresql":
                yield connection
                return
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.execute("PRAGMA foreign_keys=OFF")
            try:
                yield connection
            finally:
                driver.execute("PRAGMA foreign_keys=ON")

    def close(self) -> None:
        """Close all connections."""
        self.reader.dispose()
        self.writer.dispose()


def _sqlite(url: str, *, begin: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


def open_store(url: str) -> Store:
    """A store on ``url``; connects when first used."""
    return Store(url)
