"""The paper's tables and figures, run again: which runs each needs, at which scale, and ours beside the paper's."""
