"""What tests of models and of training share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def full_precision(monkeypatch):
    """RMS norms that keep float64: those of transformers round to float32 on the way."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    for kind in (LlamaRMSNorm, Qwen2RMSNorm):
        monkeypatch.setattr(kind, "forward", forward)
