"""Models: backbones, how they are trained, and how prompts become their tokens."""
