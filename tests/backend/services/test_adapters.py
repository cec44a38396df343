from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save_file
from sqlalchemy import select, update
from typer.testing import CliRunner

from backend.services import ingest, sweeps
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.tables import RunRow
from command_line import remote
from command_line.app import app
from lora_alpha.errors import Conflict, NotFound
from lora_alpha.request import SweepRequest
from lora_alpha.wire.client import Client
from lora_alpha.wire.jobs import IngestRun

NOW = 1_800_000_000.0


@pytest.fixture
def run_id(store: Store, settings: Settings) -> str:
    """A finished run with a written adapter of rank 4."""
    request = SweepRequest(workload="mlp", ranks=[4], alphas=[64], lrs=[1e-3], seeds=[0], steps=10)
    sweep = sweeps.create(store, settings, request, key=None, now=NOW)
    rng = np.random.default_rng(0)
    tensors = {
        "0/A": rng.standard_normal((4, 6)).astype(np.float32),
        "0/B": rng.standard_normal((5, 4)).astype(np.float32),
        "0/scale": np.asarray(16, np.float32),
        "0/base_norm": np.asarray(1e4, np.float32),
    }
    (settings.home / "adapters").mkdir()
    save_file(tensors, settings.home / "adapters" / "a.safetensors")
    with store.write() as session:
        run = session.scalars(select(RunRow).where(RunRow.sweep_id == sweep.id)).one()
        run.state, run.adapter = "finished", "adapters/a.safetensors"
        return run.id


def change(store: Store, run_id: str, **values: Any) -> None:
    with store.write() as session:
        session.execute(update(RunRow).where(RunRow.id == run_id).values(**values))


def test_the_client_gets_a_peft_folder(client: Client, settings: Settings, run_id: str) -> None:
    with zipfile.ZipFile(io.BytesIO(b"".join(client.run_adapter(run_id)))) as archive:
        config = json.loads(archive.read("adapter_config.json"))
        tensors = load(archive.read("adapter_model.safetensors"))
        readme = archive.read("README.md").decode()
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (4, 64, False)
    assert config["task_type"] is None
    assert {key: tensor.shape for key, tensor in tensors.items()} == {
        "base_model.model.0.lora_A.weight": (4, 6),
        "base_model.model.0.lora_B.weight": (5, 4),
    }
    assert "PeftModel.from_pretrained" in readme
    assert "lose more than 1 % of their update" in readme


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"state": "queued", "adapter": None}, "has not started"),
        ({"state": "running", "adapter": None}, "still running"),
        ({"state": "lost", "adapter": None}, "ended as lost"),
        ({"diverged": True, "step": 7}, "diverged at step 7"),
        ({"method": "full"}, "no low-rank adapter"),
    ],
)
def test_a_run_without_an_adapter_says_why(
    values: dict[str, Any], message: str, client: Client, store: Store, run_id: str
) -> None:
    change(store, run_id, **values)
    with pytest.raises(Conflict, match=message):
        list(client.run_adapter(run_id))


def test_what_does_not_exist_is_not_found(client: Client, settings: Settings, run_id: str) -> None:
    with pytest.raises(NotFound):
        list(client.run_adapter("zzz"))
    (settings.home / "adapters" / "a.safetensors").unlink()
    with pytest.raises(NotFound, match="train the run again"):
        list(client.run_adapter(run_id))


def test_a_run_trained_elsewhere_has_its_adapter_there(client: Client, store: Store) -> None:
    run = ingest.add_run(store, IngestRun(lr=1e-4, rank=4, alpha=8, steps=10), now=NOW)
    with pytest.raises(Conflict, match="trained elsewhere"):
        list(client.run_adapter(run.id))


def test_the_command_unpacks_the_folder_and_repeats_its_warnings(
    client: Client, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "connect", lambda api: client)
    result = CliRunner().invoke(app, ["adapter", run_id, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "adapter_config.json").is_file()
    assert "Merged into bfloat16" in result.output
