"""Runs and sweep files of other tools, one file a source."""
