"""Settings, read from ``LORA_ALPHA_*`` environment variables."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from backend.home import Home
from lora_alpha.planning.fleet import Fleet


class Settings(BaseSettings):
    """Everything an installation may set; the defaults run on one machine with nothing else installed.

    Attributes:
        home: The one folder for database, queue, checkpoints, adapters, caches and logs; see ``files``.
        database_url: SQLAlchemy address; SQLite under ``home`` unless given.
        broker_url: ``filebroker://`` under ``home`` unless given, or ``redis://…``.
        key_prefix: Put before every queue name, so that installations can share a broker.
        token: Required for a bind beyond loopback; browsers log in with it, programs send it as bearer.
        allowed_roots: Folders that local models and data may come from, separated by ``:``; see ``roots``.
        allowed_hosts: Extra Host names that the API answers to, separated by commas.
        lease_s: Seconds for which a claimed job stays its worker's without a sign of life.
        max_attempts: Claims of one job before it is given up.
        ring_after_s: A queued job that has not been rung for this long is rung again.
        cancel_grace_s: Seconds a runner has to stop by itself before it is killed.
        drain_s: Seconds a worker that was asked to stop waits for the next checkpoint.
        point_interval_s: Seconds between two writes of a running pack.
        workers: Workers that are expected beside those already registered; plans count on them.
        gpu_bytes: GPU memory of each of the expected workers; 0: they compute on CPUs.
    """

    model_config = SettingsConfigDict(env_prefix="LORA_ALPHA_", extra="ignore")

    home: Path = Path(".lora_alpha")
    database_url: str = ""
    broker_url: str = ""
    key_prefix: str = "lora-alpha"
    token: str | None = None
    allowed_roots: str = ""
    allowed_hosts: str = ""
    lease_s: float = Field(default=15.0, gt=0, le=30.0)
    max_attempts: int = Field(default=5, ge=3)
    ring_after_s: float = Field(default=5.0, gt=0)
    cancel_grace_s: float = Field(default=1.5, ge=0)
    drain_s: float = Field(default=5.0, ge=0)
    point_interval_s: float = Field(default=1.0, gt=0)
    workers: int = Field(default=0, ge=0)
    gpu_bytes: int = Field(default=0, ge=0)

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().resolve()

    @property
    def files(self) -> Home:
        """What lies where under ``home``."""
        return Home(self.home)

    @property
    def fleet(self) -> Fleet:
        """The expected workers."""
        return Fleet(self.workers, self.gpu_bytes)

    @property
    def database(self) -> str:
        """The database address in force."""
        return self.database_url or f"sqlite:///{self.files.database}"

    @property
    def broker(self) -> str:
        """The broker address in force."""
        return self.broker_url or "filebroker://localhost"

    @property
    def roots(self) -> list[Path]:
        """Allowed roots; ``home/models`` and ``home/data`` are always among them.

        Where none is set and no token is needed, one person works on one machine (an installation without a
        token answers on loopback alone): the folder it was started in and the home folder are allowed.
        """
        given = [Path(part).expanduser().resolve() for part in self.allowed_roots.split(os.pathsep) if part]
        if not given and not self.token:
            given = [Path.cwd().resolve(), Path.home().resolve()]
        return [*given, self.files.models, self.files.data]


def get_settings() -> Settings:
    """Settings from the environment as it is now."""
    return Settings()
