"""Options that several commands share, and the one table from named options to config keys."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ssl_dc.config import Layer, file_layer, override_layer
from ssl_dc.errors import SslDcError
from ssl_dc.plugins import registry

F = TypeVar("F", bound=Callable[..., Any])


class PartName(click.ParamType):  # type: ignore[type-arg]  # generic only to type checkers
    """The name of a part; the registry is asked when completing, and checks with the rest of the config."""

    name = "name"

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002
        """The names that begin with what is typed."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in registry().names(self.kind) if name.startswith(incomplete)]


class Number(click.ParamType):  # type: ignore[type-arg]
    """A number, left to the config to check, so that all errors of a call are told together."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        """A number where it is one, else the text."""
        try:
            return json.loads(value)
        except (TypeError, ValueError):
            return value


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
    Named("--objective", "objective.name", "Self-supervised objective.", PartName("objective")),
    Named("--gating", "gating.name", "Gating scheme; none trains the dense baseline.", PartName("gating")),
    Named(
        "--budget",
        "budget.target",
        "Share of the dense cost that the gated route may pay, above 0, at most 1.",
        Number(),
    ),
    Named("--budget-control", "budget.control", "adaptive (meets the budget) or penalty (the paper's)."),
    Named("--encoder", "encoder.name", "How the routes share weights: shared (1x).", PartName("encoder")),
    Named("--backbone", "backbone.name", "Network.", PartName("backbone")),
    Named("--width", "backbone.width", "Channels of its first stage.", Number()),
    Named("--stem", "backbone.stem", "Its first layers: imagenet, cifar or strided."),
    Named("--bn", "norm.name", "Batch norm of the routes: separate or shared.", PartName("norm")),
    Named("--routes", "routes", "Routes of the two views, such as gated,dense."),
    Named("--gate-warmup", "training.gate_warmup", "First epochs without gates.", Number()),
    Named(
        "--data",
        "data.name",
        "Data set: digits, cifar10, cifar100, stl10, folder, parquet.",
        PartName("data"),
    ),
    Named("--data-root", "data.root", "Folder that holds the data."),
    Named("--download", "data.download", "Download the data if it is not there.", flag_only=True),
    Named("--limit", "data.limit", "Use only this many training images, balanced over classes.", Number()),
    Named("--image-size", "data.image_size", "Side of the images, in pixels.", Number()),
    Named("--epochs", "training.epochs", "Passes over the training images.", Number()),
    Named("--batch-size", "training.batch_size", "Images a step, over all processes.", Number()),
    Named("--lr", "optimizer.lr", "Peak learning rate.", Number()),
    Named("--seed", "seed", "Seed of everything random.", Number()),
    Named("--workers", "training.workers", "Processes that prepare images.", Number()),
    Named("--precision", "training.precision", "no (float32), fp16 or bf16."),
    Named("--tracker", "training.tracker", "Where metrics go besides metrics.jsonl: none or tensorboard."),
]
"""Every named option of ``train``; everything else of the config is reached by ``--set``."""


def config_options(command: F) -> F:
    """Add ``--config``, the named options and ``--set``; the command gets what they say as ``layers``, to be resolved."""

    @functools.wraps(command)
    def with_config(*args: Any, config: Path | None, assignments: tuple[str, ...], **kwargs: Any) -> Any:
        given = {option: kwargs.pop(option.parameter) for option in NAMED}
        return command(*args, layers=_layers(config, given, assignments), **kwargs)

    wrapped: Any = with_config
    for option in (
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="KEY=VALUE",
            help="Any other setting, by dotted key.",
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


def readable_errors(command: F) -> F:
    """Turn what a user can mend into one message on standard error and the right exit status."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except SslDcError as error:
            click.echo(f"ssl-dc: {error}", err=True)
            sys.exit(error.exit_status)
        except KeyboardInterrupt:
            click.echo(
                "ssl-dc: interrupted; a training goes on from its last resume point by: ssl-dc train --resume RUN", err=True
            )
            sys.exit(130)
        except BrokenPipeError:
            # the reader of our output went away, as with `| head`; nothing is left to say
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)

    return guarded  # type: ignore[return-value]


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")


def print_json(document: Any) -> None:
    """Print one JSON document to standard output."""
    click.echo(json.dumps(document, indent=2))


def _click_option(named: Named) -> Callable[[F], F]:
    if named.flag_only:
        return click.option(named.flag, named.parameter, is_flag=True, default=None, help=named.help)
    return click.option(named.flag, named.parameter, type=named.type, help=named.help)


def _layers(config: Path | None, given: dict[Named, Any], assignments: tuple[str, ...]) -> list[Layer]:
    said = {named: value for named, value in given.items() if value is not None}
    named_layer = Layer(
        {named.key: value.split(",") if named.key == "routes" else value for named, value in said.items()},
        {named.key: named.flag for named in said},
    )
    files = [file_layer(config)] if config else []
    return [*files, named_layer, override_layer(assignments)]
