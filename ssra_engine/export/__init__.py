"""The kept queries of a run in the layouts that other tools read."""
