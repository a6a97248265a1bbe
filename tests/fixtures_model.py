"""Session fixtures of the model side."""
