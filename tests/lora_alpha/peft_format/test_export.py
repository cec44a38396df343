"""Exported adapters give PEFT the very function that the packed model computes."""

from __future__ import annotations

import copy
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_alpha.errors import Conflict
from lora_alpha.methods import METHODS
from lora_alpha.models.packed import inject
from lora_alpha.peft_format.export import PeftAdapter, read_run_adapter, to_peft, write_folder, write_zip
from lora_alpha.spec import Configuration
from tests.tiny_models import PIXELS, TINY_MODELS

# PEFT 0.21 reads an attribute that transformers 5.24 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

LOW_RANK = [name for name, method in METHODS.items() if method.uses_rank]


def mlp() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16, bias=False), nn.ReLU(), nn.Linear(16, 5)]
    return nn.Sequential(*layers).double().requires_grad_(False)


class Pairs(nn.Module):
    """CLIP's similarities of two pictures and two texts, as a model of tokens alone."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip
        self.pixels = torch.randn(2, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(2))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.clip(input_ids=tokens, pixel_values=self.pixels.double()).logits_per_image


def transformer(name: str) -> nn.Module:
    model = TINY_MODELS[name](torch.float64).requires_grad_(False).eval()
    return Pairs(model) if name == "clip" else model


def linears(model: nn.Module) -> list[str]:
    kinds = (nn.Linear, Conv1D)
    return [name for name, m in model.named_modules() if isinstance(m, kinds) and name != "lm_head"]


def exported(
    model: nn.Module,
    inputs: torch.Tensor,
    configuration: Configuration,
    folder: Path,
    targets: list[str] | None = None,
    **patterns: dict[str, float],
) -> tuple[PeftAdapter, torch.Tensor]:
    """What an adapter with random factors exports to, and the output it was exported from."""
    packed = copy.deepcopy(model)
    adapters = inject(packed, targets or linears(model), [configuration], **patterns)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, _, layer in adapters.group_layers():
            for parameter in layer.roles().values():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    output = packed(inputs)
    tensors = {
        f"{layer}/{name}": tensor.contiguous()
        for layer, parts in adapters.export()[0].items()
        for name, tensor in parts.items()
    }
    save_file(tensors, folder / "run.safetensors")
    adapter = to_peft(read_run_adapter(folder / "run.safetensors"), method=configuration.method)
    write_folder(adapter, folder / "peft")
    return adapter, output if isinstance(output, torch.Tensor) else output.logits


def logits(model: nn.Module, inputs: torch.Tensor, folder: Path) -> torch.Tensor:
    loaded = PeftModel.from_pretrained(copy.deepcopy(model), folder / "peft", autocast_adapter_dtype=False)
    with torch.no_grad():
        output = loaded(inputs)
    return output if isinstance(output, torch.Tensor) else output.logits


def configuration(method: str, *, rank: int = 3, alpha: float = 16.0) -> Configuration:
    return Configuration(method=method, rank=rank, alpha=alpha, lr=1e-3, seed=5)


@pytest.mark.parametrize("method", LOW_RANK)
@pytest.mark.parametrize("name", ["mlp", "llama", "qwen2", "gpt2", "bert", "clip"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
def test_peft_gives_the_logits_of_the_run(name: str, method: str, tmp_path: Path) -> None:
    model = mlp() if name == "mlp" else transformer(name)
    inputs = torch.randn(4, 12).double() if name == "mlp" else torch.arange(14).reshape(2, 7)
    adapter, expected = exported(model, inputs, configuration(method), tmp_path)
    before = model(inputs)
    before = before if isinstance(before, torch.Tensor) else before.logits
    assert (expected - before).abs().max() > 1e-2, "an adapter that does nothing would show nothing"
    torch.testing.assert_close(logits(model, inputs, tmp_path), expected, rtol=1e-9, atol=1e-9)
    assert adapter.config["use_rslora"] == (method == "rslora")
    assert adapter.config["use_dora"] == (method == "dora")
    assert adapter.config["r"] == (6 if method == "pissa" else 3)


@pytest.mark.parametrize("method", LOW_RANK)
def test_patterns_come_out_as_peft_patterns(method: str, tmp_path: Path) -> None:
    model, inputs = transformer("llama"), torch.arange(14).reshape(2, 7)
    patterns = {"rank_pattern": {"q_proj": 5, "layers.1.mlp.up_proj": 2}, "alpha_pattern": {"v_proj": 7.5}}
    adapter, expected = exported(model, inputs, configuration(method), tmp_path, **patterns)
    torch.testing.assert_close(logits(model, inputs, tmp_path), expected, rtol=1e-9, atol=1e-9)
    assert len(adapter.config["rank_pattern"]) == 3
    assert adapter.config["use_rslora"] == (method == "rslora")
    if method not in {"rslora", "pissa"}:
        assert set(adapter.config["alpha_pattern"].values()) == {7.5}


def test_a_layer_at_the_top_does_not_catch_frozen_layers_of_the_same_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inner = nn.Sequential()
    inner.add_module("fc", nn.Linear(6, 6))
    model = nn.Sequential()
    model.add_module("block", inner)
    model.add_module("fc", nn.Linear(6, 6))
    model.double().requires_grad_(False)
    inputs = torch.randn(3, 6).double()
    _, expected = exported(model, inputs, configuration("lora"), tmp_path, targets=["fc"])
    torch.testing.assert_close(logits(model, inputs, tmp_path), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("rank", "alpha"), [(3, 16), (7, 1024), (48, 724.0773439350247), (5, 0.3)])
@pytest.mark.parametrize("method", ["lora", "rslora"])
def test_alpha_is_written_as_it_was_meant(method: str, rank: int, alpha: float) -> None:
    scale = np.float32(configuration(method, rank=rank, alpha=alpha).scale)
    factors = {"A": np.zeros((rank, 4), np.float32), "B": np.zeros((6, rank), np.float32)}
    adapter = to_peft({"a.b": {**factors, "scale": np.asarray(scale)}}, method=method)
    assert adapter.config["lora_alpha"] == pytest.approx(alpha, rel=1e-7)
    if alpha == int(alpha):
        assert adapter.config["lora_alpha"] == alpha


def test_full_fine_tuning_is_refused() -> None:
    with pytest.raises(Conflict, match="no low-rank adapter"):
        to_peft({"a": {"weight": np.zeros((2, 2))}}, method="full")


def test_the_archive_holds_the_folder(tmp_path: Path) -> None:
    adapter, _ = exported(transformer("llama"), torch.arange(4)[None], configuration("lora"), tmp_path)
    with (tmp_path / "a.zip").open("wb") as file:
        write_zip(adapter, file)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert sorted(archive.namelist()) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
        archive.extractall(tmp_path / "unpacked")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "unpacked" / name).read_bytes() == (tmp_path / "peft" / name).read_bytes()
    config = json.loads((tmp_path / "unpacked" / "adapter_config.json").read_text())
    assert PeftConfig.from_pretrained(str(tmp_path / "unpacked")).r == config["r"] == 3
