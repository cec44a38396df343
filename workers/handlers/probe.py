"""One Hessian probe: find the point, measure, store the numbers with their errors."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sqlalchemy import update
from sqlalchemy.orm import Session
from torch import Tensor

from backend.home import Home
from backend.services.jobs import Write
from backend.store.sweeps import find_run, find_sweep
from backend.store.tables import ProbeRow
from lora_alpha.catalog import workload_info
from lora_alpha.curvature.points import factors_at, tensors_at_start
from lora_alpha.curvature.probe import run_probe
from lora_alpha.curvature.records import ProbeEstimate, ProbeProgress, ProbeResult
from lora_alpha.errors import ProbeError
from lora_alpha.spec import Configuration, ProbeSettings, ProbeSpec, TrainSpec
from lora_alpha.training.engine import DTYPES
from workers.context import JobContext
from workers.handlers.init_adapter import read_init_adapter
from workers.handlers.pretrain import load_prepared


@dataclass(frozen=True)
class _Point:
    """Where to probe; ``adapter`` is the exported adapter, None at the start of training."""

    workload: str
    workload_options: dict[str, Any]
    configuration: Configuration
    batch_size: int
    step: int
    adapter: Path | None
    init_adapter: str | None = None


def run_probe_job(context: JobContext) -> None:
    """Probe a run's weights or a fresh adapter; progress is reported and a cancel is honoured per product."""
    spec = ProbeSpec.model_validate(context.job.spec)
    with context.store.read() as session:
        point = _run_point(session, spec, context.settings.files) if spec.run else _fresh_point(spec)
    workload = load_prepared(context, point.workload, point.workload_options)
    device, dtype = torch.device(context.device), DTYPES[spec.dtype]
    if point.adapter is None:
        given = read_init_adapter(point.init_adapter, settings=context.settings)
        tensors = tensors_at_start(
            workload, point.configuration, device=device, dtype=dtype, init_adapter=given
        )
    else:
        tensors = _read_adapter(point.adapter)
    model = workload.build_model(device=device, dtype=dtype)
    factors = factors_at(model, tensors, method=point.configuration.method, space=spec.space)
    events = run_probe(
        workload,
        model,
        factors,
        ProbeSettings.model_validate(spec.model_dump(include=set(ProbeSettings.model_fields))),
        batch_size=point.batch_size,
        seed=point.configuration.seed,
    )
    result: dict[str, Any] = {"point": _describe(point)}
    for event in events:
        match event:
            case ProbeEstimate():
                result["estimate"] = asdict(event)
                context.commit(_store(context, result), progress=0.0, message=_announce(event))
            case ProbeProgress():
                if context.due():
                    context.commit(progress=event.done / event.total, message=event.message)
                context.stop_at_checkpoint()
            case ProbeResult():
                result |= event.as_json()
                context.finish(_store(context, result))


def _run_point(session: Session, spec: ProbeSpec, home: Home) -> _Point:
    assert spec.run is not None
    run = find_run(session, spec.run)
    train = TrainSpec.model_validate(find_sweep(session, run.sweep_id).spec["train"])
    step = run.steps if spec.step is None else spec.step
    adapter = None
    if step == run.steps:
        if run.adapter is None:
            raise ProbeError(f"run {run.id} has no trained adapter: probe step 0, or wait for its end")
        adapter = home.at(run.adapter)
    elif step in train.adapter_steps:
        adapter = home.adapter(run.id, step=step)
    elif step:
        kept = ", ".join(map(str, (0, *train.adapter_steps, run.steps)))
        raise ProbeError(f"run {run.id} keeps its weights at steps {kept} only: got step {step}")
    return _Point(
        workload=train.workload,
        workload_options=train.workload_options,
        configuration=Configuration.model_validate(run.configuration),
        batch_size=train.batch_size,
        step=step,
        adapter=adapter,
        init_adapter=train.init_adapter,
    )


def _fresh_point(spec: ProbeSpec) -> _Point:
    assert spec.workload is not None
    # Full-weight coordinates at the start are those of W0, whatever the adapter will be.
    bare = spec.rank is None or spec.alpha is None
    fields: dict[str, Any] = {} if bare else {"rank": spec.rank, "alpha": spec.alpha}
    return _Point(
        workload=spec.workload,
        workload_options=spec.workload_options,
        configuration=Configuration(method="full" if bare else spec.method, lr=1.0, seed=spec.seed, **fields),
        batch_size=workload_info(spec.workload).defaults.batch_size,
        step=0,
        adapter=None,
    )


def _read_adapter(path: Path) -> dict[str, dict[str, Tensor]]:
    """Layer → tensors, from keys ``layer/tensor``."""
    try:
        stored = load_file(path)
    except FileNotFoundError:
        raise ProbeError(f"the adapter file {path.name} is gone: train the run again") from None
    tensors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        layer, _, name = key.rpartition("/")
        tensors.setdefault(layer, {})[name] = tensor
    return tensors


def _store(context: JobContext, result: dict[str, Any]) -> Write:
    document = _finite(result)

    def write(session: Session) -> None:
        session.execute(update(ProbeRow).where(ProbeRow.id == context.job.id).values(result=document))

    return write


def _finite(value: Any) -> Any:
    """JSON knows no NaN: such a number becomes null."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _describe(point: _Point) -> dict[str, Any]:
    configuration = point.configuration
    return {
        "workload": point.workload,
        "method": configuration.method,
        "rank": configuration.rank,
        "alpha": configuration.alpha,
        "scale": configuration.scale,
        "lr": configuration.lr,
        "seed": configuration.seed,
        "step": point.step,
    }


def _announce(estimate: ProbeEstimate) -> str:
    memory = (estimate.basis_bytes + estimate.graph_bytes) / 2**20
    return (
        f"{estimate.num_parameters:,} coordinates, about {estimate.expected_seconds:.3g} s "
        f"(at most {estimate.max_seconds:.3g} s), {memory:,.0f} MiB"
    )
