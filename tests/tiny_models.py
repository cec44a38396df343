"""Tiny transformers models, made in memory: random weights from fixed seeds, the real architectures' code.

Dropout of the models is left at each family's default, which is not 0 for GPT-2 and BERT: whoever trains
adapters must put the base in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

VOCABULARY = 61
WIDTH = 16
LAYERS = 2
HEADS = 2
CONTEXT = 32
PIXELS, PATCH = 8, 4


def tiny_llama(dtype: torch.dtype = torch.float32, **changes) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return _made(LlamaForCausalLM, LlamaConfig(**{**_decoder(), **changes}), dtype)


def tiny_qwen2(dtype: torch.dtype = torch.float32, **changes) -> nn.Module:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return _made(Qwen2ForCausalLM, Qwen2Config(**{**_decoder(), **changes}), dtype)


def tiny_gpt2(dtype: torch.dtype = torch.float32, **changes) -> nn.Module:
    """Its linear layers are ``Conv1D``, its head is tied to the embedding."""
    from transformers import GPT2Config, GPT2LMHeadModel

    given = {
        "vocab_size": VOCABULARY,
        "n_embd": WIDTH,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_positions": CONTEXT,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "use_cache": False,
    }
    return _made(GPT2LMHeadModel, GPT2Config(**{**given, **changes}), dtype)


def tiny_bert(dtype: torch.dtype = torch.float32, **changes) -> nn.Module:
    """A classifier of three labels."""
    from transformers import BertConfig, BertForSequenceClassification

    given = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": CONTEXT,
        "num_labels": 3,
        "pad_token_id": 0,
    }
    return _made(BertForSequenceClassification, BertConfig(**{**given, **changes}), dtype)


def tiny_clip(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Text of up to ``CONTEXT`` tokens, whose last must be ``VOCABULARY - 1``, and 8×8 pictures."""
    from transformers import CLIPConfig, CLIPModel

    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "projection_dim": WIDTH,
    }
    config = CLIPConfig(
        text_config={
            **tower,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": CONTEXT,
            "bos_token_id": 1,
            "eos_token_id": VOCABULARY - 1,
        },
        vision_config={**tower, "image_size": PIXELS, "patch_size": PATCH},
        projection_dim=WIDTH,
    )
    return _made(CLIPModel, config, dtype)


TINY_MODELS: dict[str, Callable[..., nn.Module]] = {
    "llama": tiny_llama,
    "qwen2": tiny_qwen2,
    "gpt2": tiny_gpt2,
    "bert": tiny_bert,
    "clip": tiny_clip,
}


def _decoder() -> dict[str, object]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "use_cache": False,
    }


def _made(kind: type[nn.Module], config: object, dtype: torch.dtype) -> nn.Module:
    """The model with weights large enough that logits differ between inputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return model.to(dtype)
