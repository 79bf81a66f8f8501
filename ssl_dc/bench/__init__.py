"""Times of a network's routes, dense and gated, and where they go."""
