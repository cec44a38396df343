"""Loading a model, its heads, its adapted layers, its losses and samples. Knows no data set."""
