"""Measurements of what the pipeline made."""
