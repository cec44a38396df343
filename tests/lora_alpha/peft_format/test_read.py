"""Adapters that PEFT wrote, as starting points."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from lora_alpha.errors import InvalidSpec
from lora_alpha.models.init_adapter import start_from
from lora_alpha.models.packed import inject
from lora_alpha.peft_format.read import check_sweep, find_folder, read_peft_folder
from lora_alpha.spec import Configuration, SweepSpec
from tests.tiny_models import TINY_MODELS

# PEFT 0.21 reads an attribute that transformers 5.24 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
TOKENS = torch.arange(14).reshape(2, 7)


def base() -> nn.Module:
    return TINY_MODELS["llama"](torch.float64).requires_grad_(False).eval()


def written(folder: Path, *, dtype: torch.dtype = torch.float64, **options: Any) -> nn.Module:
    """A PEFT model with random factors, saved to ``folder``."""
    torch.manual_seed(0)
    given = {"r": 3, "lora_alpha": 12, "target_modules": ["q_proj", "up_proj"], "init_lora_weights": False}
    model = get_peft_model(base(), LoraConfig(**{**given, **options}), autocast_adapter_dtype=False)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.data = parameter.data.to(dtype)
    model.save_pretrained(folder)
    return model.to(torch.float64)


def packed(folder: Path, configurations: list[Configuration], **patterns: Any) -> torch.Tensor:
    """Logits of every configuration before training, (N, 2, 7, V)."""
    model = base()
    targets = [name for name, _ in model.named_modules() if name.endswith(("q_proj", "up_proj"))]
    adapters = inject(model, targets, configurations, **patterns)
    start = read_peft_folder(folder).layers
    tensors = {p: {k: torch.from_numpy(a) for k, a in parts.items()} for p, parts in start.items()}
    start_from(adapters, tensors)
    logits = model(TOKENS.repeat(len(configurations), 1)).logits
    places = torch.tensor(adapters.order).argsort()
    return logits.view(len(configurations), *TOKENS.shape, -1)[places]


def configuration(method: str = "lora", *, rank: int = 3, alpha: float = 12.0) -> Configuration:
    return Configuration(method=method, rank=rank, alpha=alpha, lr=1e-3)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"alpha_pattern": {"up_proj": 5}}])
def test_every_configuration_starts_from_the_function_of_the_adapter(
    options: dict[str, Any], tmp_path: Path
) -> None:
    expected = written(tmp_path, **options)(TOKENS).logits
    assert (expected - base()(TOKENS).logits).abs().max() > 1e-2
    configurations = [
        configuration(),
        configuration("rslora", alpha=700.0),
        configuration("lora-fa", alpha=1),
    ]
    for logits in packed(tmp_path, configurations):
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


def test_dora_starts_with_its_magnitudes(tmp_path: Path) -> None:
    expected = written(tmp_path, use_dora=True)(TOKENS).logits
    torch.testing.assert_close(packed(tmp_path, [configuration("dora")])[0], expected, rtol=1e-9, atol=1e-9)


def test_ranks_that_differ_by_layer_fit_the_same_pattern(tmp_path: Path) -> None:
    expected = written(tmp_path, rank_pattern={"up_proj": 5})(TOKENS).logits
    logits = packed(tmp_path, [configuration()], rank_pattern={"up_proj": 5})
    torch.testing.assert_close(logits[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_read_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    model = written(tmp_path, dtype=dtype)
    for path, parts in read_peft_folder(tmp_path).layers.items():
        layer = model.base_model.model.get_submodule(path)
        assert torch.equal(torch.from_numpy(parts["A"]).double(), layer.lora_A["default"].weight)
        assert torch.equal(torch.from_numpy(parts["B"]).double(), layer.lora_B["default"].weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "only LORA"),
        ({"bias": "all"}, "trains biases"),
        ({"modules_to_save": ["lm_head"]}, "replaces whole modules"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base"),
        ({"r": None}, "lacks r or lora_alpha"),
    ],
)
def test_adapters_that_cannot_be_started_from_say_why(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    written(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InvalidSpec, match=message):
        read_peft_folder(tmp_path)


def test_broken_folders_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="no adapter_config"):
        read_peft_folder(tmp_path)
    written(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InvalidSpec, match="no safetensors file, or is cut off"):
        read_peft_folder(tmp_path)
    weights.rename(tmp_path / "adapter_model.bin")
    with pytest.raises(InvalidSpec, match="Pickled weights"):
        read_peft_folder(tmp_path)


def test_a_folder_outside_the_roots_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "secret")
    roots = [tmp_path / "inside"]
    assert find_folder(str(tmp_path / "inside"), roots=roots) == (tmp_path / "inside").resolve()
    for name in (str(tmp_path / "secret"), "link", "../secret"):
        with pytest.raises(InvalidSpec, match="outside the allowed folders"):
            find_folder(name, roots=roots)
    with pytest.raises(InvalidSpec, match="no folder 'nowhere'"):
        find_folder("nowhere", roots=roots)


def test_runs_of_another_rank_or_method_are_refused_together(tmp_path: Path) -> None:
    written(tmp_path)
    train = {"workload": "mlp", "steps": 1, "batch_size": 1}
    grid = {"alphas": [1.0], "lrs": [1e-3], "seeds": [0]}
    adapter = read_peft_folder(tmp_path)
    check_sweep(adapter, SweepSpec(train=train, methods=["lora", "rslora"], ranks=[3], **grid))
    with pytest.raises(InvalidSpec) as caught:
        check_sweep(adapter, SweepSpec(train=train, methods=["pissa", "dora"], ranks=[3, 4], **grid))
    assert [problem.field for problem in caught.value.problems] == ["methods", "methods", "ranks"]


def test_an_adapter_of_other_layers_or_shapes_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    start = read_peft_folder(tmp_path).layers
    tensors = {p: {k: torch.from_numpy(a) for k, a in parts.items()} for p, parts in start.items()}
    model = base()
    names = [name for name, _ in model.named_modules() if name.endswith(("q_proj", "v_proj"))]
    with pytest.raises(InvalidSpec, match=r"lacks 2 of the 4 .*; .*has 2 layers that are not adapted"):
        start_from(inject(copy.deepcopy(model), names, [configuration()]), tensors)
    names = [name for name, _ in model.named_modules() if name.endswith(("q_proj", "up_proj"))]
    with pytest.raises(InvalidSpec, match="has rank 3 in"):
        start_from(inject(copy.deepcopy(model), names, [configuration(rank=1)]), tensors)
    wide = {path: {**parts, "B": parts["B"][:-1]} for path, parts in tensors.items()}
    with pytest.raises(InvalidSpec, match="adapter of another model"):
        start_from(inject(copy.deepcopy(model), names, [configuration()]), wide)
