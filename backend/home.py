"""The one folder of an installation: what lies where, who writes it and who deletes it.

No other module joins paths under ``LORA_ALPHA_HOME``. The database stores paths relative to it, so that the
folder may be moved: ``pointer`` makes one, ``at`` reads one.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Folders by their names of before; ``prepare`` renames them.
RENAMED = {"starts": "init_adapters"}


@dataclass(frozen=True)
class Home:
    """Paths under ``root``, an absolute path. A property makes no folder: who writes makes it."""

    root: Path

    def prepare(self) -> None:
        """Make the folder, and give what an earlier version left in it today's names.

        Every process does this when it starts; several may at once.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        for before, now in RENAMED.items():
            if not (self.root / now).exists():
                with suppress(FileNotFoundError):  # there is none, or another process was faster
                    (self.root / before).rename(self.root / now)

    @property
    def database(self) -> Path:
        """The SQLite database. The store makes and writes it; nobody deletes it."""
        return self.root / "lora_alpha.db"

    @property
    def queue(self) -> Path:
        """Messages of the file broker, which writes them and deletes each when it is taken.

        May be deleted at any time: the reconciler rings again.
        """
        return self.root / "queue"

    @property
    def cache(self) -> Path:
        """Pre-trained bases and tokens. Workloads write them; nobody deletes them, a user may at any time."""
        return self.root / "cache"

    def cache_lock(self, name: str) -> Path:
        """Locked by the one process that prepares the workload ``name``; stays, empty, for the next."""
        return self.cache / "locks" / name

    def checkpoints(self, job_id: str) -> Path:
        """Checkpoints of a job. Its runner writes them and deletes all but the last; at its end that, too.

        What a job that did not finish has left goes with its sweep.
        """
        return self.root / "checkpoints" / job_id

    def checkpoint(self, job_id: str, *, step: int, attempt: int) -> Path:
        """One checkpoint; with its attempt in the name, so that two never write the same."""
        return self.checkpoints(job_id) / f"{step:08d}-attempt{attempt}.pt"

    def forget_checkpoints(self, job_id: str, *, keep: Path | None = None) -> None:
        """Delete a job's checkpoints but ``keep``; without one its folder, too."""
        if keep is None:
            shutil.rmtree(self.checkpoints(job_id), ignore_errors=True)
            return
        for path in self.checkpoints(job_id).glob("*.pt"):
            if path != keep:
                path.unlink(missing_ok=True)

    def adapter(self, run_id: str, *, step: int | None = None) -> Path:
        """A run's adapter at its end (None) or as it was after ``step``. The runner writes it.

        It is deleted with its sweep.
        """
        name = run_id if step is None else f"{run_id}-step{step}"
        return self.root / "adapters" / f"{name}.safetensors"

    def forget_adapters(self, run_id: str, pointer: str | None) -> None:
        """Delete the adapter at ``pointer`` (the run's last, if it has one) and those of the run's steps."""
        if pointer is not None:
            self.at(pointer).unlink(missing_ok=True)
        for path in (self.root / "adapters").glob(f"{run_id}-step*"):
            path.unlink(missing_ok=True)

    @property
    def init_adapters(self) -> Path:
        """Copies of the adapters that sweeps start from, named by content. The service writes them.

        Nobody deletes them: any sweep may be retried.
        """
        return self.root / "init_adapters"

    @property
    def logs(self) -> Path:
        """Logs of the supervisor's children, written by these; nobody deletes them."""
        return self.root / "logs"

    def runner_log(self, worker_id: str) -> Path:
        """What the runner of a worker prints, appended by one runner after the other; nobody deletes it."""
        return self.logs / f"runner-{worker_id}.log"

    @property
    def models(self) -> Path:
        """Models that a user puts here; read only."""
        return self.root / "models"

    @property
    def data(self) -> Path:
        """Data that a user puts here; read only."""
        return self.root / "data"

    def pointer(self, path: Path) -> str:
        """``path`` as the database stores it, relative to home."""
        return str(path.relative_to(self.root))

    def at(self, pointer: str) -> Path:
        """The path that the database stored as ``pointer``."""
        return self.root / pointer
