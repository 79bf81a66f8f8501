"""The paper's tables and figures, reproduced: the runs that each needs, and our numbers beside the paper's."""
