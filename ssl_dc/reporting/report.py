"""Reports of runs: what is read and measured becomes a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from ssl_dc.devices import AUTO
from ssl_dc.errors import ConfigError, DataError, RunError
from ssl_dc.evaluation import other_data
from ssl_dc.evaluation.projection import umap_module
from ssl_dc.progress.progress import progress_watchers
from ssl_dc.reporting.measured import MeasuredRun, Projector, ReportOptions, measure
from ssl_dc.reporting.page import ReportPage, Section, Text, check_charts
from ssl_dc.reporting.recorded import RecordedRun, RunLike, recorded_runs
from ssl_dc.trackers.base import Watcher, phase


def report(
    runs: RunLike | Sequence[RunLike],
    *,
    output: str | Path | None = None,
    images: int = 2000,
    time: bool = False,
    seconds: float = 10.0,
    projection: Projector = "auto",
    device: str | torch.device = AUTO,
    data_root: str | Path | None = None,
    eval_data: str | None = None,
    eval_data_root: str | Path | None = None,
    eval_data_set: Mapping[str, Any] | None = None,
    watchers: Sequence[Watcher] = (),
    progress: bool | Literal["auto"] = "auto",
) -> ReportPage:
    """Show runs on one page: how they trained, what they reach and cost, and what they do with images.

    A notebook shows the page; ``output`` or :meth:`ssl_dc.ReportPage.save` writes it as one file, which needs no network.
    What is not there, such as labels or the model of a run that still trains, the page says in a sentence.

    Args:
        runs: A run or several: folders, or what :func:`ssl_dc.train` returned.
        output: Where the page is written.
        images: How many held-out images of each run are looked at, and how many training images are learned from, at most.
        time: Whether to measure milliseconds an image on this machine's CPU, which compiles the network.
        seconds: How long each run is timed.
        projection: How features are laid out in the plane: ``umap``, ``pca``, or ``auto`` for UMAP where it is installed.
        device: Where features are computed; by default on the best device there is.
        data_root: Where the runs' data is now, if it has moved.
        eval_data: Another data set to look at in place of the runs' own, by its name.
        eval_data_root: Folder that holds it.
        eval_data_set: Its other options, such as ``{"test_limit": 1000}``.
        watchers: Told of phases, and of what the page leaves out because it cannot be read.
        progress: Whether to show progress, as in :func:`ssl_dc.train`.

    Raises:
        ConfigError: If there is no run, something that the page needs is not installed, or an argument is wrong.
        DataError: If ``data_root`` or ``eval_data`` is given, and the images cannot be opened.
        RunError: If a file of a run cannot be read, or the page cannot be written.
    """
    other = other_data.evaluation_data(data_root, eval_data, eval_data_root, eval_data_set)
    options = ReportOptions(images, time, seconds, device, data_root, projection, other)
    check_report(options, None if output is None else Path(output))
    page = page_of(recorded_runs(runs), options, [*watchers, *progress_watchers(progress)])
    if output is not None:
        page.save(output)
    return page


def check_report(options: ReportOptions, output: Path | None) -> None:
    """Make sure that a page can be made and written, before anything is computed for it.

    Raises:
        ConfigError: If something is not installed, an option is wrong, or the output's folder is not there.
    """
    check_charts()
    if options.images < 1:
        raise ConfigError(f"images = {options.images}: a report looks at some; allowed: at least 1")
    if options.projection not in get_args(Projector):
        raise ConfigError(f"projection {options.projection!r}: allowed are {', '.join(get_args(Projector))}")
    if options.projection == "umap":
        umap_module()
    if output is not None and not output.parent.is_dir():
        raise ConfigError(f"report {output}: there is no folder {output.parent}")


def page_of(
    runs: Sequence[RecordedRun],
    options: ReportOptions,
    watchers: Sequence[Watcher] = (),
    *,
    refresh_seconds: float | None = None,
) -> ReportPage:
    """The page of runs.

    Features are computed of those that have a trained model and do not train now; of none for a page that is to be loaded
    again, because that would slow the training.

    Args:
        runs: The runs.
        options: What is measured, and how.
        watchers: Told of phases, and of what the page leaves out because it cannot be read.
        refresh_seconds: After so many seconds an opened page loads itself again; None for never.

    Raises:
        DataError: If the options name data that cannot be opened.
    """
    # Imported here: they need altair, which may not be installed.
    from ssl_dc.reporting import run_sections
    from ssl_dc.reporting.accuracy_section import accuracy_section
    from ssl_dc.reporting.training_section import training_section

    measured: dict[str, MeasuredRun] = {}
    missing: dict[str, str] = {}
    without_data: list[str] = []
    for run in runs:
        for fault in filter(None, (*run.damage, run.lost_result, run.damaged_result)):
            _say(watchers, f"{run.label}: {fault}")
        if waits_for := _why_not_yet(run, following=refresh_seconds is not None):
            missing[run.label] = waits_for
            continue
        try:
            measured[run.label] = measure(run.folder, options, watchers)
        except (DataError, RunError) as error:
            if isinstance(error, DataError) and options.names_data:
                raise
            if isinstance(error, DataError):
                without_data.append(run.label)
            missing[run.label] = str(error)
            _say(watchers, f"{run.label}: the page does not show what the network does with images: {error}")
    thumbnails: dict[str, str] = {}
    accuracy = accuracy_section(measured)
    not_measured = [Text(f"{label}: {why}") for label, why in missing.items()]
    sections = [Section(accuracy.title, [*accuracy.blocks, *not_measured]), training_section(runs)]
    for number, run in enumerate(runs):
        sections.append(run_sections.what_was_run(run))
        if run.label not in measured:
            sections[-1] = Section(sections[-1].title, [*sections[-1].blocks, Text(missing[run.label])])
            continue
        with phase(watchers, f"drawing {run.label}"):
            found = measured[run.label]
            sections += [
                run_sections.cost_section(found),
                run_sections.gates_section(found),
                run_sections.prices_section(found),
                run_sections.map_section(found, str(number), options.projection, thumbnails),
                run_sections.neighbours_section(found),
            ]
    made = f"Made {datetime.now().astimezone():%Y-%m-%d %H:%M} by ssl-dc {metadata.version('ssl-dc')}"
    return ReportPage(_title(runs), made, sections, thumbnails, refresh_seconds, without_data)


def _why_not_yet(run: RecordedRun, *, following: bool) -> str:
    """Why there is no model to look at, or it is not time to; empty if there is one."""
    if run.trains or following:
        return "What the network does with images is shown when no run trains any more."
    if not run.folder.model_file.is_file():
        return "The run has no trained model, so nothing is shown of what its network does with images."
    return ""


def _say(watchers: Sequence[Watcher], text: str) -> None:
    for watcher in watchers:
        watcher.on_message(text)


def _title(runs: Sequence[RecordedRun]) -> str:
    labels = [run.label for run in runs]
    return f"Report of {', '.join(labels[:3])}{f' and {len(labels) - 3} more' if len(labels) > 3 else ''}"
