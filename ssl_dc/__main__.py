"""``python -m ssl_dc``: the command line, for launchers that start a module."""

from __future__ import annotations

from ssl_dc.cli import main

if __name__ == "__main__":
    main(prog_name="ssl-dc")
