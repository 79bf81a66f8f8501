"""``ssl-dc evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.exceptions import NoSuchOption

from ssl_dc.cli.launched import device_of_launch
from ssl_dc.cli.messages import readable_errors, reported
from ssl_dc.cli.options import (
    Number,
    PartOption,
    data_root_option,
    device_option,
    eval_data_options,
    json_option,
    print_json,
)
from ssl_dc.cli.part_options import part_options
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.options import not_an_option, options_model, protocol_options
from ssl_dc.plugins.kinds import default_part
from ssl_dc.plugins.registry import registry
from ssl_dc.printable import printable

DEFAULT = default_part("protocol")


class ProtocolCommand(click.Command):
    """A command whose options are those of the protocol that it is called with."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See which protocol is meant, then parse with its options."""
        ctx.meta["protocol"] = _named(args)
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:
            with reported():
                option = error.option_name.lstrip("-").replace("-", "_")
                raise ConfigError(not_an_option(ctx.meta["protocol"], option)) from error

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, and the protocol's."""
        with reported():
            return [*super().get_params(ctx), *part_options(options_model(ctx.meta.get("protocol", DEFAULT)))]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the protocols."""
        names = registry().names("protocol")
        with formatter.section("Protocols"):
            formatter.write_dl([(name, registry().find("protocol", name).part.summary) for name in names])
        formatter.write_paragraph()
        formatter.write_text("Each has options of its own: ssl-dc evaluate --protocol NAME --help")


@click.command("evaluate", cls=ProtocolCommand, short_help="Evaluate a run's features on held-out images.")
@readable_errors
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--protocol", cls=PartOption, kind="protocol", default=DEFAULT, show_default=True, help="How, see below.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where the picture of a protocol that has one is written: .png, .pdf or .svg.",
)
@click.option(
    "--budget",
    type=Number(),
    metavar="SHARE",
    help="Share of the dense cost for the gated route, in place of that of training: 0.25, or several: 0.1:0.9.",
)
@data_root_option
@eval_data_options
@device_option
@json_option
def command(
    run: Path,
    protocol: str,
    as_json: bool,
    output: Path | None,
    device: str | None,
    budget: float | str | None,
    data_root: Path | None,
    eval_data: str | None,
    eval_data_root: Path | None,
    eval_data_set: dict[str, Any] | None,
    **given: Any,
) -> None:
    """Evaluate the frozen encoder of a RUN, on each of its routes, on held-out images. Accuracies are top-1 in percent.

    The images are those of the run's own data set, or of the one that --eval-data names, such as a labelled one for a run
    on unlabelled images. Under torchrun the processes share the work.
    """
    said = {name: value for name, value in given.items() if value is not None}
    options = protocol_options(protocol, said, drawn=output is not None)
    if output is None and options.picture == "always":
        output = run / f"projection-{protocol}.png"

    from ssl_dc import api
    from ssl_dc.cli.tables import print_report
    from ssl_dc.distributed import leave_launch
    from ssl_dc.evaluation.scores import Evaluation
    from ssl_dc.run_folder import RunFolder

    report = api.evaluate(
        run,
        protocol,
        output=output,
        device=device or device_of_launch() or "auto",
        budget=budget,
        data_root=data_root,
        eval_data=eval_data,
        eval_data_root=eval_data_root,
        eval_data_set=eval_data_set,
        **said,
    )
    if not leave_launch():
        return
    if isinstance(report, Evaluation):
        for sentence in report.off_budget(RunFolder(run).config_of_network().budget.target):
            click.echo(f"ssl-dc: {sentence}", err=True)
    if as_json:
        print_json({**report.as_json(), **({} if output is None else {"output": str(output)})})
        return
    print_report(report)
    if output is not None:
        click.echo(f"picture: {printable(str(output))}")


def _named(args: list[str]) -> str:
    """The protocol that a call names; the last one counts, as for any option."""
    named = DEFAULT
    for number, word in enumerate(args):
        if word == "--":
            break
        if word == "--protocol" and number + 1 < len(args):
            named = args[number + 1]
        elif word.startswith("--protocol="):
            named = word.partition("=")[2]
    return named
