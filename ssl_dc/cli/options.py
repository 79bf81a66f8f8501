"""Options that several commands share, and the one table from named options to config keys."""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ssl_dc.config import Layer, file_layer, override_layer
from ssl_dc.config.layers import json_or_text
from ssl_dc.errors import OldNameWarning
from ssl_dc.plugins.kinds import KINDS, config_sections
from ssl_dc.plugins.registry import registry

F = TypeVar("F", bound=Callable[..., Any])

DOTTED = re.compile(r"--([a-z]\w*(?:\.\w+)+)(?:=(.*))?", re.DOTALL)
"""``--section.key`` or ``--section.key=value``."""


class PartOption(click.Option):
    """An option that names a part; the registry is asked for help and completion, and checks with the rest of the config.

    Args:
        kind: The kind of part.
    """

    def __init__(self, *args: Any, kind: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind = kind

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:  # noqa: ARG002
        """The names that begin with what is typed."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in registry().names(self.kind) if name.startswith(incomplete)]

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The help, and the names that there are."""
        record = super().get_help_record(ctx)
        return record and (record[0], f"{record[1]}  [{', '.join(registry().names(self.kind))}]")


class Number(click.ParamType):  # type: ignore[type-arg]  # generic only to type checkers
    """A number, left to the config to check, so that all errors of a call are told together."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        """A number where it is one, else the text."""
        return json_or_text(value) if isinstance(value, str) else value


class Assignments:
    """A click callback that turns ``KEY=VALUE`` words into a mapping; None when there are none.

    Args:
        flag: The option, for messages.
    """

    def __init__(self, flag: str) -> None:
        self.flag = flag

    def __call__(self, ctx: click.Context, param: click.Parameter, words: Sequence[str]) -> dict[str, Any] | None:  # noqa: ARG002
        """The mapping."""
        for word in words:
            if not re.fullmatch(r"[^=]+=.*", word, re.DOTALL):
                raise click.UsageError(f"{self.flag} {word}: write {self.flag} KEY=VALUE")
        return {key: json_or_text(text) for key, _, text in (word.partition("=") for word in words)} or None


class ConfigCommand(click.Command):
    """A command that takes any setting as ``--section.key VALUE``; the config checks it, by the chosen part's options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the dotted options out, and parse the rest."""
        rest: list[str] = []
        dotted: list[str] = []
        words = iter(args)
        for word in map(_by_new_flag, words):
            match = DOTTED.fullmatch(word)
            if word == "--":
                rest += [word, *words]
            elif match is None:
                rest.append(word)
            else:
                key, value = match.groups()
                if value is None:
                    value = next(words, None)
                if value is None or DOTTED.fullmatch(value):
                    raise click.UsageError(f"Option '--{key}' requires an argument.", ctx)
                dotted.append(f"{key}={value}")
        ctx.meta["dotted"] = dotted
        return super().parse_args(ctx, rest)


def _by_new_flag(word: str) -> str:
    """The word, with an old name of an option replaced; warns of it."""
    flag, equals, value = word.partition("=")
    if flag not in OLD_FLAGS:
        return word
    new, gone_in = OLD_FLAGS[flag]
    warnings.warn(f"{flag} is {new} now; the old name goes in {gone_in}", OldNameWarning, stacklevel=2)
    return f"{new}{equals}{value}"


class Named:
    """One named option: the config key it sets, and how it is shown.

    Args:
        flag: As typed.
        key: Dotted config key.
        help: One line.
        type: How it is parsed.
        flag_only: Whether it is a switch that sets the key to true.
    """

    def __init__(self, flag: str, key: str, help: str, type: Any = str, flag_only: bool = False) -> None:  # noqa: A002
        self.flag, self.key, self.help, self.type, self.flag_only = flag, key, help, type, flag_only

    @property
    def parameter(self) -> str:
        """The name of the parameter that click passes."""
        return "named_" + self.key.replace(".", "_")


NAMED = [
    *(Named(f"--{kind}", f"{kind}.name", KINDS[kind].section or "") for kind in config_sections()),
    Named("--budget", "budget.target", "Share of the dense cost that the gated route may pay: above 0, to 1.", Number()),
    Named("--budget-control", "budget.control", "adaptive (meets the budget) or penalty (the paper's)."),
    Named("--width", "backbone.width", "Channels of the backbone's first stage.", Number()),
    Named("--stem", "backbone.stem", "First layers of the backbone."),
    Named("--routes", "routes", "Route of each view, such as gated,dense."),
    Named("--gate-warmup", "training.gate_warmup", "First epochs without gates.", Number()),
    Named("--data-root", "data.root", "Folder that holds the data."),
    Named("--download", "data.download", "Download the data if it is not there.", flag_only=True),
    Named("--limit", "data.limit", "Use only this many training images, balanced over classes.", Number()),
    Named("--bad-images", "data.bad_images", "An image that cannot be read: stop, or skip, counted and listed."),
    Named("--image-size", "data.image_size", "Side of the images, in pixels.", Number()),
    Named("--epochs", "training.epochs", "Passes over the training images.", Number()),
    Named("--batch-size", "training.batch_size", "Images a step, over all processes.", Number()),
    Named("--lr", "optimizer.lr", "Peak learning rate.", Number()),
    Named("--seed", "seed", "Seed of everything random.", Number()),
    Named("--workers", "training.workers", "Processes that prepare images.", Number()),
    Named("--precision", "training.precision", "no (float32), fp16 or bf16."),
]
"""The named options of ``train``: one for each kind of part, and the settings most often changed. Dotted keys reach all."""

OLD_FLAGS = {"--bn": ("--norm", "0.2")}
"""Options by another name now: the new one, and the first version that does not know the old one."""


def config_options(command: F) -> F:
    """Add ``--config``, the named options and ``--set``; the command gets what they say as ``layers``, to be resolved.

    For a :class:`ConfigCommand`, which takes dotted options as well.
    """

    @functools.wraps(command)
    def with_config(*args: Any, config: Path | None, assignments: tuple[str, ...], **kwargs: Any) -> Any:
        given = {option: kwargs.pop(option.parameter) for option in NAMED}
        dotted = click.get_current_context().meta["dotted"]
        return command(*args, layers=_layers(config, given, dotted, assignments), **kwargs)

    wrapped: Any = with_config
    for option in (
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="KEY=VALUE",
            help="Any other setting, by dotted key; the same as --KEY VALUE.",
        ),
        *(_click_option(named) for named in reversed(NAMED)),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            help="YAML file with settings; options rank above it.",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]  # click's decorators lose the type


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")


def print_json(document: Any) -> None:
    """Print one JSON document to standard output."""
    click.echo(json.dumps(document, indent=2))


def _click_option(named: Named) -> Callable[[F], F]:
    if named.flag_only:
        return click.option(named.flag, named.parameter, is_flag=True, default=None, help=named.help)
    section, _, key = named.key.partition(".")
    if key == "name":
        return click.option(named.flag, named.parameter, cls=PartOption, kind=section, metavar="NAME", help=named.help)
    return click.option(named.flag, named.parameter, type=named.type, help=named.help)


def _layers(config: Path | None, given: dict[Named, Any], dotted: Sequence[str], assignments: Sequence[str]) -> list[Layer]:
    said = {named: value for named, value in given.items() if value is not None}
    named_layer = Layer(
        {named.key: value.split(",") if named.key == "routes" else value for named, value in said.items()},
        {named.key: named.flag for named in said},
    )
    files = [file_layer(config)] if config else []
    return [*files, named_layer, override_layer(dotted, "--"), override_layer(assignments)]
