"""Workloads on a transformers model and the user's own data, by folder or by name on the Hugging Face hub."""
