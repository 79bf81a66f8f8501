"""``ssl-dc export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.numbers import FiniteRange
from ssl_dc.cli.options import budget_option, cpu_option, data_root_option, json_option, only_cpu, print_json
from ssl_dc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from ssl_dc.evaluation.report import Report
    from ssl_dc.export.exported_file import ExportedFile
    from ssl_dc.model import Model

FORMATS = {"onnx": ".onnx", "torch": ".pt2", "torchvision": ".safetensors", "timm": "-timm"}
"""Kept here so that help does not import torch. A test compares them with the formats there are."""


COMPARED_IMAGES = 64
"""Images on which an int8 file is compared with the float32 network."""


@click.command("export", short_help="Write a run's dense, gated or static network for other programs.")
@readable_errors
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--route", type=click.Choice(("dense", "gated")), default="dense", show_default=True, help="The route.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(tuple(FORMATS)),
    default="onnx",
    show_default=True,
    help="ONNX; torch.export; a state_dict for torchvision's network of that name; a folder that timm loads. The last two"
    " are for the dense route.",
)
@click.option(
    "--precision",
    type=click.Choice(("float32", "int8")),
    default="float32",
    show_default=True,
    help="int8: quantised by onnxruntime, calibrated on training images (ONNX, dense or --static).",
)
@click.option(
    "--static",
    "min_open_share",
    type=FiniteRange(0, 1),
    metavar="SHARE",
    help="Make the gated route static: remove what is open for less than this share of the training images.",
)
@click.option(
    "--multiple",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="With --static: keep multiples of this many channels, such as a runtime's vectors of 16.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file.  [default: RUN/ROUTE with its ending; --static, --budget and int8 are in the name]",
)
@budget_option
@data_root_option
@cpu_option
@json_option
def command(
    run: Path,
    route: str,
    file_format: str,
    precision: str,
    min_open_share: float | None,
    multiple: int,
    output: Path | None,
    budget: float | str | None,
    data_root: Path | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Write a network of a RUN as a file that runs without ssl-dc: images (N, 3, H, H), normalised, to features.

    The dense route is an ordinary network with its norms folded (for torchvision and timm with its norms). The gated route
    returns its masks beside the features, and computes every channel. With --static it becomes an ordinary smaller network
    without gates: channels and branches that are seldom open are removed, the others always run. Its accuracy (kNN-1 on
    held-out images), MACs, size and time (single images, float32, one thread) are shown beside those of the dense and the
    gated network. An int8 file is run and compared with the float32 network. Each file says which images it takes: size,
    mean, standard deviation, how to resize.
    """
    only_cpu(device, "export computes what it shows on this machine's CPU, and the file runs anywhere")
    if min_open_share is not None and (file_format in ("torchvision", "timm") or route != "gated"):
        raise ConfigError("--static is for the gated route: give --route gated, and --format onnx or torch")
    if budget is not None and route != "gated":
        raise ConfigError("--budget is for the gated route: give --route gated")
    if multiple > 1 and min_open_share is None:
        raise ConfigError("--multiple says how many channels --static leaves; give --static SHARE as well")
    int8 = precision == "int8"
    if int8 and (file_format != "onnx" or (route == "gated" and min_open_share is None)):
        raise ConfigError("--precision int8 is for --format onnx, and for the dense route or a --static network")
    if data_root is not None and min_open_share is None and not int8 and budget is None:
        raise ConfigError(
            "--data-root says where the images of --static, --budget and int8 are; nothing else of export opens images"
        )
    name = route if min_open_share is None else f"static-{min_open_share:g}"
    name += ("" if budget is None else f"-at-{budget}") + ("-int8" if int8 else "")
    path = output if output is not None else run / f"{name}{FORMATS[file_format]}"
    if not path.name:
        raise ConfigError("--output is empty: name a file")
    from ssl_dc.evaluation.dialled import dialled_once
    from ssl_dc.evaluation.other_data import moved_data
    from ssl_dc.run_folder import RunFolder

    folder = RunFolder.existing(run)
    if not path.parent.is_dir():
        raise ConfigError(f"--output {path}: there is no folder {path.parent}")
    if path.is_dir() and file_format != "timm":
        raise ConfigError(f"--output {path}: this is a folder; name a file")
    if file_format == "onnx":
        from ssl_dc.export.onnx_files import check_onnx

        check_onnx()
    model = moved_data(folder.load_model(), data_root)
    if budget is not None:
        model = dialled_once(model, budget)
    from ssl_dc.export.description import description
    from ssl_dc.export.exported_file import export, write_network
    from ssl_dc.routes import Route

    reports: list[Report]
    if min_open_share is not None:
        from ssl_dc.bench.static_comparison import compare_static

        comparison = compare_static(model, min_open_share, multiple=multiple)
        described = description(model, "static", min_open_share=min_open_share)
        if int8:
            file = _int8(model, comparison.network, described, path)
        else:
            file = write_network(comparison.network, ["features"], described, file_format, path)  # type: ignore[arg-type]
        reports = [comparison, file]
    elif int8:
        from ssl_dc.export.networks import dense_network

        reports = [_int8(model, dense_network(model), description(model, "dense"), path)]
    else:
        reports = [export(model, Route.parse(route), file_format, path)]  # type: ignore[arg-type]  # click has checked it
    if as_json:
        print_json({key: value for report in reports for key, value in report.as_json().items()})
    else:
        from ssl_dc.cli.tables import print_report

        for report in reports:
            print_report(report)


def _int8(model: Model, network: nn.Module, described: Mapping[str, str], path: Path) -> ExportedFile:
    """Write a network in int8, calibrated and compared on the images of the run."""
    from ssl_dc.bench.examples import example_images
    from ssl_dc.export.exported_file import write_int8
    from ssl_dc.training_images import INT8_IMAGES, training_images

    calibration = training_images(model.config, model.transform, INT8_IMAGES)
    return write_int8(network, described, calibration, example_images(model, COMPARED_IMAGES), path)
