"""Workloads on a transformers model and the user's own data, by folder or by name on the Hugging Face hub."""

from lora_alpha.extras import require

require("torch", "transformers", "huggingface_hub", by="lora_alpha.workloads.huggingface")
