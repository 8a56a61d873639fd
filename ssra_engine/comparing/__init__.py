"""The baselines of the method, side by side: the same budget, the same seeds, the same embedder."""
