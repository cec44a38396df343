from __future__ import annotations

from pathlib import Path

import pytest

from lora_alpha.importers.registry import import_runs
from lora_alpha.wire.client import Client


def test_imported_runs_appear_in_the_law_and_importing_twice_adds_nothing(
    tmp_path: Path, client: Client
) -> None:
    for seed in range(2):
        for rank in (2, 4, 8):
            for alpha in (16, 64, 256):
                loss = 1 + abs(alpha - 64) / 100 + 0.01 * seed
                run = tmp_path / "mlruns" / "1" / f"r{rank}a{alpha}s{seed}"
                (run / "params").mkdir(parents=True)
                (run / "metrics").mkdir()
                (run / "meta.yaml").write_text(f"run_id: {run.name}\nstatus: 3\nlifecycle_stage: active\n")
                for name, value in (("r", rank), ("lora_alpha", alpha), ("lr", 2e-4), ("seed", seed)):
                    (run / "params" / name).write_text(str(value))
                (run / "metrics" / "eval_loss").write_text(f"1 2.0 0\n2 {loss} 10\n")
    lines = list(import_runs(client, tmp_path))
    assert lines[-1] == "18 runs imported, 0 left out"
    (sweep,) = client.sweeps().items
    assert sweep.state == "finished"
    (law,) = client.law(sweep.id).laws
    assert law.num_ranks == 3
    assert law.fit is not None
    assert law.fit.exponent == pytest.approx(0, abs=0.05)
    again = list(import_runs(client, tmp_path))
    assert all("0 new points" in line for line in again[:-1])
    assert len(client.sweeps().items) == 1
