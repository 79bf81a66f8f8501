"""What frozen features are worth, on each route, and what they cost."""
