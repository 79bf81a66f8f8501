"""A trained network written for other programs."""
