"""Help of every command and option; commands and options that there are not."""

from __future__ import annotations

from importlib import import_module

import click
import pytest

from helpers.command_line import done, refused
from ssl_dc.cli import main
from ssl_dc.cli.commands import SUMMARIES


def test_listed_help_is_each_commands_own() -> None:
    for name, summary in SUMMARIES.items():
        command: click.Command = import_module(f"ssl_dc.cli.{name}").command
        assert command.name == name
        assert command.short_help == summary


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_command_and_option_has_help(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"
    assert "--help" in done(name, "--help")


def test_an_unknown_command_or_option_is_refused() -> None:
    assert "trane" in refused("trane")
    assert "--budgt" in refused("train", "--budgt", "0.1")
