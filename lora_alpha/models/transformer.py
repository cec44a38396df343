"""The pre-norm transformer block that the small built-in networks share.

Shapes: R rows (N configurations × B examples), T tokens, D width, H heads, K = D/H.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)).

    q, k and v come from one linear layer (one GEMM and one adapter instead of three). Attention goes through
    ``scaled_dot_product_attention``; under ``sdpa_kernel(SDPBackend.MATH)`` it can be differentiated twice.
    """

    def __init__(self, *, width: int, num_heads: int, causal: bool) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(
                f"got width {width} and {num_heads} heads: the width must be a multiple of the heads"
            )
        self.num_heads = num_heads
        self.causal = causal
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x_RTD: Tensor, *, last: int | None = None) -> Tensor:
        """The block's output, (R, T, D); (R, last, D) where only the last ``last`` positions are wanted.

        Keys and values still come from every position: only work whose result nobody reads is left out.
        """
        num_rows, num_tokens, width = x_RTD.shape
        qkv = self.qkv(self.attention_norm(x_RTD))
        q_RHTK, k_RHTK, v_RHTK = qkv.view(num_rows, num_tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        attended_RHTK = F.scaled_dot_product_attention(q_RHTK, k_RHTK, v_RHTK, is_causal=self.causal)
        if last is not None:
            attended_RHTK, x_RTD = attended_RHTK[:, :, -last:], x_RTD[:, -last:]
        merged_RTD = attended_RHTK.transpose(1, 2).reshape(num_rows, -1, width)
        x_RTD = x_RTD + self.attention_out(merged_RTD)
        fed_RTD: Tensor = self.down(F.gelu(self.up(self.feed_forward_norm(x_RTD))))
        return x_RTD + fed_RTD
