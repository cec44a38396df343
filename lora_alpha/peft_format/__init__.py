"""Adapters in PEFT's format: written, read, merged into their base."""
