"""What a person sees of a training while it runs: in a terminal, in a notebook, in a log file."""
