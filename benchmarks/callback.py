"""What LoraAlphaCallback adds to a trainer's step: milliseconds inside its hooks, against the step itself.

A small Llama with adapters on every linear layer, transformers' own Trainer, a service on loopback.
Needs peft (the test extra).
"""

from __future__ import annotations

import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from backend.app import create_app
from backend.settings import Settings
from lora_alpha.trainer_callback.trainer import LoraAlphaCallback

STEPS, RANK, TOKENS, BATCH = 40, 16, 64, 4
SIZES = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "vocab_size": 1000}
HOOKS = ("on_log", "on_pre_optimizer_step", "on_optimizer_step")


class Timed(LoraAlphaCallback):
    """Adds up the seconds in its hooks, step by step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.spent_s = 0.0
        self.steps_s: list[float] = []
        for name in HOOKS:
            setattr(self, name, self._timed(getattr(self, name)))

    def _timed(self, hook: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> None:
            started = time.perf_counter()
            hook(*args, **kwargs)
            self.spent_s += time.perf_counter() - started

        return run

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Mark the time."""
        del args, kwargs
        self.steps_s.append(time.perf_counter())


def main() -> None:
    """Print hooks and step for several intervals of drift."""
    torch.set_num_threads(1)
    with service() as address:
        print("drift every   hooks ms/step   step ms   share")
        for every in (0, 50, 10, 1):
            hooks, step = time_run(address, drift_every=every)
            label = str(every) if every else "never"
            print(f"{label:>11s} {1e3 * hooks:15.2f} {1e3 * step:9.1f} {hooks / step:7.2%}")


def time_run(address: str, *, drift_every: int) -> tuple[float, float]:
    """Mean seconds in hooks and median seconds of a step."""
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, num_attention_heads=8, num_key_value_heads=4)
    lora = LoraConfig(r=RANK, lora_alpha=512, target_modules="all-linear")
    rows = torch.randint(3, 990, (64, TOKENS)).tolist()
    callback = Timed(address, sweep="benchmark", drift_every=drift_every)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=STEPS,
            logging_steps=1,
            per_device_train_batch_size=BATCH,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        Trainer(
            model=get_peft_model(LlamaForCausalLM(config), lora),
            args=arguments,
            train_dataset=Dataset.from_list([{"input_ids": row, "labels": row} for row in rows]),
            callbacks=[callback],
        ).train()
    starts = callback.steps_s
    return callback.spent_s / STEPS, statistics.median(
        b - a for a, b in zip(starts, starts[1:], strict=False)
    )


@contextmanager
def service() -> Iterator[str]:
    """A fresh service on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        app = create_app(Settings(home=Path(home), token=None, workers=1))
        server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", ws="none")
        )
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join()
