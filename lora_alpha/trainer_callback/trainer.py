"""``LoraAlphaCallback`` shows a run of transformers' or TRL's trainers in this project, live.

>>> trainer = SFTTrainer(..., callbacks=[LoraAlphaCallback(sweep="my sweep")])  # doctest: +SKIP
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lora_alpha.metrics import guess_goal
from lora_alpha.trainer_callback.layers import DriftWatch, adapted_layers, can_watch, describe
from lora_alpha.trainer_callback.stream import RunStream
from lora_alpha.wire.client import Client
from lora_alpha.wire.jobs import IngestRun

LOG = logging.getLogger("lora_alpha.callback")
RUN_FILE = "lora_alpha-run.json"
NOT_METRICS = ("epoch", "total_flos", "step", "num_input_tokens_seen")
TIMINGS = ("_runtime", "_per_second", "_time", "_timing")
RENAMED = {"loss": "train_loss", "learning_rate": "lr"}


class LoraAlphaCallback(TrainerCallback):  # type: ignore[misc]
    """Streams configuration, scales, losses and drift of a training run through the ingest API.

    Training never waits for it: values go into a bounded queue, a thread sends them; points that cannot be
    sent are kept beside the output until they can. In distributed training the first process sends. A run
    that goes on from a checkpoint in the same output folder goes on as the same run.

    Args:
        url: Address of the service.
        sweep: Name of the sweep that the run joins; runs of one sweep share its laws.
        workload: What is trained on what; runs of one workload are comparable.
        name: Name of the run; from method, rank, α, lr and seed unless given.
        objective: The logged metric by which α is chosen in place of ``eval_loss``, such as ``reward``. Which
            way is better follows from its name; a leading ``-`` means that more is, as in ``-my_metric``.
        drift_every: Optimiser steps between two measurements of signal and drift; 0 measures none.
        token: ``LORA_ALPHA_TOKEN`` of the service; from the environment unless given.
        tags: Tags of the sweep.
        flush_s: Longest wait at the end of training for what has not been sent.
        client: Replaces ``url`` and ``token``; it is left open.
        **stream: Bounds of the stream, see ``RunStream``.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8050",
        *,
        sweep: str = "outside",
        workload: str = "external",
        name: str | None = None,
        objective: str | None = None,
        drift_every: int = 10,
        token: str | None = None,
        tags: Sequence[str] = (),
        flush_s: float = 10.0,
        client: Client | None = None,
        **stream: Any,
    ) -> None:
        self._url, self._client = url, client
        self._token = token or os.environ.get("LORA_ALPHA_TOKEN")
        self._fields: dict[str, Any] = {"sweep_name": sweep, "workload": workload, "tags": list(tags)}
        self._fields |= {} if name is None else {"name": name}
        self._fields |= _chosen_by(objective)
        self._drift_every = drift_every
        self._flush_s = flush_s
        self._stream_options = stream
        self._watch: DriftWatch | None = None
        self._summary: dict[str, float] = {}
        self.stream: RunStream | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Register the run and start the stream; a run that cannot be described trains unwatched."""
        del control
        if not state.is_world_process_zero:
            return
        model = kwargs["model"]
        layers = adapted_layers(model)
        resumed = state.global_step > 0
        try:
            run = IngestRun(
                key=_key(Path(args.output_dir), resumed=resumed),
                lr=args.learning_rate,
                seed=args.seed,
                steps=state.max_steps,
                config=_config(args, model),
                **describe(layers, peft_config=_peft_config(model), optimizer=kwargs.get("optimizer")),
                **self._fields,
            )
        except ValidationError as error:
            LOG.warning("this run is not streamed: %s", error)
            return
        spool = Path(args.output_dir) / f"lora_alpha-{run.key}.jsonl"
        self._summary = {}
        watches = bool(self._drift_every) and can_watch(layers)
        self._watch = DriftWatch(layers, resumed=resumed) if watches else None
        self.stream = RunStream(
            self._client or Client(self._url, token=self._token, timeout_s=10.0),
            run,
            spool=spool,
            closes_client=self._client is None,
            **self._stream_options,
        )
        atexit.register(self._abandon)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Queue what the trainer logs; evaluations come through ``on_evaluate``."""
        del args, control, kwargs
        if self.stream is None or not logs:
            return
        if "train_runtime" in logs:  # the trainer's last word: figures of the whole run
            self._summary = {name: float(value) for name, value in logs.items() if _is_number(value)}
            return
        values = _metrics(logs, skip=lambda name: name.startswith("eval_"))
        self.stream.add(state.global_step, values)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Queue held-out metrics."""
        del args, control, kwargs
        if self.stream is not None and metrics:
            values = _metrics(metrics, skip=lambda name: not name.startswith("eval_"))
            self.stream.add(state.global_step, values)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Copy A and B before a step that is measured."""
        del args, control, kwargs
        if self._watch is not None and (state.global_step + 1) % self._drift_every == 0:
            self._watch.before()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Queue the signal and drift of a measured step."""
        del args, control, kwargs
        if self._watch is not None and self.stream is not None and (found := self._watch.after()):
            self.stream.add(state.global_step + 1, found)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Send what waits, for at most ``flush_s``."""
        del args, state, control, kwargs
        self._end({"state": "finished", "summary": self._summary})

    def _abandon(self) -> None:
        self._end({"state": "failed", "error": "the process ended before its training did"})

    def _end(self, outcome: Mapping[str, Any]) -> None:
        if self.stream is None:
            return
        atexit.unregister(self._abandon)
        stream, self.stream, self._watch = self.stream, None, None
        stream.close(outcome, timeout_s=self._flush_s)


