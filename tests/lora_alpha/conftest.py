"""What tests of models, of training and of clients share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from tests.lora_alpha.loopback import Loopback


@pytest.fixture
def full_precision(monkeypatch):
    """RMS norms that keep float64: those of transformers round to float32 on the way."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    for kind in (LlamaRMSNorm, Qwen2RMSNorm):
        monkeypatch.setattr(kind, "forward", forward)


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[Loopback]:
    from tests.lora_alpha.loopback import Loopback  # the whole service: only for tests that talk to it

    service = Loopback(tmp_path / "home")
    service.start()
    yield service
    for client in service.clients:
        client.close()
    if service.thread.is_alive():
        service.stop()
