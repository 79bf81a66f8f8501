"""A network compiled for a processor: a plan of steps that computes only what its masks keep."""
