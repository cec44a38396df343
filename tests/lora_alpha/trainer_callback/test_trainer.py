"""Trainers of transformers and TRL, training tiny models, seen through the service."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from lora_alpha.spec import Configuration
from lora_alpha.trainer_callback.layers import DriftWatch, adapted_layers, describe
from lora_alpha.trainer_callback.trainer import LoraAlphaCallback
from tests.tiny_folders import NUM_TOKENS, byte_tokenizer
from tests.tiny_models import TINY_MODELS

# PEFT 0.21 and TRL 1.16 use attributes that transformers 5.24 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
STEPS = 6


def lora(**options: Any) -> LoraConfig:
    given = {"r": 4, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    return LoraConfig(**{**given, **options})


def adapted(dtype: torch.dtype = torch.float32, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return get_peft_model(TINY_MODELS["llama"](dtype), lora(**options))


def arguments(folder: Path, **options: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "seed": 3,
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        **options,
    }


def rows() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 60, (16, 8), generator=generator).tolist()
    return Dataset.from_list([{"input_ids": row, "labels": row} for row in ids])


def callback(loopback: Any, **options: Any) -> LoraAlphaCallback:
    return LoraAlphaCallback(client=loopback.client(), **{"interval_s": 0.05, "drift_every": 2, **options})


def train(loopback: Any, folder: Path, model: nn.Module, *, resume: bool = False, **options: Any) -> Trainer:
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**arguments(folder, **options)),
        train_dataset=rows(),
        eval_dataset=rows(),
        callbacks=[callback(loopback)],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_a_trainers_run_arrives_with_configuration_losses_and_drift(loopback: Any, tmp_path: Path) -> None:
    trainer = train(loopback, tmp_path, adapted(), eval_strategy="steps", eval_steps=3)
    (run,) = loopback.runs()
    assert (run.method, run.rank, run.alpha, run.scale) == ("lora", 4, 32.0, 8.0)
    assert (run.lr, run.seed, run.steps, run.state) == (1e-2, 3, STEPS, "finished")
    logged = {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
    steps, losses = loopback.curve(run.id, "train_loss")
    assert steps == list(range(1, STEPS + 1))
    assert losses == pytest.approx([logged[step] for step in steps], rel=1e-6)
    assert loopback.curve(run.id, "eval_loss")[0] == [3, 6]
    assert run.final_loss == pytest.approx(loopback.curve(run.id, "eval_loss")[1][-1])
    steps, ratios = loopback.curve(run.id, "drift_ratio")
    assert steps == [2, 4, 6]
    assert all(0 < ratio < 1 for ratio in ratios)
    assert len(loopback.curve(run.id, "grad_norm")[0]) == STEPS


def test_a_resumed_training_goes_on_as_the_same_run(loopback: Any, tmp_path: Path) -> None:
    train(loopback, tmp_path, adapted(), save_strategy="steps", save_steps=3, max_steps=3)
    train(loopback, tmp_path, adapted(), resume=True)
    (run,) = loopback.runs()
    assert loopback.curve(run.id, "train_loss")[0] == list(range(1, STEPS + 1))
    assert run.state == "finished"
    train(loopback, tmp_path, adapted())
    assert len(loopback.runs()) == 2, "a new training in the same folder is a new run"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"method": "lora", "scale": 8.0}),
        ({"use_rslora": True}, {"method": "rslora", "scale": 16.0}),
        ({"use_dora": True}, {"method": "dora"}),
        ({"init_lora_weights": "pissa"}, {"method": "pissa"}),
        ({"rank_pattern": {"down_proj": 8}}, {"rank": 4, "scale": 8.0}),
    ],
)
def test_configurations_are_told_apart(options: dict[str, Any], expected: dict[str, Any]) -> None:
    model = adapted(**options)
    found = describe(
        adapted_layers(model), peft_config=model.peft_config["default"].to_dict(), optimizer=None
    )
    assert {name: found[name] for name in expected} == expected
    other = [name for name, scale in found["layers"].items() if scale == 4.0]
    assert len(other) == (2 if "rank_pattern" in options else 0)
    if found["method"] != "dora" and not other:
        ours = Configuration(method=found["method"], rank=4, alpha=32, lr=1.0)
        assert found["scale"] == ours.scale


def test_a_larger_lr_on_B_is_lora_plus_and_nothing_adapted_is_full() -> None:
    layers = adapted_layers(adapted())
    groups = [
        {"params": [layer.lora_A for layer in layers], "lr": 1e-3},
        {"params": [layer.lora_B for layer in layers], "lr": 1.6e-2},
    ]
    found = describe(layers, peft_config={}, optimizer=torch.optim.SGD(groups))
    assert (found["method"], found["lr_ratio"]) == ("lora+", 16.0)
    assert describe(adapted_layers(TINY_MODELS["llama"]()), peft_config=None, optimizer=None) == {
        "method": "full"
    }


@pytest.mark.parametrize("init", [True, False])
def test_measured_drift_is_that_of_dense_products(init: bool) -> None:
    model = adapted(torch.float64, init_lora_weights=init)
    layers = adapted_layers(model)
    generator = torch.Generator().manual_seed(1)

    def nudge() -> None:
        with torch.no_grad():
            for layer in layers:
                for factor in (layer.lora_A, layer.lora_B):
                    factor += 0.1 * torch.randn(factor.shape, generator=generator).to(factor)

    watch = DriftWatch(layers, resumed=False)
    start = [(layer.lora_A.detach().clone(), layer.lora_B.detach().clone()) for layer in layers]
    nudge()
    watch.before()
    before = [(layer.lora_A.detach().clone(), layer.lora_B.detach().clone()) for layer in layers]
    nudge()
    found = watch.after()
    signal = drift = update = 0.0
    for layer, (A, B), (A0, B0) in zip(layers, before, start, strict=True):
        dA, dB = layer.lora_A.detach() - A, layer.lora_B.detach() - B
        signal += float((layer.scale * (dB @ A + B @ dA)).norm() ** 2)
        drift += float((layer.scale * dB @ dA).norm() ** 2)
        after = layer.lora_B.detach() @ layer.lora_A.detach()
        update += float((layer.scale * (after - B0 @ A0)).norm() ** 2)
    assert float(found["drift_ratio"]) == pytest.approx((drift / signal) ** 0.5, rel=1e-9)
    assert float(found["signal_norm"]) == pytest.approx(signal**0.5, rel=1e-9)
    assert float(found["update_norm"]) == pytest.approx(update**0.5, rel=1e-9)
    assert watch.after() == {}, "a step that was not announced is not measured"


def test_training_ends_in_time_and_unharmed_without_a_service(
    loopback: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loopback.stop()
    with caplog.at_level(logging.WARNING, logger="lora_alpha.callback"):
        begin = time.perf_counter()
        trainer = Trainer(
            model=adapted(),
            args=TrainingArguments(**arguments(tmp_path)),
            train_dataset=rows(),
            callbacks=[callback(loopback, flush_s=0.3)],
        )
        trainer.train()
    assert time.perf_counter() - begin < 10
    assert trainer.state.global_step == STEPS
    assert len(list(tmp_path.glob("lora_alpha-*.jsonl"))) == 1
    assert "lora-alpha ingest" in caplog.text


def test_of_several_processes_the_first_sends(loopback: Any, tmp_path: Path) -> None:
    other = callback(loopback)
    state = TrainerState(is_world_process_zero=False, max_steps=STEPS)
    control = TrainerControl()
    given = TrainingArguments(**arguments(tmp_path))
    other.on_train_begin(given, state, control, model=adapted())
    other.on_pre_optimizer_step(given, state, control)
    other.on_optimizer_step(given, state, control)
    other.on_log(given, state, control, logs={"loss": 1.0})
    other.on_train_end(given, state, control)
    assert loopback.runs() == []


def test_a_run_that_cannot_be_described_trains_unwatched(
    loopback: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="lora_alpha.callback"):
        trainer = train(loopback, tmp_path, adapted(), learning_rate=0.0)
    assert trainer.state.global_step == STEPS
    assert loopback.runs() == []
    assert "not streamed" in caplog.text


def test_trls_sft_trainer(loopback: Any, tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model=TINY_MODELS["llama"](vocab_size=NUM_TOKENS),
        args=SFTConfig(**arguments(tmp_path), max_length=16, bf16=False),
        train_dataset=Dataset.from_list([{"text": "3 + 4 = 7"}, {"text": "1 + 2 = 3"}] * 4),
        processing_class=byte_tokenizer(),
        peft_config=lora(use_rslora=True),
        callbacks=[callback(loopback, workload="sums")],
    )
    trainer.train()
    (run,) = loopback.runs()
    assert (run.workload, run.method, run.rank, run.scale) == ("sums", "rslora", 4, 16.0)
    assert loopback.curve(run.id, "train_loss")[0] == list(range(1, STEPS + 1))
    assert loopback.curve(run.id, "drift_ratio")[0] == [2, 4, 6]
    assert loopback.curve(run.id, "mean_token_accuracy")[0] == list(range(1, STEPS + 1))


def test_trls_grpo_trainer_with_a_reward_for_the_objective(loopback: Any, tmp_path: Path) -> None:
    from trl import GRPOConfig, GRPOTrainer

    def short(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(len(set(ids)) > 2) for ids in completion_ids]

    trainer = GRPOTrainer(
        model=TINY_MODELS["llama"](vocab_size=NUM_TOKENS),
        reward_funcs=short,
        args=GRPOConfig(
            **arguments(tmp_path, max_steps=2), num_generations=4, max_completion_length=4, bf16=False
        ),
        train_dataset=Dataset.from_list([{"prompt": "3 + 4 ="}, {"prompt": "1 + 2 ="}]),
        processing_class=byte_tokenizer(),
        peft_config=lora(),
        callbacks=[callback(loopback, objective="-reward")],
    )
    trainer.train()
    (run,) = loopback.runs()
    assert (run.method, run.rank, run.scale, run.state) == ("lora", 4, 8.0, "finished")
    assert len(loopback.curve(run.id, "reward")[1]) == 2
    with loopback.client() as client:
        found = client.metrics(run.sweep_id).metric
    assert (found.name, found.goal) == ("reward", "max")
    assert loopback.curve(run.id, "drift_ratio")[0] == [2]
