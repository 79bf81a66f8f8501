"""``ssl-dc doctor``."""

from __future__ import annotations

import click

from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import json_option, print_json


@click.command("doctor", short_help="Show what this machine offers, and what will be slow and why.")
@readable_errors
@json_option
def command(as_json: bool) -> None:
    """Show versions, devices, the compiler and plugins of this machine, and what will be slow and why.

    The kernel of the compiled networks is compiled if that was not done before. Put what this prints into bug reports.
    """
    from ssl_dc.doctor import diagnose

    found = diagnose()
    if as_json:
        print_json(found.as_json())
    else:
        from ssl_dc.cli.tables import print_report

        print_report(found)
