"""What must hold on a CUDA device: the numbers of the CPU, exact resume, isolation, PEFT, curvature.

Every test runs on ``DEVICE`` and would run on a CPU too (``pytest --noconftest`` does so without a GPU).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_alpha.curvature.coordinates import probed_model
from lora_alpha.curvature.hvp import HessianOperator, twice_differentiable
from lora_alpha.curvature.memory import available_bytes
from lora_alpha.curvature.points import factors_at
from lora_alpha.curvature.probe import run_probe
from lora_alpha.models.dropout import keep_mask
from lora_alpha.models.packed import inject
from lora_alpha.planning.fleet import Fleet
from lora_alpha.planning.planner import pack_limit
from lora_alpha.spec import Configuration, ProbeSettings, TrainSpec
from lora_alpha.training.checkpoints import load_checkpoint, save_checkpoint
from lora_alpha.training.engine import train_pack
from lora_alpha.training.optimizers import make_optimizer
from lora_alpha.training.records import CheckpointDue
from lora_alpha.workloads.registry import load_workload
from tests.lora_alpha.models.peft_start import load_start
from tests.lora_alpha.training import reference
from tests.lora_alpha.training.curves import assert_same_points, curves
from tests.tiny_folders import write_jsonl, write_model
from tests.tiny_models import VOCABULARY, tiny_gpt2, tiny_llama

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CPU = torch.device("cpu")
OPTIONS = {"width": 24, "shift_rank": 4}
METHODS = ("lora", "rslora", "lora-alpha", "lora+", "lora-fa", "pissa", "dora")


def mlp():
    return load_workload("mlp", OPTIONS)


def mlp_spec(**changes) -> TrainSpec:
    given = {"steps": 40, "batch_size": 8, "dtype": "float64", "eval_every": 10, "warmup": 5}
    return TrainSpec(workload="mlp", workload_options=OPTIONS, **{**given, **changes})


def configurations() -> list[Configuration]:
    """Every method at ranks 5, 1 and 3, and full fine-tuning."""
    return [
        *(
            Configuration(
                method=method,
                rank=rank,
                alpha=4.0 * rank,
                lr=1e-3 * (1 + index % 2),
                seed=rank + index,
                lr_ratio=16.0 if method == "lora+" else 1.0,
            )
            for index, method in enumerate(METHODS)
            for rank in (5, 1, 3)
        ),
        Configuration(method="full", lr=1e-4, seed=1),
    ]


@pytest.mark.parametrize("changes", [{"weight_decay": 0.1}, {"clip": 0.05}, {"optimizer": "sgd"}])
def test_a_pack_trains_as_each_configuration_alone(changes):
    train = mlp_spec(**changes)
    packed = curves(train_pack(mlp(), train, configurations(), device=DEVICE))["train_loss"]
    for index, c in enumerate(configurations()):
        task = mlp()
        model, base = (task.build_model(device=DEVICE, dtype=torch.float64) for _ in range(2))
        factors = {}
        if c.method != "full":
            layers = inject(model, task.targets(model), [c]).group_layers()
            factors = {name: (layer.A[0].detach(), layer.B[0].detach()) for name, _, layer in layers}
        plain = reference.plain_model(base, factors, c)
        expected = reference.train_plain(task, plain, c, train)
        got = [packed[step][index] for step in range(1, train.steps + 1)]
        assert got[-1] != got[0]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11, err_msg=str(c))


@pytest.mark.parametrize("changes", [{}, {"lora_dropout": 0.3}, {"dynamics_every": 5}])
def test_the_curve_is_that_of_the_cpu(changes):
    train = mlp_spec(**changes)
    here, there = (curves(train_pack(mlp(), train, configurations(), device=d)) for d in (DEVICE, CPU))
    assert_same_points(here, there)
    for metric, points in there.items():
        for step, values in points.items():
            np.testing.assert_allclose(
                here[metric][step], values, rtol=1e-9, atol=1e-9, err_msg=f"{metric} at step {step}"
            )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_resume_from_a_file_is_bitwise(dtype, tmp_path):
    train = mlp_spec(checkpoint_steps=15, clip=1.0, weight_decay=0.01, lora_dropout=0.2, dtype=dtype)
    whole = curves(train_pack(mlp(), train, configurations(), device=DEVICE))
    events = []
    for event in train_pack(mlp(), train, configurations(), device=DEVICE):
        events.append(event)
        if isinstance(event, CheckpointDue):
            save_checkpoint(tmp_path / "state.pt", event.state)
            break
    state = load_checkpoint(tmp_path / "state.pt")
    resumed = curves([*events, *train_pack(mlp(), train, configurations(), device=DEVICE, resume=state)])
    assert_same_points(resumed, whole)
    for metric, points in whole.items():
        for step, values in points.items():
            np.testing.assert_array_equal(resumed[metric][step], values, err_msg=f"{metric} at {step}")


def test_a_poisoned_configuration_leaves_the_others_bitwise_equal():
    train = mlp_spec(steps=30, dtype="float32")
    healthy = [Configuration(method="lora", rank=r, alpha=8.0, lr=1e-3, seed=r) for r in (2, 4, 4)]
    poison = Configuration(method="lora", rank=4, alpha=1e9, lr=100.0, seed=9)
    clean = curves(train_pack(mlp(), train, [*healthy, healthy[1]], device=DEVICE))
    *events, finished = train_pack(mlp(), train, [*healthy, poison], device=DEVICE)
    dirty = curves(events)
    assert [result.diverged for result in finished.results] == [False, False, False, True]
    assert np.isnan(dirty["train_loss"][train.steps][3])
    for metric, points in clean.items():
        for step, values in points.items():
            np.testing.assert_array_equal(dirty[metric][step][:3], values[:3], err_msg=f"{metric} at {step}")


@pytest.mark.parametrize("features", [7, 2048])
def test_dropout_keeps_the_same_elements_as_on_the_cpu(features):
    keys = [
        (seed, step, part, layer) for seed in (0, 2**31 - 1) for step, part, layer in ((0, 0, 0), (9, 1, 5))
    ]
    found, expected = (
        keep_mask(keys, rows=24, tokens=6, features=features, rate=0.3, device=d) for d in (DEVICE, CPU)
    )
    assert found.device.type == DEVICE.type
    assert torch.equal(found.cpu(), expected)
    assert 0.6 < expected.double().mean() < 0.8


TOKENS, BATCH, STEPS = 7, 3, 4
DECODER_PACK = [
    Configuration(method="dora", rank=2, alpha=6.0, lr=3e-3, seed=1),
    Configuration(method="lora", rank=4, alpha=8.0, lr=3e-3, seed=2),
    Configuration(method="pissa", rank=2, alpha=2.0, lr=1e-3, seed=3),
    Configuration(method="rslora", rank=3, alpha=6.0, lr=3e-3, seed=4),
    Configuration(method="lora", rank=1, alpha=32.0, lr=6e-3, seed=5),
]


def decoder(dtype: torch.dtype) -> tuple[nn.Module, list[str]]:
    model = tiny_llama(dtype).to(DEVICE).eval().requires_grad_(False)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return model, [name for name in linear if name != "lm_head"]


def sequences(seed: int, step: int) -> dict[str, Tensor]:
    """Ids, mask and labels of sequences of unequal length, padded on the right."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    ids = torch.randint(3, VOCABULARY, (BATCH, TOKENS), generator=generator)
    mask = (torch.arange(TOKENS) < torch.tensor([TOKENS, 4, 6])[:, None]).long()
    batch = {"ids": ids * mask, "mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    return {key: value.to(DEVICE) for key, value in batch.items()}


def token_losses(model: nn.Module, batch: dict[str, Tensor], num_configs: int) -> Tensor:
    logits = model(input_ids=batch["ids"], attention_mask=batch["mask"]).logits.float()
    labels = batch["labels"][:, 1:].reshape(num_configs, -1)
    each = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), reduction="none")
    return each.view(num_configs, -1).sum(1) / (labels >= 0).sum(1)


