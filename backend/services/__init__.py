"""Use cases, one plain function each."""
