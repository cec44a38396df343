"""From files and hub names to batches of tokens and pixels. Knows no model."""
