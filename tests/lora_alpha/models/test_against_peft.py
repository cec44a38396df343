"""Packs over unmodified transformers models against PEFT, one configuration at a time, on the same data.

``lora``, ``rslora``, ``dora``, ``lora-alpha`` (PEFT's LoRA at the law's α) and ``lora+`` (PEFT's own
optimiser) are compared from equal A and B. Three methods need a word:

- ``pissa``: in float32 PEFT starts from its own SVD and ours from ours. PEFT's SVD is always in float32, so
  that in float64 it is given our start.
- ``lora-fa``: PEFT's LoRA with A frozen, under ``torch.optim.AdamW``. PEFT's ``create_lorafa_optimizer``
  trains something else: it multiplies B's gradient by (A·Aᵀ)⁻¹/s² before Adam, in bfloat16 where it can.
- ``full``: PEFT has no such method; ``tests/lora_alpha/training/test_engine.py`` compares it with torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import peft
import pytest
import torch
from peft.optimizers import create_loraplus_optimizer
from torch import Tensor, nn
from torch.nn import functional as F

from lora_alpha.models.packed import inject, pack_order
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.optimizers import make_optimizer
from tests.lora_alpha.models.peft_start import load_start
from tests.tiny_models import PIXELS, TINY_MODELS, VOCABULARY

# PEFT asks transformers by a name that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

STEPS, BATCH, TOKENS = 6, 3, 7
LR, DECAY = 3e-3, 0.1
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}

SUMS = [  # methods that add a low-rank product: the whole layer is one operation
    Configuration(method="lora", rank=4, alpha=8.0, lr=LR, seed=1),
    Configuration(method="lora-fa", rank=3, alpha=12.0, lr=2 * LR, seed=2),
    Configuration(method="lora", rank=1, alpha=32.0, lr=LR, seed=3),
    Configuration(method="pissa", rank=2, alpha=2.0, lr=LR / 3, seed=4),
    Configuration(method="rslora", rank=3, alpha=6.0, lr=LR, seed=5),
    Configuration(method="lora+", rank=2, alpha=4.0, lr=LR / 2, lr_ratio=16.0, seed=6),
    Configuration(method="lora-alpha", rank=2, alpha=256 * 2**0.5, lr=LR / 30, seed=7),
    Configuration(method="lora", rank=4, alpha=64.0, lr=LR, seed=8),
]
MIXED = [
    Configuration(method="dora", rank=2, alpha=6.0, lr=LR, seed=9),
    *SUMS[::3],
    Configuration(method="dora", rank=3, alpha=3.0, lr=2 * LR, seed=10),
]


@dataclass(frozen=True)
class Task:
    """Targets, a batch of one configuration, and the losses (N,) of a configuration-major batch."""

    targets: Callable[[str], bool]
    batch: Callable[[int], dict[str, Tensor]]
    losses: Callable[[nn.Module, dict[str, Tensor], int], Tensor]


def text_batch(key: int) -> dict[str, Tensor]:
    """Sequences of unequal length, padded on the right; labels of both kinds."""
    generator = torch.Generator().manual_seed(key)
    ids = torch.randint(3, VOCABULARY - 1, (BATCH, TOKENS), generator=generator)
    mask = (torch.arange(TOKENS) < torch.tensor([TOKENS, 4, 6])[:, None]).long()
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "next": ids.masked_fill(mask == 0, -100),
        "label": torch.randint(3, (BATCH,), generator=generator),
    }


def pair_batch(key: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(key)
    batch = text_batch(key)
    end = batch["attention_mask"].sum(1) - 1
    batch["input_ids"][torch.arange(BATCH), end] = VOCABULARY - 1
    batch["pixel_values"] = torch.randn(BATCH, 3, PIXELS, PIXELS, generator=generator)
    return batch


def next_token_losses(model: nn.Module, batch: dict[str, Tensor], num_configs: int) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    labels = batch["next"][:, 1:].reshape(num_configs, -1)
    each = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), reduction="none")
    return each.view(num_configs, -1).sum(1) / (labels >= 0).sum(1)


def label_losses(model: nn.Module, batch: dict[str, Tensor], num_configs: int) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return F.cross_entropy(logits, batch["label"], reduction="none").view(num_configs, -1).mean(1)


def contrastive_losses(model: nn.Module, batch: dict[str, Tensor], num_configs: int) -> Tensor:
    dtype = next(model.parameters()).dtype
    found = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        pixel_values=batch["pixel_values"].to(dtype),
    )
    text_NBD, image_NBD = (
        x.view(num_configs, -1, x.shape[-1]) for x in (found.text_embeds, found.image_embeds)
    )
    similar_NBB = 10 * text_NBD @ image_NBD.mT
    target = torch.arange(similar_NBB.shape[1])
    return torch.stack([F.cross_entropy(s, target) + F.cross_entropy(s.T, target) for s in similar_NBB])


def inner(name: str) -> bool:
    return "lm_head" not in name  # a head that is tied to the embedding is no target


DECODER = Task(inner, text_batch, next_token_losses)
TASKS = {
    "llama": DECODER,
    "qwen2": DECODER,
    "gpt2": DECODER,
    "bert": Task(inner, text_batch, label_losses),
    "clip": Task(inner, pair_batch, contrastive_losses),
}


def build(family: str, dtype: torch.dtype) -> tuple[nn.Module, list[str]]:
    model = TINY_MODELS[family](dtype).eval().requires_grad_(False)
    linear = [name for name, module in model.named_modules() if type(module).__name__ in {"Linear", "Conv1D"}]
    return model, [name for name in linear if TASKS[family].targets(name)]


def batches(task: Task, seed: int) -> list[dict[str, Tensor]]:
    return [task.batch(1000 * seed + step) for step in range(STEPS)]


def train_packed(family: str, dtype: torch.dtype, configurations: Sequence[Configuration], **patterns):
    """Losses (steps, N) in the caller's order, and each configuration's adapter before and after."""
    task = TASKS[family]
    model, targets = build(family, dtype)
    adapters = inject(model, targets, configurations, **patterns)
    start = adapters.export()
    spec = TrainSpec(workload="", steps=STEPS, batch_size=BATCH, weight_decay=DECAY)
    optimizer = make_optimizer(adapters, spec)
    data = [batches(task, c.seed) for c in adapters.configurations]
    losses = []
    for step in range(STEPS):
        batch = {key: torch.cat([own[step][key] for own in data]) for key in data[0][step]}
        losses_N = task.losses(model, batch, len(configurations))
        optimizer.zero_grad()
        losses_N.sum().backward()
        optimizer.step(1.0)
        losses.append(losses_N.detach())
    back = torch.tensor(adapters.order).argsort()
    return torch.stack(losses)[:, back], start, adapters.export()


def peft_model(family: str, dtype: torch.dtype, c: Configuration, start, **patterns) -> nn.Module:
    """PEFT's adapter with our A and B; PiSSA in float32 keeps PEFT's own start."""
    model, targets = build(family, dtype)
    own_start = c.method == "pissa" and dtype == torch.float32
    settings = peft.LoraConfig(
        r=c.rank,
        lora_alpha=c.alpha,
        target_modules=targets,
        use_rslora=c.method == "rslora",
        use_dora=c.method == "dora",
        init_lora_weights="pissa" if own_start else True,
        fan_in_fan_out=family == "gpt2",
        **patterns,
    )
    wrapped = peft.get_peft_model(model, settings, autocast_adapter_dtype=False)
    for name in targets:
        layer = wrapped.get_submodule(f"base_model.model.{name}")
        if not own_start:
            load_start(layer, start[name])
        if c.method == "lora-fa":
            layer.lora_A["default"].weight.requires_grad_(False)
    return wrapped.eval()


def train_peft(family: str, dtype: torch.dtype, c: Configuration, start, **patterns):
    """Losses (steps,) and the trained model."""
    task = TASKS[family]
    model = peft_model(family, dtype, c, start, **patterns)
    if c.method == "lora+":
        optimizer = create_loraplus_optimizer(
            model, torch.optim.AdamW, lr=c.lr, loraplus_lr_ratio=c.lr_ratio, loraplus_weight_decay=DECAY
        )
    else:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=c.lr, weight_decay=DECAY)
    losses = []
    for batch in batches(task, c.seed):
        loss = task.losses(model, batch, 1)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses), model


def assert_equal_training(family, dtype, configurations, **patterns):
    losses, start, end = train_packed(family, dtype, configurations, **patterns)
    tolerance = TOLERANCE[dtype]
    for index, c in enumerate(configurations):
        expected, model = train_peft(family, dtype, c, start[index], **patterns)
        assert expected.std() > 1e-3, "a loss that does not move proves nothing"
        torch.testing.assert_close(
            losses[:, index], expected, rtol=tolerance, atol=tolerance, msg=lambda text, c=c: f"{c}\n{text}"
        )
        for name, tensors in end[index].items():
            layer = model.get_submodule(f"base_model.model.{name}")
            mine = tensors["B"] @ tensors["A"]
            theirs = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
            torch.testing.assert_close(mine, theirs, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("pack", [SUMS, MIXED], ids=["sums", "mixed"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("family", list(TASKS))
def test_a_pack_trains_as_peft_does_one_at_a_time(family, dtype, pack, request):
    if dtype == torch.float64:
        request.getfixturevalue("full_precision")
    assert pack_order(pack) != list(range(len(pack))), "the pack's order must differ from the caller's"
    assert_equal_training(family, dtype, pack)


def test_rank_and_alpha_patterns_mean_what_they_mean_in_peft(full_precision):
    patterns = {
        "rank_pattern": {"q_proj": 3, r"layers\.1\.mlp\.up_proj": 1},
        "alpha_pattern": {"v_proj": 40.0, "q_proj": 2.0},
    }
    pack = [c for c in SUMS if c.method in {"lora", "rslora"}]
    assert_equal_training("llama", torch.float64, pack, **patterns)
