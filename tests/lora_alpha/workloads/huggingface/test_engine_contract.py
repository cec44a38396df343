"""What the engine, the probes and the jobs rest on, for every workload on a causal language model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lora_alpha.errors import WorkloadError
from lora_alpha.spec import TrainSpec
from lora_alpha.training.engine import train_pack
from lora_alpha.training.records import CheckpointDue, PackFinished
from lora_alpha.workloads.registry import load_workload
from tests.tiny_folders import write_jsonl

from .test_sft import curve, grid, train

Prepared = Callable[..., Any]
WORKLOADS = {
    "hf-sft": {},
    "hf-reasoning-sft": {"packing": True, "max_tokens": 128},
    "hf-rl": {"group_size": 2, "max_new_tokens": 4, "eval_samples": 1, "num_eval": 2},
}


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_a_resumed_pack_ends_where_an_uninterrupted_one_does(prepared: Prepared, name: str) -> None:
    spec = TrainSpec(workload=name, steps=4, batch_size=2, eval_every=4, checkpoint_steps=2)
    pack = grid()[:2]
    events = list(train_pack(prepared(name, **WORKLOADS[name]), spec, pack))
    checkpoint = next(event for event in events if isinstance(event, CheckpointDue))

    resumed = list(train_pack(prepared(name, **WORKLOADS[name]), spec, pack, resume=checkpoint.state))

    ends = [next(e for e in run if isinstance(e, PackFinished)) for run in (events, resumed)]
    assert [r.final_loss for r in ends[0].results] == [r.final_loss for r in ends[1].results]
    for first, second in zip(*(end.adapters["adapters"] for end in ends), strict=True):
        for layer, tensors in first.items():
            assert all(torch.equal(value, second[layer][key]) for key, value in tensors.items())


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_build_before_prepare_says_what_to_do(name: str) -> None:
    workload = load_workload(name, {"model": "x", "data": "y", **WORKLOADS[name]})
    with pytest.raises(WorkloadError, match=f"{name} is not prepared: run prepare"):
        workload.build_model(device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize(("kind", "tolerance"), [("gpt2", 1e-9), ("llama", 1e-4), ("qwen2", 1e-4)])
def test_a_pack_trains_as_its_configurations_do_alone(
    prepared: Prepared, kind: str, tolerance: float
) -> None:
    """GPT-2 in float64 throughout; the norms of the others compute in float32."""
    settings = {"steps": 4, "eval_every": 4, "batch_size": 2, "dtype": "float64"}
    pack = [c.model_copy(update={"seed": place % 2}) for place, c in enumerate(grid(lr=1e-3))]
    together, _ = train(prepared(kind=kind), pack, **settings)
    alone = [train(prepared(kind=kind), [c], **settings)[0] for c in pack]
    for metric in ("train_loss", "eval_loss", "forgetting_loss"):
        singles = np.concatenate([curve(steps, metric) for steps in alone])
        assert np.allclose(curve(together, metric), singles, rtol=0, atol=tolerance), metric


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_dtypes_train(prepared: Prepared, dtype: str) -> None:
    steps, finished = train(prepared(), grid()[:2], steps=10, eval_every=10, dtype=dtype)

    losses = curve(steps, "eval_loss")
    assert (losses[:, -1] < losses[:, 0] - 0.05).all()
    assert not any(result.diverged for result in finished.results)


def test_patterns_reach_the_layers_that_they_name(prepared: Prepared) -> None:
    workload = prepared(
        targets="q_proj, v_proj", rank_pattern={"v_proj": 1}, alpha_pattern={r"layers\.0.*q_proj": 8.0}
    )
    _, finished = train(workload, grid()[-1:], steps=1, eval_every=1, batch_size=1)
    (adapter,) = finished.adapters["adapters"]

    assert {name: tuple(tensors["A"].shape)[0] for name, tensors in adapter.items()} == {
        f"model.layers.{layer}.self_attn.{kind}_proj": rank
        for layer in (0, 1)
        for kind, rank in (("q", 4), ("v", 1))
    }
    scales = {name: float(tensors["scale"]) for name, tensors in adapter.items()}
    assert scales["model.layers.0.self_attn.q_proj"] == 8.0 / 4
    assert scales["model.layers.1.self_attn.q_proj"] == 64.0 / 4
    assert scales["model.layers.1.self_attn.v_proj"] == 64.0 / 1


def test_full_fine_tuning_and_adapters_share_one_base(prepared: Prepared) -> None:
    workload = prepared(kind="gpt2")
    pack = [*grid(lr=1e-3)[:1], grid()[0].model_copy(update={"method": "full", "rank": None, "alpha": None})]
    steps, _ = train(workload, pack, steps=6, eval_every=6)
    losses = curve(steps, "eval_loss")
    assert np.allclose(losses[0, 0], losses[1, 0])
    assert (losses[:, -1] < losses[:, 0]).all()


@pytest.mark.parametrize(("name", "packing"), [("hf-sft", False), ("hf-sft", True), ("hf-rl", False)])
def test_rows_are_no_wider_than_the_model_reads(
    models: Callable[..., Path], prepared: Prepared, tmp_path: Path, name: str, packing: bool
) -> None:
    rows = [{"question": "x" * 27 + f"{n:03}?", "answer": f"{n:03}"} for n in range(24)]
    options = {"packing": packing} if name == "hf-sft" else {"max_new_tokens": 4, "eval_samples": 1}
    workload = prepared(
        name,
        model=str(models("gpt2", n_positions=35)),
        data=str(write_jsonl(tmp_path / "rows.jsonl", rows)),
        prompt_template="{question}",
        completion_template="{answer}",
        max_tokens=35,
        held_out=0.4,
        **options,
    )
    model = workload.build_model(device=torch.device("cpu"), dtype=torch.float32)
    batch = workload.batch(model, step=0, seeds=[0], batch_size=8)
    assert 32 < batch["tokens"].shape[1] <= 35
    assert torch.isfinite(workload.losses(model, batch, num_configs=1)).all()
    assert torch.isfinite(workload.evaluate(model, num_configs=1)["eval_loss"]).all()
