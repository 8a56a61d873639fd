"""Where the shards of a run are worked on."""
