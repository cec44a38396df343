"""The engine over unmodified transformers models: packs, isolation, resume, padding, tied weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_alpha.errors import WorkloadError
from lora_alpha.models.targets import linear_weight
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.checkpoints import load_checkpoint, save_checkpoint
from lora_alpha.training.engine import train_pack
from lora_alpha.training.records import CheckpointDue
from lora_alpha.workloads.base import Workload
from tests.lora_alpha.training.curves import curves
from tests.tiny_models import TINY_MODELS, VOCABULARY

STEPS, BATCH = 8, 3
LENGTHS = (7, 4, 6)
DECODERS = ("llama", "qwen2", "gpt2")
PACK = [
    Configuration(method=method, rank=rank, alpha=8.0, lr=3e-3, seed=seed)
    for seed, (method, rank) in enumerate(
        [("lora", 4), ("dora", 2), ("lora", 1), ("pissa", 3), ("rslora", 2), ("lora-fa", 4), ("lora+", 2)]
    )
]


@dataclass
class NextTokens(Workload):
    """Random sentences of unequal length, padded on the right to ``width`` tokens."""

    make: Callable[[torch.dtype], nn.Module]
    width: int = max(LENGTHS)
    left_out: tuple[str, ...] = ("lm_head",)
    name: str = "next-tokens"
    model: nn.Module | None = field(default=None, repr=False)

    def build_model(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        self.model = self.make(dtype).to(device).eval().requires_grad_(False)
        return self.model

    def targets(self, model: nn.Module) -> list[str]:
        kinds = {"Linear", "Conv1D"}
        linear = [name for name, module in model.named_modules() if type(module).__name__ in kinds]
        return [name for name in linear if name not in self.left_out]

    def batch(self, model: nn.Module, *, step: int, seeds: Any, batch_size: int) -> dict[str, Tensor]:
        del model
        rows = [self._sentences(1000 * seed + step, batch_size) for seed in seeds]
        return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}

    def losses(self, model: nn.Module, batch: dict[str, Tensor], *, num_configs: int) -> Tensor:
        logits = model(input_ids=batch["ids"], attention_mask=batch["mask"]).logits
        labels = batch["ids"].masked_fill(batch["mask"] == 0, -100)[:, 1:].reshape(num_configs, -1)
        each = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), reduction="none")
        return each.view(num_configs, -1).sum(1) / (labels >= 0).sum(1)

    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        batch = self.batch(model, step=10**6, seeds=[0] * num_configs, batch_size=BATCH)
        return {"eval_loss": self.losses(model, batch, num_configs=num_configs)}

    def _sentences(self, key: int, count: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(key)
        ids = torch.randint(3, VOCABULARY, (count, max(LENGTHS)), generator=generator)
        ids = F.pad(ids, (0, self.width - ids.shape[1]))
        mask = (torch.arange(self.width) < torch.tensor(LENGTHS)[:count, None]).long()
        return {"ids": ids * mask, "mask": mask}


def spec(**changes: Any) -> TrainSpec:
    given = {"steps": STEPS, "batch_size": BATCH, "eval_every": 4, "warmup": 0, "lora_dropout": 0.2}
    return TrainSpec(workload="", **{**given, **changes})


def train(
    workload: NextTokens, pack: list[Configuration], **changes: Any
) -> dict[str, dict[int, np.ndarray]]:
    return curves(train_pack(workload, spec(**changes), pack))


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_configurations_curve_is_the_same_alone_and_in_a_pack(family, dropout, full_precision):
    settings = {"dtype": "float64", "lora_dropout": dropout}
    together = train(NextTokens(TINY_MODELS[family]), PACK, **settings)
    assert np.ptp(list(together["train_loss"].values()), axis=0).min() > 1e-2
    for index, c in enumerate(PACK):
        alone = train(NextTokens(TINY_MODELS[family]), [c], **settings)
        for metric, points in alone.items():
            for step, values in points.items():
                np.testing.assert_allclose(
                    together[metric][step][index], values[0], rtol=1e-10, atol=1e-10, err_msg=f"{c} {metric}"
                )


class Poisoned(NextTokens):
    """The loss of seed 9 is not finite at step 2: its gradients, then its weights and activations follow."""

    def batch(self, model: nn.Module, *, step: int, seeds: Any, batch_size: int) -> dict[str, Tensor]:
        poison = [torch.nan if (seed, step) == (9, 2) else 1.0 for seed in seeds]
        clean = super().batch(model, step=step, seeds=seeds, batch_size=batch_size)
        return {**clean, "poison": torch.tensor(poison)}

    def losses(self, model: nn.Module, batch: dict[str, Tensor], *, num_configs: int) -> Tensor:
        return super().losses(model, batch, num_configs=num_configs) * batch["poison"]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("method", ["lora", "dora", "pissa"])
def test_a_poisoned_configuration_leaves_the_others_bitwise_equal(family, method):
    pack = [*PACK, Configuration(method=method, rank=2, alpha=8.0, lr=1e-3, seed=9)]
    clean = train(NextTokens(TINY_MODELS[family]), pack)
    *events, finished = train_pack(Poisoned(TINY_MODELS[family]), spec(), pack)
    dirty = curves(events)
    assert [result.diverged_step for result in finished.results] == [None] * len(PACK) + [3]
    assert np.isnan(dirty["train_loss"][STEPS][-1])
    for metric, points in clean.items():
        for step, values in points.items():
            np.testing.assert_array_equal(
                dirty[metric][step][:-1], values[:-1], err_msg=f"{metric} at step {step}"
            )


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_resume_from_a_file_is_bitwise_with_dropout_on(family, tmp_path):
    settings = spec(checkpoint_steps=3, clip=1.0, weight_decay=0.01)
    whole = curves(train_pack(NextTokens(TINY_MODELS[family]), settings, PACK))
    events = []
    for event in train_pack(NextTokens(TINY_MODELS[family]), settings, PACK):
        events.append(event)
        if isinstance(event, CheckpointDue):
            save_checkpoint(tmp_path / "state.pt", event.state)
            break
    state = load_checkpoint(tmp_path / "state.pt")
    rest = train_pack(NextTokens(TINY_MODELS[family]), settings, PACK, resume=state)
    resumed = curves([*events, *rest])
    assert {metric: sorted(points) for metric, points in resumed.items()} == {
        metric: sorted(points) for metric, points in whole.items()
    }
    for metric, points in whole.items():
        for step, values in points.items():
            np.testing.assert_array_equal(resumed[metric][step], values, err_msg=f"{metric} at step {step}")


class Labels(NextTokens):
    """The first token decides the label. Every token of a BERT sees all others, those after it too."""

    def losses(self, model: nn.Module, batch: dict[str, Tensor], *, num_configs: int) -> Tensor:
        logits = model(input_ids=batch["ids"], attention_mask=batch["mask"]).logits
        labels = batch["ids"][:, 0] % logits.shape[-1]
        return F.cross_entropy(logits, labels, reduction="none").view(num_configs, -1).mean(1)


@pytest.mark.parametrize("family", [*DECODERS, "bert"])
def test_padding_reaches_no_loss_and_no_gradient(family, full_precision):
    kind = Labels if family == "bert" else NextTokens
    tight, loose = (
        train(kind(TINY_MODELS[family], width=width), PACK, dtype="float64")
        for width in (max(LENGTHS), max(LENGTHS) + 5)
    )
    assert np.ptp(list(tight["train_loss"].values()), axis=0).min() > 1e-2
    for metric, points in tight.items():
        for step, values in points.items():
            np.testing.assert_allclose(loose[metric][step], values, rtol=1e-10, atol=1e-10, err_msg=metric)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_tied_embeddings_stay_tied_and_frozen(family):
    workload = NextTokens(TINY_MODELS[family])
    fresh = TINY_MODELS[family]().state_dict()
    losses = train(workload, PACK)["train_loss"]
    assert (losses[STEPS] != losses[1]).all()
    model = workload.model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight, fresh["lm_head.weight"])
    for name in workload.targets(TINY_MODELS[family]()):
        base = model.get_submodule(name).base
        weight = fresh[f"{name}.weight"]
        assert torch.equal(linear_weight(base), weight.T if type(base).__name__ == "Conv1D" else weight)


class WithoutPooler(NextTokens):
    """A BERT whose loss is made from its tokens: the pooler's output leads nowhere."""

    def losses(self, model: nn.Module, batch: dict[str, Tensor], *, num_configs: int) -> Tensor:
        hidden = model.bert(input_ids=batch["ids"], attention_mask=batch["mask"]).last_hidden_state
        return hidden.square().reshape(num_configs, -1).mean(1)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize(
    ("left_out", "unused"),
    [(("classifier",), "bert.pooler.dense"), (("bert.pooler.dense",), "classifier")],
    ids=["result-unused", "never-called"],
)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_target_that_the_loss_does_not_reach_stops_the_pack_with_its_name(
    left_out, unused, optimizer, dropout
):
    workload = WithoutPooler(TINY_MODELS["bert"], left_out=left_out)
    with pytest.raises(WorkloadError, match=rf"1 of the adapted layers \({unused}\): leave them out"):
        train(workload, PACK, optimizer=optimizer, lora_dropout=dropout)
