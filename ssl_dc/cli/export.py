"""``ssl-dc export``."""

from __future__ import annotations

from pathlib import Path

import click

from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import json_option, print_json
from ssl_dc.errors import ConfigError

FORMATS = {"onnx": ".onnx", "torch": ".pt2", "torchvision": ".safetensors"}
"""Kept here so that help imports no torch (a test holds them equal to those there are)."""


@click.command("export", short_help="Write a run's dense, gated or slimmed network for other runtimes.")
@readable_errors
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--route", type=click.Choice(("dense", "gated")), default="dense", show_default=True, help="Which of its networks."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(tuple(FORMATS)),
    default="onnx",
    show_default=True,
    help="ONNX; torch.export; a state_dict that torchvision's network of that name loads (dense only).",
)
@click.option(
    "--static",
    "least",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Cut for good what is open for less than this share of the training images: an ordinary, smaller network.",
)
@click.option(
    "--multiple",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="With --static: round the channels that stay up to multiples, such as a runtime's vectors of 16.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE", help="The file.  [default: RUN/ROUTE with its ending]"
)
@json_option
def command(
    run: Path, route: str, form: str, least: float | None, multiple: int, output: Path | None, as_json: bool
) -> None:
    """Write a network of a RUN as a file that runs without ssl-dc: images (N, 3, H, H), normalised, to features.

    The dense route is an ordinary network with its norms folded in (but for torchvision, which has norms). The gated route
    has its masks inside, and gives them beside the features; it computes every channel. With --static the gates are
    gone: channels and branches that they seldom open are cut, the others always run; its accuracy (kNN-1 on held-out
    images), MACs, size and latency are shown beside those of the dense and the gated network.
    """
    if least is not None and (form == "torchvision" or route != "gated"):
        raise ConfigError("--static cuts the gated route: give --route gated, and --format onnx or torch")
    if multiple > 1 and least is None:
        raise ConfigError("--multiple says how many channels --static leaves; give --static SHARE as well")
    from ssl_dc.export import formats as export
    from ssl_dc.routes import Route
    from ssl_dc.run_folder import RunFolder

    model = RunFolder.existing(run).load_model()
    stem = route if least is None else f"static-{least:g}"
    path = output if output is not None else run / f"{stem}{FORMATS[form]}"
    if not path.name:
        raise ConfigError("--output is empty: name a file")
    if not path.parent.is_dir():
        raise ConfigError(f"--output {path}: there is no folder {path.parent}")
    if least is None:
        export.export(model, Route.parse(route), form, path)  # type: ignore[arg-type]  # click has checked it
        written = {"file": str(path), "bytes": path.stat().st_size}
    else:
        slimmed = export.slimmed_run(model, least, multiple=multiple)
        export.write_network(slimmed.network, ["features"], model.config.data.image_size, form, path)  # type: ignore[arg-type]
        written = {"file": str(path), "bytes": path.stat().st_size, "networks": slimmed.as_json()}
        if not as_json:
            from ssl_dc.cli.tables import print_columns

            print_columns(
                f"cut: what is open for less than {100 * least:g} % of the training images",
                ["network", "kNN-1 %", "MACs an image", "weights", "ms an image"],
                slimmed.rows(),
            )
    if as_json:
        print_json(written)
    else:
        click.echo(f"written: {path} ({path.stat().st_size / 2**20:.1f} MiB)")