def train_decoders(dtype: torch.dtype) -> tuple[Tensor, list[dict[str, dict[str, Tensor]]]]:
    """Losses (steps, N) of ``DECODER_PACK`` in its order, and the adapters before training."""
    model, targets = decoder(dtype)
    adapters = inject(model, targets, DECODER_PACK)
    start = adapters.export()
    optimizer = make_optimizer(adapters, TrainSpec(workload="", steps=STEPS, batch_size=BATCH))
    losses = []
    for step in range(STEPS):
        own = [sequences(c.seed, step) for c in adapters.configurations]
        losses_N = token_losses(model, {key: torch.cat([b[key] for b in own]) for key in own[0]}, len(own))
        optimizer.zero_grad()
        losses_N.sum().backward()
        optimizer.step(1.0)
        losses.append(losses_N.detach())
    back = torch.tensor(adapters.order).argsort()
    return torch.stack(losses).cpu()[:, back], start


def peft_losses(c: Configuration, start: dict[str, dict[str, Tensor]]) -> Tensor:
    """Losses (steps,) of one configuration with PEFT in float32, from our A and B."""
    import peft

    model, targets = decoder(torch.float32)
    settings = peft.LoraConfig(
        r=c.rank,
        lora_alpha=c.alpha,
        target_modules=targets,
        use_rslora=c.method == "rslora",
        use_dora=c.method == "dora",
    )
    wrapped = peft.get_peft_model(model, settings).eval()
    for name, tensors in start.items():
        load_start(wrapped.get_submodule(f"base_model.model.{name}"), tensors)
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=c.lr, weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        loss = token_losses(wrapped, sequences(c.seed, step), 1)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).cpu()


