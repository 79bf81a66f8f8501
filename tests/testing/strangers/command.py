"""Commands: a greeting, and a function that is not one."""

from __future__ import annotations

import click


@click.command
def Hello():
    """Say hello."""
    click.echo("hello")


def PlainFunction():
    """Not a command."""
