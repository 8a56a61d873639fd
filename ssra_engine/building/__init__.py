"""What `build` is made of: its data, what depends on what, and the training of the roles."""
