"""Plugins: the kinds of part, the hooks that bring parts, the records of parts, and the registry that finds them."""
