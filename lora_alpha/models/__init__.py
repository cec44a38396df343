"""LoRA layers, packed LoRA layers, small built-in networks and the fine-tuning methods."""
