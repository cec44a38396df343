"""Two small transformers, one for images and one for captions, that meet in one embedding space.

Patch and token embeddings are plain parameters; every ``nn.Linear`` is an adapter target.

Shapes: R rows (N configurations × B pairs), P patches, T tokens, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_alpha.models.transformer import Block


class Tower(nn.Module):
    """Blocks without a causal mask, mean over positions, projection to the unit sphere."""

    def __init__(self, *, length: int, width: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(length, width))
        self.blocks = nn.ModuleList(
            Block(width=width, num_heads=num_heads, causal=False) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.position, std=1 / math.sqrt(width))

    def forward(self, x_RTD: Tensor) -> Tensor:
        """Unit vectors (R, D)."""
        x_RTD = x_RTD + self.position
        for block in self.blocks:
            x_RTD = block(x_RTD)
        return F.normalize(self.projection(self.norm(x_RTD).mean(1)), dim=-1)


class DualEncoder(nn.Module):
    """Images and captions as unit vectors, and the scale of their cosine similarities."""

    def __init__(
        self,
        *,
        patch_pixels: int,
        num_patches: int,
        vocabulary: int,
        caption_length: int,
        width: int,
        image_layers: int,
        text_layers: int,
        num_heads: int,
    ) -> None:
        super().__init__()
        self.patch_embedding = nn.Parameter(torch.empty(patch_pixels, width))
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.image = Tower(length=num_patches, width=width, num_layers=image_layers, num_heads=num_heads)
        self.text = Tower(length=caption_length, width=width, num_layers=text_layers, num_heads=num_heads)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        nn.init.normal_(self.patch_embedding, std=1 / math.sqrt(patch_pixels))
        nn.init.normal_(self.token_embedding.weight, std=1 / math.sqrt(width))

    def encode_images(self, patches_RPX: Tensor) -> Tensor:
        """(R, D) from pixels (R, P, pixels of a patch)."""
        embedded: Tensor = self.image(patches_RPX @ self.patch_embedding)
        return embedded

    def encode_captions(self, tokens_RT: Tensor) -> Tensor:
        """(R, D) from token ids (R, T)."""
        embedded: Tensor = self.text(self.token_embedding(tokens_RT))
        return embedded

    def forward(self, patches_RPX: Tensor, tokens_RT: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors of both, each (R, D)."""
        return self.encode_images(patches_RPX), self.encode_captions(tokens_RT)
