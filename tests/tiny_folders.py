"""Folders as save_pretrained writes them: tiny models with a tokenizer of bytes, made locally.

Every text is its UTF-8 bytes, one token each, so that tests can count tokens by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.tiny_models import TINY_MODELS

SPECIAL = ("<s>", "</s>", "<pad>")
NUM_TOKENS = 256 + len(SPECIAL)
CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def byte_tokenizer(*, chat: bool = False, bos: bool = False) -> Any:
    """One token a byte, ``</s>`` as the end of text; with ``bos`` every text begins with ``<s>``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
        )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    if chat:
        wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def write_model(
    folder: Path, kind: str = "llama", *, chat: bool = False, bos: bool = False, **changes: Any
) -> Path:
    """A tiny model of ``kind`` (a key of ``TINY_MODELS``) with a byte tokenizer, in ``folder``."""
    # Positions for 256 bytes, and the special tokens as the tokenizer numbers them.
    longer = {"n_positions": 256} if kind == "gpt2" else {"max_position_embeddings": 256}
    ends = {} if kind == "bert" else {"bos_token_id": 0, "eos_token_id": 1}
    model = TINY_MODELS[kind](**{"vocab_size": NUM_TOKENS, **longer, **ends, **changes})
    model.save_pretrained(folder)
    byte_tokenizer(chat=chat, bos=bos).save_pretrained(folder)
    return folder


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """``rows`` as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
