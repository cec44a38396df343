"""``python -m lora_alpha.cli``: how the supervisor starts its children."""

from lora_alpha.cli import main

main()
