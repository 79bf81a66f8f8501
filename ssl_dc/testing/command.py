"""What a command must do: checks that `ssl-dc NAME --help` answers."""

from __future__ import annotations

import click

from ssl_dc.testing.check import Subject, expect


def is_a_command(subject: Subject) -> None:
    """The target is a `click.Command`."""
    target = subject.registered.target()
    expect(isinstance(target, click.Command), f"expected a click.Command, saw {target!r}")


def help_is_shown(subject: Subject) -> None:
    """`--help` shows the usage and exits with status 0."""
    from click.testing import CliRunner

    result = CliRunner().invoke(subject.registered.target(), ["--help"], prog_name=f"ssl-dc {subject.name}")
    expect(result.exit_code == 0, f"expected the exit status 0 of --help, saw {result.exit_code}: {result.output.strip()}")
    expect("Usage:" in result.output, f"expected help that shows the usage, saw {result.output!r}")


CHECKS = (is_a_command, help_is_shown)
