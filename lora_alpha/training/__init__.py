"""The packed engine, its optimiser and checkpoints."""

from lora_alpha.extras import require

require("torch", by="lora_alpha.training")
