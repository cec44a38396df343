"""The whole application on a GPU, as a user runs it: service, sweeps, probes, a killed worker, the engine.

``python -m benchmarks gpu --out DIR`` on a machine with an NVIDIA GPU and the packages of ``pyproject.toml``
takes at most 8 minutes. It first says which packages are missing, and does what is possible without them. A
stage that fails is told with its reason, and the others still run; the exit status is then 1.

1. ``up``: ``lora-alpha up`` with two workers on the GPU and its files in a fresh folder.
2. ``sweeps``: one of ``mlp`` and one of ``charlm`` through the API, with Hessian probes.
3. ``kill``: both sweeps again; in the middle of each a worker and its runner get ``kill -9``. No run and no
   point may be lost or doubled, and every curve must be that of the undisturbed sweep (``TOLERANCE``).
4. ``tests``: ``tests/lora_alpha/test_cuda.py``.
5. ``engine``: the first sweep's packs once more, by the engine without a service.
6. ``packing``: packs over the shape of Llama-3.2-1B against PEFT (``benchmarks/packing.py``).

DIR then holds ``lora_alpha.db`` (put it into an empty folder and ``LORA_ALPHA_HOME=that lora-alpha up`` shows
it), ``figures.json`` with every figure, ``logs.txt`` with the end of every log, and ``tests.txt``.
``--device cpu --quick`` does the same in small on any machine.

Nothing but the standard library is imported here: packages may be missing.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.packages import APPLICATION, ENGINE, PACKING, TESTS, missing, pip_lines
from benchmarks.gpu.stages import Plan, run_stages, table

LIMIT_S = 480.0
# Ending the service and copying its database after the last stage's limit.
CLOSING_S = 15.0


def main(arguments: Sequence[str] = ()) -> int:
    """Run every stage, print what each found; 1 if any failed."""
    options = _parser().parse_args(arguments)
    out: Path = options.out or Path(os.environ.get("OUT") or tempfile.mkdtemp(prefix="lora-alpha-gpu-"))
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    absent = missing({*APPLICATION, *ENGINE, *TESTS, *PACKING})
    if absent:
        print(f"missing: {', '.join(absent)}", *pip_lines(absent), sep="\n  ", flush=True)
    with tempfile.TemporaryDirectory(prefix="lora-alpha-home-") as home:
        plan = Plan(options.device, options.quick, Path(home), out, started + options.limit - CLOSING_S)
        try:
            outcomes = run_stages(plan, report=lambda outcome: print(outcome.line(), flush=True))
        finally:
            plan.close()
    figures = {
        "device": options.device,
        "quick": options.quick,
        "passed": not any(outcome.state == "failed" for outcome in outcomes),
        "seconds": round(time.monotonic() - started, 1),
        "missing_packages": absent,
        "machine": plan.machine,
        "stages": [outcome.as_dict() for outcome in outcomes],
    }
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"\n{table(outcomes)}\n{figures['seconds']} s in all; database and figures are in {out}")
    return 0 if figures["passed"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description="The whole on a GPU.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="a tiny version of everything")
    parser.add_argument("--out", type=Path, help="folder of the results; $OUT, or a temporary one")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds that all of it may take")
    return parser
