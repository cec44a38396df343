"""The command line: the outer edge. It starts processes and talks to the API; nothing imports it."""

from command_line.app import main

__all__ = ["main"]
