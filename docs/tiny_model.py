"""Makes a small Llama of your own text in minutes, to try the Hugging Face workloads without a download.

``python docs/tiny_model.py FOLDER train.jsonl --fields question`` trains a byte-level BPE tokenizer and a
Llama of a million weights on the named fields, and saves both as any transformers model is saved.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END, PAD = "<|end|>", "<|pad|>"


def main() -> None:
    """Read the arguments, train, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("data", type=Path, help="JSONL")
    parser.add_argument("--fields", nargs="+", default=["text"])
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    texts = read_texts(asked.data, asked.fields)
    tokenizer = make_tokenizer(texts, size=asked.vocabulary)
    torch.manual_seed(asked.seed)
    model = make_model(tokenizer, width=asked.width, layers=asked.layers)
    loss = train(model, tokenizer, texts, steps=asked.steps)
    model.save_pretrained(asked.folder)
    tokenizer.save_pretrained(asked.folder)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{asked.folder}: {size:,} weights, {loss:.3f} nats per token on {asked.data.name}")  # noqa: T201


def read_texts(data: Path, fields: list[str]) -> list[str]:
    """The named fields of every line, one after the other."""
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines() if line.strip()]
    return ["\n".join(str(row[field]) for field in fields) for row in rows]


def make_tokenizer(texts: list[str], *, size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: whatever is written can be read."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=size, special_tokens=[PAD, END], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, pad_token=PAD, eos_token=END)


def make_model(tokenizer: PreTrainedTokenizerFast, *, width: int, layers: int) -> LlamaForCausalLM:
    """An untrained Llama with tied embeddings."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    *,
    steps: int,
    length: int = 96,
    batch_size: int = 16,
    lr: float = 2e-3,
) -> float:
    """Next-token training on windows of the joined texts; returns the mean loss of the last tenth."""
    joined = [*(token for text in texts for token in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id])]
    stream = torch.tensor(joined)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    last: list[float] = []
    for step in range(steps):
        warm = min(1.0, (step + 1) / (0.05 * steps))
        for group in optimizer.param_groups:
            group["lr"] = lr * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        starts = torch.randint(len(stream) - length - 1, (batch_size,))
        windows = torch.stack([stream[start : start + length + 1] for start in starts])
        logits = model(windows[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= 0.9 * steps:
            last.append(loss.item())
    return sum(last) / len(last)


if __name__ == "__main__":
    main()
