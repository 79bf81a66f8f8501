"""Measures the time of a network's routes, dense and gated, and of their layers."""
