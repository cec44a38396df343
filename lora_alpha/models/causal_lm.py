"""A tiny causal transformer: the base of ``charlm``, ``carry`` and ``mod-rl``.

Pre-norm blocks with learned positions, merged q·k·v and an output head tied to the token embedding.
Every ``nn.Linear`` is an adapter target; the head is the embedding's transpose, hence no target.

Shapes: R rows (N configurations × B examples), T tokens, D width, H heads, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_alpha.models.transformer import Block


class CausalLM(nn.Module):
    """Next-token logits from token ids, both configuration-major."""

    def __init__(self, *, vocabulary: int, context: int, width: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.empty(context, width))
        self.blocks = nn.ModuleList(
            Block(width=width, num_heads=num_heads, causal=True) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(width))
        nn.init.normal_(self.position, std=1 / math.sqrt(width))

    def forward(self, tokens_RT: Tensor, *, last: int | None = None) -> Tensor:
        """Logits of shape (R, T, V), or (R, last, V) for the last ``last`` positions alone."""
        x_RTD = self.embedding(tokens_RT) + self.position[: tokens_RT.shape[1]]
        final = len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            x_RTD = block(x_RTD, last=last if index == final else None)
        return F.linear(self.norm(x_RTD), self.embedding.weight)
