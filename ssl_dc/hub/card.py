"""The model card of a run: what it is, what it reaches and costs, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ssl_dc.errors import ConfigError
from ssl_dc.json_files import read_record
from ssl_dc.model import Model
from ssl_dc.printable import name_of
from ssl_dc.run_folder import RunFolder

LOADING = """```python
import ssl_dc

model = ssl_dc.load("{name}")  # pip install ssl-dc
images = model.transform(["one.jpg", "two.png"])  # (2, 3, {size}, {size})
features = model.dense(images)  # (2, {features})
{gated}```
"""
GATED = """gated = model.gated(images)  # gated.features, gated.macs, gated.ratio
compiled = model.compile_gated()  # computes only what the gates keep, on a CPU
"""


def model_card(run: RunFolder, model: Model, name: str, *, license: str | None, curve: Path | None = None) -> ModelCard:  # noqa: A002
    """The card of a run.

    Args:
        run: The run's folder.
        model: Its model.
        name: The model's name on the Hub, ``owner/name``.
        license: Identifier of the model's licence, such as ``mit``; None leaves it open.
        curve: What ``ssl-dc evaluate RUN --protocol curve --json`` printed, if it was measured.

    Raises:
        ConfigError: If a file of results cannot be read.
    """
    result = _read(run.result_file) if run.result_file.is_file() else {}
    data = ModelCardData(
        license=license,
        library_name="ssl-dc",
        pipeline_tag="image-feature-extraction",
        tags=["self-supervised-learning", "dynamic-computation", model.config.objective.name, model.config.gating.name],
        model_name=name.partition("/")[2],
        eval_results=_accuracies(result, model) or None,
    )
    sections = [
        f"# {name.partition('/')[2]}",
        _what_it_is(model),
        "## How to load it",
        LOADING.format(
            name=name,
            size=model.config.data.image_size,
            features=model.feature_dim,
            gated=GATED if model.has_gates else "",
        ),
        "## What it reaches and costs",
        _routes(result, model),
        *(["## Accuracy against cost", _curve_of(curve)] if curve is not None else []),
        "## Data and training",
        _training(run, model),
        "## Licence",
        f"`{license}`." if license else "The licence of this model was not stated.",
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(section.strip() for section in sections) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_record(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {name_of(str(error))}") from error


def _what_it_is(model: Model) -> str:
    config, backbone = model.config, model.config.backbone
    width = f" of width {backbone.width}" if hasattr(backbone, "width") else ""
    stem = f", stem `{backbone.stem}`" if hasattr(backbone, "stem") else ""
    routes = (
        "One set of weights is two networks: a **dense** route that computes everything, and a **gated** route whose gates"
        " choose for each image what is computed."
        if model.has_gates
        else "It was trained without gates, so it has the dense route only."
    )
    return (
        f"An image encoder, pre-trained without labels by [ssl-dc](https://github.com/ssl-dc/ssl-dc). {routes}\n\n"
        f"It is a `{backbone.in_words()}`{width}{stem}, for images of {config.data.image_size} pixels, with"
        f" {model.feature_dim} features and {sum(p.numel() for p in model.parameters()):,} parameters."
    )


def _accuracies(result: Mapping[str, Any], model: Model) -> list[EvalResult]:
    """kNN-1 of each route, for the card's metadata."""
    name = model.config.data.name
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=name,
            dataset_name=name,
            metric_type="accuracy",
            metric_name=f"kNN-1 top-1, {route} route",
            metric_value=round(float(reached["knn1"]), 2),
        )
        for route, reached in result.get("routes", {}).items()
        if reached.get("knn1") is not None
    ]


def _routes(result: Mapping[str, Any], model: Model) -> str:
    rows = [
        (
            route,
            "-" if reached.get("knn1") is None else f"{reached['knn1']:.2f}",
            f"{reached['macs']:,.0f}",
            f"{reached['ratio']:.4f}",
        )
        for route, reached in result.get("routes", {}).items()
    ]
    if not rows:
        return f"The dense route costs {model.cost.dense_macs:,} MACs an image. The run was not evaluated."
    said = [f"Measured on {result.get('measured_on', 'held-out images')}; all are means over images."]
    if model.config.budget.target is not None and model.has_gates:
        said.append(f"The budget asked for was {model.config.budget.target:g} of the dense cost.")
    return _table(("route", "kNN-1 top-1 %", "MACs an image", "share of dense cost"), rows) + "\n\n" + " ".join(said)


def _curve_of(file: Path) -> str:
    """The table of a file that ``evaluate --protocol curve --json`` printed."""
    try:
        return _curve(_read(file))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"{file} is not what ssl-dc evaluate --protocol curve --json prints: {error!r}") from error


def _curve(curve: Mapping[str, Any]) -> str:
    rows = [
        (
            point["route"],
            f"{point['ratio']:.4f}",
            f"{point['macs']:,.0f}",
            f"{point['knn1']:.2f}",
            f"{point['linear']:.2f}",
            "-" if point.get("milliseconds") is None else f"{point['milliseconds']:.3f}",
        )
        for point in curve["runs"][0]["points"]
    ]
    columns = ("route", "share of dense cost", "MACs an image", "kNN-1 %", "linear %", "ms an image")
    return _table(columns, rows) + f"\n\nOn {curve['runs'][0]['test_images']:,} held-out images."


def _training(run: RunFolder, model: Model) -> str:
    config = model.config
    images = f"{run.recorded_images():,} images" if run.data_file.is_file() else "images"
    routes = ", ".join(map(str, config.routes))
    rows = [
        ("data", f"`{config.data.name}`, {images}, without labels"),
        ("objective", f"`{config.objective.name}`, routes of the views: {routes}"),
        ("gating", f"`{config.gating.name}`"),
        ("encoder, norms", f"`{config.encoder.name}`, `{config.norm.name}`"),
        ("length", f"{config.training.epochs:,} epochs, batches of {config.training.batch_size:,}"),
        ("seed", f"{config.seed}"),
        ("made with", f"ssl-dc {metadata.version('ssl-dc')}"),
    ]
    return _table(("", ""), rows) + "\n\nAll settings are in `config.json`."


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
