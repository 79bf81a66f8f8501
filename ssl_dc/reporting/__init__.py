"""Reports of runs: one page that shows them, and a table that compares them."""