def test_a_pack_over_llama_trains_as_peft_does():
    losses, start = train_decoders(torch.float32)
    for index, c in enumerate(DECODER_PACK):
        expected = peft_losses(c, start[index])
        assert expected.std() > 1e-3, "a loss that does not move proves nothing"
        torch.testing.assert_close(
            losses[:, index], expected, rtol=1e-4, atol=1e-4, msg=lambda text, c=c: f"{c}\n{text}"
        )


def test_bfloat16_follows_float32():
    exact, rough = (train_decoders(dtype)[0] for dtype in (torch.float32, torch.bfloat16))
    assert torch.isfinite(rough).all()
    torch.testing.assert_close(rough, exact, rtol=0.03, atol=0.03)


# A reward that an untrained model earns now and then: a lower-case letter in the completion.
LETTER = {"exact_weight": 0.0, "reward_pattern": "[a-z]", "pattern_weight": 1.0}
OWN_MODELS = {
    "hf-sft": ("gpt2", {}),
    "hf-reasoning-sft": ("gpt2", {"packing": True, "max_tokens": 128}),
    "hf-rl": ("gpt2", {"group_size": 4, "max_new_tokens": 4, "num_eval": 4, **LETTER}),
    "hf-classify": ("bert", {}),
}


def questions(path: Path) -> Path:
    """A file with a question, an answer and a label in each row."""
    rows = [
        {
            "question": f"{'Well, ' * (a % 4)}{a} + 1?",
            "answer": f"{a + 1}",
            "label": ["zero", "one", "two"][a % 3],
        }
        for a in range(40)
    ]
    return write_jsonl(path, rows)


@pytest.mark.parametrize("name", sorted(OWN_MODELS))
def test_a_model_of_the_users_own_trains_as_on_the_cpu(name, tmp_path):
    """In float64 throughout: the norms of GPT-2 and BERT round nothing."""
    kind, changes = OWN_MODELS[name]
    columns = {"text_column": "question"} if name == "hf-classify" else {}
    options = {
        "model": str(write_model(tmp_path / "model", kind)),
        "data": str(questions(tmp_path / "data.jsonl")),
        "max_tokens": 64,
        **columns,
        **changes,
    }
    pack = [
        Configuration(method=method, rank=rank, alpha=16.0, lr=3e-3, seed=rank)
        for method, rank in (("lora", 4), ("dora", 2), ("lora", 1))
    ]
    spec = TrainSpec(
        workload=name, steps=4, batch_size=2, eval_every=2, warmup=0, lora_dropout=0.1, dtype="float64"
    )
    found = []
    for device in (DEVICE, CPU):
        workload = load_workload(name, options)
        for _ in workload.prepare(tmp_path / "cache"):
            pass
        found.append(curves(train_pack(workload, spec, pack, device=device)))
    here, there = found
    assert (there["update_norm"][4] > 0).all()
    assert_same_points(here, there)
    for metric, points in there.items():
        for step, values in points.items():
            np.testing.assert_allclose(
                here[metric][step], values, rtol=1e-8, atol=1e-8, err_msg=f"{metric} at step {step}"
            )


@dataclass
class Sentences:
    """The part of a workload that a probe needs: next tokens of fixed random sentences."""

    name: str = "sentences"

    def batch(self, model, *, step, seeds, batch_size):
        generator = torch.Generator().manual_seed(1000 * seeds[0] + step)
        device = next(model.parameters()).device
        return {"ids": torch.randint(3, VOCABULARY, (batch_size, 6), generator=generator).to(device)}

    def losses(self, model, batch, *, num_configs):
        logits = model(input_ids=batch["ids"]).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), batch["ids"][:, 1:].flatten())
        return loss[None].expand(num_configs)


PROBED = ("transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_proj")
SCALE, RANK = 1.5, 2


def adapter() -> dict[str, dict[str, Tensor]]:
    """A trained adapter as a run exports it."""
    generator = torch.Generator().manual_seed(1)
    shapes = {PROBED[0]: (48, 16), PROBED[1]: (16, 16)}
    return {
        name: {
            "A": torch.randn(RANK, columns, generator=generator, dtype=torch.float64) / 4,
            "B": torch.randn(rows, RANK, generator=generator, dtype=torch.float64) / 4,
            "scale": torch.tensor(SCALE),
        }
        for name, (rows, columns) in shapes.items()
    }


