"""How Sphinx makes the site from the pages in this folder: ``sphinx-build -W -b html docs site``."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for site_pages

project = "ssl-dc"
author = "the ssl-dc authors"
copyright = "the ssl-dc authors, MIT licence"  # noqa: A001  # the name that Sphinx reads
release = version = metadata.version("ssl-dc")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.mermaid",
    "site_pages",
]
# the tables of the paper stand in the results as files, which pages link to
exclude_patterns = ["results/reproduction/table*.md"]

smartquotes = False  # options begin with --

html_theme = "furo"
html_title = f"ssl-dc {release}"
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["dollarmath", "html_image"]
myst_fence_as_directive = ["math", "mermaid"]
myst_heading_anchors = 4
myst_dmath_allow_digits = False

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_ivar = True
