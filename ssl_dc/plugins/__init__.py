"""What plugins are: the records that they hand in, the hooks, which plugins there are, the registry of their parts."""
