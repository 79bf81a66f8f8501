"""``ssl-dc evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ssl_dc.cli.options import json_option, print_json, readable_errors
from ssl_dc.config import override_layer
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.catalogue import CATALOGUE

# Click wraps paragraphs of help unless they begin with \b.
PROTOCOLS = "\b\nProtocols:\n" + "\n".join(f"  {entry.name:<10}{entry.summary}" for entry in CATALOGUE.values())


@click.command("evaluate", short_help="Evaluate a run's features on held-out images.", epilog=PROTOCOLS)
@readable_errors
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--protocol", type=click.Choice(list(CATALOGUE)), default="knn", show_default=True, help="How, see the list below."
)
@click.option("--k", type=click.IntRange(min=1), help="knn: neighbours asked; default 1.")
@click.option("--metric", type=click.Choice(["euclidean", "cosine"]), help="knn: how near is measured; default euclidean.")
@click.option("--seeds", type=click.IntRange(min=1), help="linear, transfer: classifiers trained; default 5.")
@click.option("--epochs", type=click.IntRange(min=1), help="linear, transfer: passes over the images; default 100.")
@click.option(
    "--augment",
    is_flag=True,
    default=None,
    help="linear, transfer: new random crops and flips each epoch, as the paper.",
)
@click.option(
    "--crop-scale",
    type=click.FloatRange(min=0, max=1, min_open=True),
    nargs=2,
    metavar="MIN MAX",
    help="linear, transfer with --augment: share of the image that a crop shows; default 0.08 1.",
)
@click.option("--to", metavar="NAME", help="transfer: the other data set.")
@click.option("--to-root", type=click.Path(path_type=Path), metavar="DIR", help="transfer: folder that holds it.")
@click.option(
    "--to-limit", type=click.IntRange(min=2), metavar="N", help="transfer: use N of its training images, classes balanced."
)
@click.option(
    "--to-set", multiple=True, metavar="KEY=VALUE", help="transfer: another option of it, such as image_column=img."
)
@click.option("--points", type=click.IntRange(min=10), help="umap, tsne: images drawn at most; default 2000.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="umap, tsne: the picture, .png, .pdf or .svg; default RUN/projection-PROTOCOL.png. gates: the heat map, if given.",
)
@json_option
def command(run: Path, protocol: str, as_json: bool, output: Path | None, to_set: Sequence[str], **given: Any) -> None:
    """Evaluate the frozen encoder of a RUN, on each of its routes, on held-out images. Accuracies are top-1 in percent.

    An option belongs to the protocols named in its help.
    """
    options = {name: value for name, value in given.items() if value is not None}
    if to_set:
        options["to_set"] = _settings(to_set)
    entry = CATALOGUE[protocol]
    entry.check([*options, *([] if output is None else ["output"])])
    if output is None and entry.drawn:
        output = run / f"projection-{protocol}.png"

    from ssl_dc import api
    from ssl_dc.cli.tables import print_report

    report = api.evaluate(run, protocol, output=output, **options)
    if as_json:
        print_json({**report.as_json(), **({} if output is None else {"output": str(output)})})
        return
    print_report(report)
    if output is not None:
        click.echo(f"picture: {output}")


def _settings(assignments: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` options of the data set that is transferred to.

    Raises:
        ConfigError: If one has no ``=``.
    """
    for assignment in assignments:
        if not assignment.partition("=")[1]:
            raise ConfigError(f"--to-set {assignment}: write --to-set KEY=VALUE, such as --to-set image_column=img")
    values = override_layer(f"data.{assignment}" for assignment in assignments).values
    return {key.removeprefix("data."): value for key, value in values.items()}
