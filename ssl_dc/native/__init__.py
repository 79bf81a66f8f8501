"""C code of this package: compiled by the machine's own compiler when it is first wanted, kept, and loaded."""
