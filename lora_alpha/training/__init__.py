"""The packed engine, its optimiser, checkpoints and the pack planner."""
