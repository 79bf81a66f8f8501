"""The paper's tables, run again: which runs each needs, at which scale, and ours beside the paper's numbers."""
