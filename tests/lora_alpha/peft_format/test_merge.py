from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_alpha.methods import METHODS
from lora_alpha.peft_format.merge import (
    measure_merge_loss,
    merge_warnings,
    predict_merge_loss,
    round_to_bfloat16,
)


def layer(scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    rng = np.random.default_rng(0)
    base = 0.05 * rng.standard_normal((96, 64))
    return base, rng.uniform(-0.1, 0.1, (4, 64)), 0.01 * rng.standard_normal((96, 4)), scale


def test_rounding_is_torchs() -> None:
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 3.7
    assert torch.equal(torch.from_numpy(round_to_bfloat16(values.numpy())), values.bfloat16().float())


@pytest.mark.parametrize("scale", [0.5, 4.0, 64.0, 2048.0])
def test_prediction_agrees_with_a_merge_in_torch(scale: float) -> None:
    base, lora_A, lora_B, _ = layer(scale)
    W0 = torch.from_numpy(base).bfloat16()
    update = scale * torch.from_numpy(lora_B @ lora_A)
    merged = (W0.double() + update).bfloat16().double()
    error = (merged - W0.double() - update).norm()
    predicted = predict_merge_loss(base_norm=float(W0.double().norm()), update_norm=float(update.norm()))
    assert predicted.update == pytest.approx(float(error / update.norm()), rel=0.05)
    assert predicted.base == pytest.approx(float(error / W0.double().norm()), rel=0.05)
    measured = measure_merge_loss(base, lora_A, lora_B, scale)
    assert measured.update == pytest.approx(float(error / update.norm()), rel=1e-6)
    assert measured.base == pytest.approx(float(error / W0.double().norm()), rel=1e-6)


@pytest.mark.parametrize(
    ("scale", "expected"), [(1.0, ["lose more than 1 %"]), (96.0, []), (8192.0, ["scale is so large"])]
)
def test_small_and_large_updates_are_warned_about(scale: float, expected: list[str]) -> None:
    base, lora_A, lora_B, _ = layer(scale)
    parts = {"A": lora_A, "B": lora_B, "scale": np.asarray(scale), "base_norm": np.linalg.norm(base)}
    warnings = list(merge_warnings({"blocks.0.fc": parts}, method=METHODS["lora"]))
    assert len(warnings) == len(expected)
    for warning, text in zip(warnings, expected, strict=True):
        assert text in warning
        assert "blocks.0.fc" in warning


def test_nothing_is_said_without_the_norm_of_the_base() -> None:
    _, lora_A, lora_B, _ = layer(1.0)
    assert not list(
        merge_warnings({"fc": {"A": lora_A, "B": lora_B, "scale": np.asarray(1.0)}}, method=METHODS["lora"])
    )


def test_pissas_start_is_no_update() -> None:
    base, lora_A, lora_B, _ = layer(1.0)
    parts = {"A": lora_A, "B": lora_B, "A0": lora_A, "B0": lora_B, "scale": np.asarray(1.0)}
    assert not list(
        merge_warnings({"fc": {**parts, "base_norm": np.linalg.norm(base)}}, method=METHODS["pissa"])
    )


def test_nothing_is_said_of_a_method_that_rescales_rows() -> None:
    base, lora_A, lora_B, _ = layer(1.0)
    parts = {"A": lora_A, "B": lora_B, "scale": np.asarray(1.0), "base_norm": np.linalg.norm(base)}
    assert list(merge_warnings({"fc": parts}, method=METHODS["lora"]))
    assert not list(merge_warnings({"fc": parts}, method=METHODS["dora"]))
