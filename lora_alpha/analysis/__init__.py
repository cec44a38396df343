"""From losses of cells to optima, laws and verdicts: numpy and scipy, no torch."""
