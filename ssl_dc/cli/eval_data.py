"""The options that name another data set to look at a trained run with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ssl_dc.cli.options import Assignments, PartOption

F = TypeVar("F", bound=Callable[..., Any])


def eval_data_options(command: F) -> F:
    """Give a command the options ``--eval-data``, ``--eval-data-root`` and ``--eval-data-set``."""
    for option in (
        click.option(
            "--eval-data-set",
            multiple=True,
            callback=Assignments("--eval-data-set"),
            metavar="KEY=VALUE",
            help="Any other option of it, such as test_limit=1000.",
        ),
        click.option("--eval-data-root", type=click.Path(path_type=Path), metavar="DIR", help="Folder that holds it."),
        click.option("--eval-data", cls=PartOption, kind="data", metavar="NAME", help="Another data set to evaluate on."),
    ):
        command = option(command)
    return command
