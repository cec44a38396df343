"""``hf-sft`` and ``hf-reasoning-sft``: supervised fine-tuning of a causal language model on its completions.

Shapes: N configurations, B examples (packed rows where examples are packed) each, R = N·B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lora_alpha.catalog.huggingface import SFTOptions
from lora_alpha.workloads.base import Batch
from lora_alpha.workloads.huggingface.batching import (
    drawn_indices,
    pack_examples,
    packed_rows,
    padded_rows,
)
from lora_alpha.workloads.huggingface.causal_lm import CausalLMWorkload
from lora_alpha.workloads.huggingface.corpus import Corpus
from lora_alpha.workloads.huggingface.sources import Roots
from lora_alpha.workloads.huggingface.token_losses import check_packing, chosen_losses


class SFTWorkload(CausalLMWorkload):
    """Next-token prediction on completions, prompts given."""

    name = "hf-sft"
    options: SFTOptions

    def __init__(self, options: SFTOptions, *, roots: Roots = None) -> None:
        super().__init__(options, roots=roots)
        self._rows: list[list[int]] = []

    def batch(self, model: nn.Module, *, step: int, seeds: Sequence[int], batch_size: int) -> Batch:
        """Every example once an epoch, in each seed's own order.

        Returns:
            ``tokens``, ``learnt``, ``real`` (R, T), for packed rows ``segments`` and ``positions``, and
            ``num_learnt`` (N,), the learnt tokens of each configuration.
        """
        train = self.corpus.train
        count = len(self._rows) if self.options.packing else len(train)
        drawn = drawn_indices(seeds, step=step, count=batch_size, num_examples=count).flatten()
        if self.options.packing:
            batch = packed_rows(train, [self._rows[index] for index in drawn])
        else:
            batch = padded_rows(train, drawn)
        batch["num_learnt"] = batch["learnt"].view(len(seeds), -1).sum(1)
        device = next(model.parameters()).device
        return {name: value.to(device) for name, value in batch.items()}

    def losses(self, model: nn.Module, batch: Batch, *, num_configs: int) -> Tensor:
        """Cross-entropy, mean over each configuration's learnt tokens, nats, (N,)."""
        losses_RT = chosen_losses(model, batch)
        return losses_RT.view(num_configs, -1).sum(1) / batch["num_learnt"].clamp(min=1)

    def _use(self, corpus: Corpus) -> None:
        if self.options.packing:
            self._rows = pack_examples(corpus.train, max_tokens=self.options.max_tokens)

    def build_model(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The base; packed rows need a model that takes positions and masks of ours."""
        model = super().build_model(device=device, dtype=dtype)
        if self.options.packing:
            check_packing(model)
        return model


class ReasoningSFTWorkload(SFTWorkload):
    """The same on worked solutions."""

    name = "hf-reasoning-sft"
