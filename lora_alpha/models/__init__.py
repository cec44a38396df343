"""LoRA layers, packed LoRA layers, small built-in networks and the fine-tuning methods."""

from lora_alpha.extras import require

require("torch", by="lora_alpha.models")