def _chosen_by(objective: str | None) -> dict[str, Any]:
    """The metric of the sweep; one of unclear direction is to be as low as possible, as a loss is."""
    if objective is None:
        return {}
    name = objective.removeprefix("-")
    goal = "max" if name != objective else guess_goal(name) or "min"
    return {"metric": _sent_as(name), "goal": goal}


def _sent_as(name: str) -> str:
    return RENAMED.get(name, "".join(c if c.isalnum() or c in "_./@:+-" else "_" for c in name)[:100])


def _metrics(logs: Mapping[str, Any], *, skip: Any) -> dict[str, Any]:
    return {
        _sent_as(name): value
        for name, value in logs.items()
        if _is_number(value) and name not in NOT_METRICS and not name.endswith(TIMINGS) and not skip(name)
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _key(folder: Path, *, resumed: bool) -> str:
    """A new key for a new training, the old one for a training that goes on in the same output folder."""
    file = folder / RUN_FILE
    if resumed and file.exists():
        return str(json.loads(file.read_text())["key"])
    key = uuid.uuid4().hex
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"key": key}))
    return key


def _peft_config(model: nn.Module) -> dict[str, Any] | None:
    configs = getattr(model, "peft_config", None)
    if not configs:
        return None
    adapter = getattr(model, "active_adapter", None)
    config = configs.get(adapter if isinstance(adapter, str) else next(iter(configs)))
    return config.to_dict() if config is not None else None


def _config(args: TrainingArguments, model: nn.Module) -> dict[str, Any]:
    """What is worth keeping of a trainer's arguments: those that shape the training."""
    names = (
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "lr_scheduler_type",
        "warmup_steps",
        "weight_decay",
        "max_grad_norm",
        "optim",
        "num_train_epochs",
        "bf16",
        "fp16",
    )
    found = {name: getattr(args, name) for name in names if hasattr(args, name)}
    base = getattr(getattr(model, "config", None), "_name_or_path", "")
    return {
        **{k: v if isinstance(v, int | float | str | bool | None) else str(v) for k, v in found.items()},
        "model": base,
        "trainer_arguments": type(args).__name__,
    }
