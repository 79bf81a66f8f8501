"""Options that several commands share, and the table of the options that set a key of the config."""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ssl_dc.cli.numbers import FiniteRange
from ssl_dc.config import Layer, file_layer, override_layer
from ssl_dc.config.layers import json_or_text, normalised, stacked
from ssl_dc.errors import ConfigError, OldNameWarning
from ssl_dc.plugins.kinds import KINDS, config_sections
from ssl_dc.plugins.registry import registry

F = TypeVar("F", bound=Callable[..., Any])

DOTTED = re.compile(r"--([a-z]\w*(?:\.\w+)+)(?:=(.*))?", re.DOTALL)
"""``--section.key`` or ``--section.key=value``."""


class PartOption(click.Option):
    """An option that names a part. Help and completion ask the registry; the config checks the name with everything else.

    Args:
        kind: The kind of part.
    """

    def __init__(self, *args: Any, kind: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind = kind

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:  # noqa: ARG002
        """The names of parts that begin with what is typed."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in registry().names(self.kind) if name.startswith(incomplete)]

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The help, followed by the names of the parts."""
        record = super().get_help_record(ctx)
        return record and (record[0], f"{record[1]}  [{', '.join(registry().names(self.kind))}]")


class Number(click.ParamType):  # type: ignore[type-arg]  # generic only to type checkers
    """A number. The config checks it, so that all errors of a call are told together."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        """The number, or the text itself if it is none."""
        return json_or_text(value) if isinstance(value, str) else value


class Assignments:
    """A click callback that turns ``KEY=VALUE`` words into a mapping, or into None if there are none.

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


def assignments_option(flag: str, help: str) -> Callable[[F], F]:  # noqa: A002  # as click calls it
    """An option that takes ``KEY=VALUE`` any number of times, as a mapping or None."""
    return click.option(flag, multiple=True, callback=Assignments(flag), metavar="KEY=VALUE", help=help)


class ConfigCommand(click.Command):
    """A command that takes any setting as ``--section.key VALUE``. The options of the chosen part check it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take out the dotted options and parse the rest."""
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
    """The word. If it is an old name of an option, the new one, with a warning."""
    flag, equals, value = word.partition("=")
    if flag not in OLD_FLAGS:
        return word
    new, gone_in = OLD_FLAGS[flag]
    warnings.warn(f"{flag} is {new} now; the old name goes in {gone_in}", OldNameWarning, stacklevel=2)
    return f"{new}{equals}{value}"


class Setting:
    """An option that sets one key of the config.

    Args:
        flag: The option, as users type it.
        key: The dotted key that it sets.
        help: What it does, one line.
        type: The click type of its value.
        flag_only: Whether it is a switch without a value, which sets the key to true.
    """

    def __init__(self, flag: str, key: str, help: str, type: Any = str, flag_only: bool = False) -> None:  # noqa: A002
        self.flag, self.key, self.help, self.type, self.flag_only = flag, key, help, type, flag_only

    @property
    def parameter(self) -> str:
        """The name by which click passes its value."""
        return "setting_" + self.key.replace(".", "_")


SETTINGS = [
    *(Setting(f"--{kind}", f"{kind}.name", KINDS[kind].section or "") for kind in config_sections()),
    Setting(
        "--budget", "budget.target", "Share of the dense cost for the gated route: 0.3, or several: 0.1:0.9.", Number()
    ),
    Setting("--budget-control", "budget.control", "adaptive (meets the budget) or penalty (the paper's)."),
    Setting("--width", "backbone.width", "Channels of the backbone's first stage.", Number()),
    Setting("--stem", "backbone.stem", "First layers of the backbone."),
    Setting("--routes", "routes", "Route of each view, such as gated,dense."),
    Setting("--gate-warmup", "training.gate_warmup", "First epochs without gates.", Number()),
    Setting("--data-root", "data.root", "Folder that holds the data."),
    Setting("--download", "data.download", "Download the data if it is not there.", flag_only=True),
    Setting("--limit", "data.limit", "Use only this many training images, balanced over classes.", Number()),
    Setting(
        "--bad-images",
        "data.bad_images",
        "An image that cannot be read: stop, or skip it, counted.  [default: stop; skip without labels]",
    ),
    Setting("--recipe", "recipe", "fitted to pictures and machine, or paper: the data set's fixed one."),
    Setting("--image-size", "data.image_size", "Side of the images, in pixels.", Number()),
    Setting("--epochs", "training.epochs", "Passes over the training images.", Number()),
    Setting("--init", "training.init", "Weights to start from: a run's folder, or a file of a ResNet's weights."),
    Setting("--batch-size", "training.batch_size", "Images a step, over all processes.", Number()),
    Setting("--lr", "optimizer.lr", "Peak learning rate.", Number()),
    Setting("--watch-every", "training.watch_every", "Steps between two looks at what is learned.", Number()),
    Setting("--watch-data", "training.watch_data", "Labelled data set that is looked at.  [default: the run's own]"),
    Setting("--watch-root", "training.watch_root", "Folder that holds it."),
    Setting("--keep-best", "training.keep_best", "Keep the best model of the looks, too: by knn/dense, rankme/gated, ..."),
    Setting("--seed", "seed", "Seed of everything random.", Number()),
    Setting("--workers", "training.workers", "Processes that prepare images.", Number()),
    Setting("--precision", "training.precision", "no (float32), fp16 or bf16."),
]
"""An option for each kind of part, and one for each setting that is often changed. Dotted options reach all others."""

OLD_FLAGS = {"--bn": ("--norm", "0.2")}
"""Options that were renamed: the old name, the new one, and the first version that does not take the old one."""


def config_options(command: F) -> F:
    """Give a :class:`ConfigCommand` the options ``--config``, ``--set`` and those of :data:`SETTINGS`.

    The command is called with ``layers``: what all these options say, with the dotted ones, to be resolved into a config.
    """

    @functools.wraps(command)
    def with_config(*args: Any, config: Path | None, assignments: tuple[str, ...], **kwargs: Any) -> Any:
        given = {setting: kwargs.pop(setting.parameter) for setting in SETTINGS}
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
        *(_click_option(setting) for setting in reversed(SETTINGS)),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            help="YAML file with settings; options rank above it.",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]  # click's decorators lose the type