def gpt2(device: torch.device) -> nn.Module:
    return tiny_gpt2(torch.float64).to(device).eval().requires_grad_(False)


def dense_hessian(space: str) -> Tensor:
    """On the CPU, entry by entry through the weights themselves: no adapter layer, no operator."""
    model, parts = gpt2(CPU), adapter()
    batch = Sentences().batch(model, step=0, seeds=[0], batch_size=4)
    if space == "lora":
        point = [parts[name][factor] for name in PROBED for factor in ("A", "B")]
    else:
        point = [
            model.get_submodule(name).weight.T + SCALE * parts[name]["B"] @ parts[name]["A"]
            for name in PROBED
        ]
    sizes = [tensor.numel() for tensor in point]

    def loss(flat: Tensor) -> Tensor:
        pieces = [piece.view_as(own) for piece, own in zip(flat.split(sizes), point, strict=True)]
        weights = {}
        for index, name in enumerate(PROBED):
            if space == "lora":
                weight = (
                    model.get_submodule(name).weight.T + SCALE * pieces[2 * index + 1] @ pieces[2 * index]
                )
            else:
                weight = pieces[index]
            weights[f"{name}.weight"] = weight.T
        logits = torch.func.functional_call(model, weights, kwargs={"input_ids": batch["ids"]}).logits
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["ids"][:, 1:].flatten())

    with twice_differentiable():
        return torch.autograd.functional.hessian(loss, torch.cat([tensor.reshape(-1) for tensor in point]))


@pytest.fixture(scope="module")
def dense() -> dict[str, Tensor]:
    return {space: dense_hessian(space) for space in ("lora", "full")}


@pytest.mark.parametrize("space", ["lora", "full"])
def test_a_probe_finds_the_dense_spectrum(space, dense):
    exact = torch.linalg.eigvalsh(dense[space])
    model = gpt2(DEVICE)
    factors = factors_at(model, adapter(), method="lora", space=space)
    for kind, expected in (("top", exact.flip(0)[:5]), ("extremes", exact[[-1, 0]])):
        settings = ProbeSettings(kind=kind, space=space, top_k=5, dtype="float64", tolerance=1e-10)
        found = list(run_probe(Sentences(), model, factors, settings, batch_size=4))[-1]
        assert found.converged
        values = (
            found.values("top") if kind == "top" else [found.as_json()[f"lambda_{x}"] for x in ("max", "min")]
        )
        np.testing.assert_allclose(values, expected.numpy(), rtol=0, atol=1e-8)
    assert exact[0] < -1e-4 < 1e-4 < exact[-1]


@pytest.mark.parametrize("space", ["lora", "full"])
@pytest.mark.parametrize("strategy", ["retained", "fresh"])
def test_batched_products_are_single_products(space, strategy, dense):
    model = gpt2(DEVICE)
    factors = factors_at(model, adapter(), method="lora", space=space)
    batch = Sentences().batch(model, step=0, seeds=[0], batch_size=4)
    with probed_model(model, factors, space=space) as coordinates:

        def loss(leaves):
            coordinates.assign(leaves)
            return Sentences().losses(model, batch, num_configs=1).sum()

        operator = HessianOperator(loss, coordinates.tensors(), strategy=strategy)
        generator = torch.Generator().manual_seed(4)
        vectors = torch.randn(3, operator.dim, dtype=torch.float64, generator=generator)
        together = operator.matmat(vectors.to(DEVICE))
        single = torch.stack([operator.matvec(vector) for vector in vectors.to(DEVICE)])
    torch.testing.assert_close(together, single, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(single.cpu(), vectors @ dense[space], rtol=1e-8, atol=1e-8)


def test_the_devices_memory_is_seen_and_the_planned_pack_trains():
    free = available_bytes(DEVICE)
    assert free is not None
    train = mlp_spec(steps=1, warmup=0)
    size = pack_limit(train, Fleet(gpu_bytes=free))
    assert size > 1
    pack = [Configuration(method="lora", rank=4, alpha=8.0, lr=1e-3, seed=seed) for seed in range(size)]
    *_, finished = train_pack(mlp(), train, pack, device=DEVICE)
    assert not any(result.diverged for result in finished.results)


def test_what_is_taken_is_no_longer_free():
    if DEVICE.type != "cuda":
        pytest.skip("the memory of a CPU is taken when it is written")
    torch.cuda.empty_cache()
    before = available_bytes(DEVICE)
    taken = torch.empty(2**30, dtype=torch.uint8, device=DEVICE)
    assert before - available_bytes(DEVICE) >= 2**29
    assert taken.numel() == 2**30
