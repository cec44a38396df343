"""Folders with tiny encoders and data for them, made locally."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.tiny_folders import NUM_TOKENS, byte_tokenizer, write_jsonl, write_model

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 230), "grey": (120, 120, 120)}


def write_bare_bert(folder: Path) -> Path:
    """A tiny BERT as a pretrained encoder is: no classifier in it."""
    write_model(folder, "bert")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_clip(folder: Path) -> Path:
    """A tiny CLIP for 8×8 pictures and captions of bytes."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tower = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 16,
    }
    text = {"vocab_size": NUM_TOKENS, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1}
    config = CLIPConfig(
        text_config={**tower, **text},
        vision_config={**tower, "image_size": 8, "patch_size": 4},
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    byte_tokenizer(bos=True).save_pretrained(folder)
    size = {"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}}
    CLIPImageProcessorPil(**size).save_pretrained(folder)
    return folder


def picture(number: int) -> tuple[Image.Image, str]:
    """A square of one of four colours, a little different each time, with its caption."""
    name = list(COLOURS)[number % 4]
    noise = np.random.default_rng(number).integers(-20, 20, (20 + number % 5, 16, 3))
    pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels), f"a {name} square"


def write_pictures(folder: Path, count: int = 48) -> Path:
    """``count`` pictures below ``folder`` and the file of pairs beside them."""
    (folder / "pictures").mkdir(parents=True)
    rows = []
    for number in range(count):
        image, caption = picture(number)
        image.save(folder / "pictures" / f"{number}.png")
        rows.append({"image": f"pictures/{number}.png", "caption": caption})
    return write_jsonl(folder / "pairs.jsonl", rows)