device_option = click.option(
    "--device",
    metavar="DEVICE",
    help="Where features are computed: cpu, cuda, cuda:1, mps or auto.  [default: auto, the best there is]",
)
"""Unset unless the user sets it: a command may have to refuse it."""


cpu_option = click.option(
    "--device", metavar="DEVICE", help="cpu or auto; nothing but the CPU is used here.  [default: auto]"
)
"""In place of ``device_option`` where a command measures the CPU."""


def only_cpu(device: str | None, reason: str) -> None:
    """Refuse a ``--device`` that a command cannot use, with the reason.

    Raises:
        ConfigError: If it is not the CPU, or ``auto``, which then is the CPU.
    """
    if device not in (None, "auto", "cpu"):
        raise ConfigError(f"--device {device}: {reason}; leave it out")


data_root_option = click.option(
    "--data-root", type=click.Path(path_type=Path), metavar="DIR", help="Where the run's data is now, if it has moved."
)


def eval_data_options(command: F) -> F:
    """Give a command that looks at held-out images the options ``--eval-data``, ``--eval-data-root`` and ``-set``."""
    return _with_options(
        command,
        click.option("--eval-data", cls=PartOption, kind="data", metavar="NAME", help="Another data set to evaluate on."),
        click.option("--eval-data-root", type=click.Path(path_type=Path), metavar="DIR", help="Folder that holds it."),
        assignments_option("--eval-data-set", "Any other option of it, such as test_limit=1000."),
    )


budget_option = click.option(
    "--budget",
    type=Number(),
    metavar="SHARE",
    help="Share of the dense cost for the gated route, in place of that of training: 0.25.",
)
"""In commands that look at a trained run."""


runs_argument = click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RUN...")

time_option = click.option(
    "--time", is_flag=True, help="Also measure milliseconds an image on this machine's CPU, by the executor."
)

seconds_option = click.option(
    "--seconds", type=FiniteRange(0.1), default=10.0, show_default=True, help="With --time: how long each run is measured."
)


def jobs_options(command: F) -> F:
    """Give a command that trains many runs the options ``--jobs`` and ``--slurm``."""
    return _with_options(
        command,
        click.option("--jobs", type=click.IntRange(1), metavar="N", help="Workers that share the runs."),
        assignments_option(
            "--slurm", "Put the workers into SLURM's queue: partition=gpu, gpus_per_node=1, timeout_min=600, ..."
        ),
    )


def _with_options(command: F, *options: Callable[[F], F]) -> F:
    """The command with some options, which help lists in this order."""
    for option in reversed(options):
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")


def print_json(document: Any) -> None:
    """Print one JSON document to standard output."""
    click.echo(json.dumps(document, indent=2))


def _click_option(setting: Setting) -> Callable[[F], F]:
    names = (setting.flag, setting.parameter)
    if setting.flag_only:
        return click.option(*names, is_flag=True, default=None, help=setting.help)
    section, _, key = setting.key.partition(".")
    if key == "name":
        return click.option(*names, cls=PartOption, kind=section, metavar="NAME", help=setting.help)
    return click.option(*names, type=setting.type, help=setting.help)


def _layers(
    config: Path | None, given: dict[Setting, Any], dotted: Sequence[str], assignments: Sequence[str]
) -> list[Layer]:
    said = {setting: value for setting, value in given.items() if value is not None}
    options = Layer(
        {setting.key: value.split(",") if setting.key == "routes" else value for setting, value in said.items()},
        {setting.key: setting.flag for setting in said},
    )
    files = [file_layer(config)] if config else []
    # One layer for the whole call. Otherwise a part that is named by --set would drop the named options for it.
    call = stacked(map(normalised, (options, override_layer(dotted, "--"), override_layer(assignments))))
    return [*files, call]
