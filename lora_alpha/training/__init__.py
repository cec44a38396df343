"""The packed engine, its optimiser and checkpoints."""
