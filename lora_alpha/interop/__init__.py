"""PEFT adapters in and out, a trainer callback, importers of outside runs."""
