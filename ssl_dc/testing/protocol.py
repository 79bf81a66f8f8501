"""What an evaluation protocol must do: checks on small untrained models of the digits, with and without gates."""

from __future__ import annotations

import json

import torch

from ssl_dc.config import resolve, uniform_layer
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.model import Model
from ssl_dc.plugins.options import ProtocolOptions
from ssl_dc.testing.check import DoesNotApplyError, Subject, expect

SMALL = {
    "data.name": "digits",
    "data.limit": 60,
    "data.test_limit": 30,
    "backbone.name": "resnet18",
    "backbone.width": 4,
    "backbone.stem": "strided",
    "training.workers": 0,
}


def is_a_function(subject: Subject) -> None:
    """The target can be called."""
    target = subject.registered.target()
    expect(callable(target), f"expected a function run(model, options), saw {target!r}")


def it_reports_as_json_and_as_tables(subject: Subject) -> None:
    """For a model with gates it returns an `ssl_dc.Report`: JSON values, and tables whose rows fit their columns."""
    report = _report(subject, _model())
    expect(isinstance(report, Report), f"expected an ssl_dc.Report, saw {report!r}")
    values = report.as_json()
    again = json.loads(json.dumps(values, allow_nan=False))
    expect(
        isinstance(values, dict) and again.keys() == values.keys(), f"expected a report with text as keys, saw {values!r}"
    )
    for table in report.tables():
        expect(isinstance(table, ReportTable), f"expected tables that are ReportTable, saw {table!r}")
        for row in [*table.rows, *([table.total] if table.total else [])]:
            expect(
                len(row) == len(table.columns) and all(isinstance(cell, str) for cell in row),
                f"expected {len(table.columns)} texts in each row of {table.title!r}, saw {list(row)!r}",
            )


def the_same_model_gives_the_same_report(subject: Subject) -> None:
    """The same model and options give the same report."""
    model = _model()
    first, second = (_report(subject, model).as_json() for _ in range(2))
    expect(first == second, f"expected the same report twice, saw {first} and {second}")


def the_model_is_left_as_it_is(subject: Subject) -> None:
    """The weights and statistics of the model do not change, and it stays in evaluation mode."""
    model = _model()
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    _report(subject, model)
    for name, value in model.encoder.state_dict().items():
        expect(torch.equal(value, before[name]), f"expected {name} to be left as it is, saw it changed")
    expect(not any(module.training for module in model.encoder.modules()), "expected evaluation mode, saw training mode")


def a_model_without_gates_is_taken_or_refused(subject: Subject) -> None:
    """For a model without gates it returns a report too, or raises a `ConfigError` that says why not."""
    try:
        report = _report(subject, _model(gating="none"))
    except ConfigError:
        return
    expect(isinstance(report, Report), f"expected an ssl_dc.Report, saw {report!r}")


def its_picture_is_drawn(subject: Subject) -> None:
    """If its options have `picture = "asked"` or `"always"`, the `draw` of the report returns a matplotlib figure."""
    model = subject.registered.options_model()
    if not issubclass(model, ProtocolOptions) or model.picture == "never":
        raise DoesNotApplyError("its options say that there is no picture")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise DoesNotApplyError("matplotlib is not installed") from None
    figure = _report(subject, _model()).draw()
    expect(isinstance(figure, Figure), f"expected a matplotlib figure, saw {figure!r}")


def _model(gating: str = "dgnet") -> Model:
    return Model.untrained(resolve([uniform_layer({**SMALL, "gating.name": gating}, "the check")]).config)


def _report(subject: Subject, model: Model) -> Report:
    report: Report = subject.registered.target()(model, subject.options)
    return report


CHECKS = (
    is_a_function,
    it_reports_as_json_and_as_tables,
    the_same_model_gives_the_same_report,
    the_model_is_left_as_it_is,
    a_model_without_gates_is_taken_or_refused,
    its_picture_is_drawn,
)
