from __future__ import annotations

import torch
from torch import Tensor

from lora_alpha.workloads import held_out
from lora_alpha.workloads.held_out import score_rows


def test_scores_do_not_depend_on_the_pieces(monkeypatch) -> None:
    rows = torch.arange(10.0)[:, None]
    factor = torch.tensor([1.0, 10.0, 100.0])
    sizes = []

    def score(repeated: Tensor, which: slice) -> Tensor:
        sizes.append(len(repeated))
        values = repeated.view(3, -1) * factor[:, None] + torch.arange(which.start, which.stop)
        return values.reshape(-1, 1)

    whole = score_rows(rows, num_configs=3, tokens_per_row=1, score=score)
    monkeypatch.setattr(held_out, "CPU_TOKENS", 3 * 4)
    pieces = score_rows(rows, num_configs=3, tokens_per_row=1, score=score)

    assert sizes == [30, 12, 12, 6]
    assert whole.shape == (3, 10, 1)
    assert torch.equal(whole, pieces)
    assert torch.equal(whole[:, :, 0], torch.arange(10.0) * (factor[:, None] + 1))
