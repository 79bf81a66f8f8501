"""``ssl-dc evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from ssl_dc.cli.options import json_option, print_json, readable_errors


@click.command("evaluate", short_help="Evaluate a run's features on held-out images.")
@readable_errors
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--protocol",
    type=click.Choice(["knn", "linear"]),
    default="knn",
    show_default=True,
    help="What is trained on the features.",
)
@click.option("--k", type=click.IntRange(min=1), default=1, show_default=True, help="Neighbours asked (knn).")
@click.option(
    "--metric",
    type=click.Choice(["euclidean", "cosine"]),
    default="euclidean",
    show_default=True,
    help="How near is measured (knn).",
)
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Classifiers trained (linear).")
@json_option
def command(
    run: Path,
    protocol: Literal["knn", "linear"],
    k: int,
    metric: Literal["euclidean", "cosine"],
    seeds: int,
    as_json: bool,
) -> None:
    """Evaluate the frozen features of a RUN, on each of its routes, on held-out images. Accuracies are top-1 in percent."""
    from ssl_dc import api
    from ssl_dc.cli.tables import evaluation_json, print_evaluation

    evaluation = api.evaluate(run, protocol, k=k, metric=metric, seeds=seeds)
    if as_json:
        print_json(evaluation_json(evaluation))
    else:
        print_evaluation(evaluation)
