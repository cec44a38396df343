"""Benchmarks: ratios against rivals, measured in one run on one machine."""
