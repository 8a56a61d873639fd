"""Compiled kernels and their plain references. Nothing here imports the rest of the package."""
