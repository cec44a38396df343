"""The command line: the outer edge. It starts processes and talks to the API; nothing imports it."""

from lora_alpha.cli.app import main

__all__ = ["main"]
