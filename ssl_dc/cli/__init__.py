"""The command line: one file a command, each imported when it is called."""

from __future__ import annotations

import os
from importlib import import_module

import click

from ssl_dc import __version__

COMMANDS = {
    "config": "Show or check a complete config.",
    "cost": "Show what a network costs, layer by layer, dense and gated.",
    "evaluate": "Evaluate a run's features on held-out images.",
    "plugins": "List the parts that runs can be composed of, and their options.",
    "reproduce": "Run a table of the paper again, ours beside the paper's numbers.",
    "train": "Pre-train an encoder that is dense and gated at once.",
}
"""Each command with its one line of help: kept here so that listing them imports none (a test holds them equal)."""


class LazyGroup(click.Group):
    """A group whose commands are imported when called, so that help stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The commands, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"ssl_dc.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ssl-dc")
def main() -> None:
    """Train one image encoder that is a dense and a gated network at once.

    Start with: ssl-dc train --objective vicreg --gating dgnet --budget 0.1
    """
    # Threads that wait by spinning take the cores from the processes that prepare images, and from each other when anything
    # else runs: beside one busy process a training fell to a tenth of its speed. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
