"""The command line. Each command has a file, which is imported when the command is called."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import Any

import click

from ssl_dc.cli.messages import end_at_signals, end_quickly, keep_standard_streams, reported
from ssl_dc.errors import DialledWarning, OldNameWarning, PluginError, SlowerWarning
from ssl_dc.plugins.discovery import NO_PLUGINS, PLUGIN_FILES
from ssl_dc.plugins.installed import check_installed, is_distribution
from ssl_dc.plugins.registry import did_you_mean, registry
from ssl_dc.printable import printable


class LazyGroup(click.Group):
    """A group whose commands are parts. A command is imported when it is called, so that help answers at once."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run. Errors found while the command line is read are one readable message too."""
        if not args and kwargs.get("args") is None:  # called as a program, not by another one
            keep_standard_streams()
            end_quickly()
            end_at_signals()
        with reported():
            return super().main(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take out ``--plugin`` and ``--no-plugins``, wherever they stand, before anything asks the registry."""
        files, none, rest = _plugin_choice(args, ctx)
        chosen = {NO_PLUGINS: "1" if none else None, PLUGIN_FILES: os.pathsep.join(files) or None}
        _set_environment(ctx, {name: value for name, value in chosen.items() if value is not None})
        if rest != ["--version"] or not is_distribution():  # the version needs no part, and is to answer at once
            check_installed()
        if files:  # the user named them: to pass over one in silence would hide its fault
            for each in registry().broken:
                if each.distribution in files:
                    click.echo(f"ssl-dc: left out: {printable(f'{each.distribution}: {each.reason}')}", err=True)
        return super().parse_args(ctx, rest)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The commands, sorted."""
        with reported():
            return registry().names("command")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported."""
        with reported():
            if not registry().has("command", cmd_name):
                return None
            command = registry().find("command", cmd_name).target()
            if not isinstance(command, click.Command):
                raise PluginError(f"command {cmd_name!r} must be a click.Command, not a {type(command).__name__}")
            return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called. The message about a wrong name suggests the nearest ones."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(f"{error.message}{hint}", ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. An error that the user can mend is one message, also if a plugin's command raises it."""
        with reported():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, registry().find("command", name).part.summary) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ssl-dc", prog_name="ssl-dc")
@click.option(
    "--plugin",
    metavar="FILE",
    multiple=True,
    help="A plugin of one file, such as ./my_objective.py. It may stand anywhere.",
)
@click.option("--no-plugins", is_flag=True, help="Only the built-in parts and those of --plugin. It may stand anywhere.")
def main(plugin: tuple[str, ...], no_plugins: bool) -> None:  # noqa: ARG001  # taken by LazyGroup before
    """Train one image encoder that is a dense and a gated network at once.

    Start with: ssl-dc train --budget 0.1
    """
    # Threads that spin while they wait take cores from the processes that prepare images. Beside one busy process, training
    # fell to a tenth of its speed. The variable is read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.showwarning = _show_warning


_show_any = warnings.showwarning


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Show our own warnings as one line, and others as Python does."""
    if issubclass(category, (OldNameWarning, SlowerWarning, DialledWarning)):
        click.echo(f"ssl-dc: {printable(str(message))}", err=True)
    else:
        _show_any(message, category, *where, **more)


def _plugin_choice(args: Iterable[str], ctx: click.Context) -> tuple[list[str], bool, list[str]]:
    """The files of ``--plugin``, whether ``--no-plugins`` is given, and the remaining words."""
    files: list[str] = []
    rest: list[str] = []
    none = False
    words = iter(args)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word == "--no-plugins":
            none = True
        elif word == "--plugin" or word.startswith("--plugin="):
            file = word.partition("=")[2] or next(words, "")
            if not file.endswith(".py") or not os.path.isfile(file):
                raise click.UsageError(f"--plugin {file}: name a Python file that is there, such as ./my_objective.py", ctx)
            files.append(os.path.abspath(file))
        else:
            rest.append(word)
    return files, none, rest


def _set_environment(ctx: click.Context, values: dict[str, str]) -> None:
    """Set environment variables until the call ends, so that processes started meanwhile load the same plugins."""
    if not values:
        return
    before = {name: os.environ.get(name) for name in values}

    def undo() -> None:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        registry.cache_clear()

    os.environ.update(values)
    registry.cache_clear()
    ctx.call_on_close(undo)
