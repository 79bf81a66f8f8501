"""The library's verbs: train, resume, load, evaluate."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.utils.data import DataLoader

from ssl_dc.assemble import build, build_data_set
from ssl_dc.config import RunConfig, resolve, uniform_layer
from ssl_dc.config.layers import flattened
from ssl_dc.data.base import Splits
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.subsets import open_splits, sample
from ssl_dc.data.unreadable import Readable
from ssl_dc.data.workers import refuse_unguarded_script
from ssl_dc.errors import DataError, PluginError, RunError, Stopped
from ssl_dc.evaluation import drawing
from ssl_dc.evaluation.gate_statistics import GateStatistics
from ssl_dc.evaluation.options import protocol_options
from ssl_dc.evaluation.outcome import Outcome, outcome
from ssl_dc.evaluation.projection import Projection
from ssl_dc.evaluation.report import Report
from ssl_dc.evaluation.scores import Evaluation
from ssl_dc.model import Model
from ssl_dc.plugins.options import ProtocolOptions
from ssl_dc.plugins.registry import registry
from ssl_dc.run_folder import RunFolder
from ssl_dc.trackers.base import Guarded, Watcher
from ssl_dc.training.budget import calibrate
from ssl_dc.training.checkpoint import CheckpointStore
from ssl_dc.training.from_config import trainer_from_config
from ssl_dc.training.metrics_file import MetricsFile

BUDGET_TOLERANCE = 0.02
"""How far from the budget the calibrated cost may be, as a share of the dense cost, before the user is told."""
CALIBRATION_IMAGES = 1024
"""How many training images the gates' threshold is calibrated on."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where it is.
        model: What was trained.
        outcome: What was learned and what it costs, as in ``result.json``.
    """

    folder: Path
    model: Model
    outcome: Outcome


def train(
    settings: Mapping[str, Any] | RunConfig | None = None,
    *,
    output: str | Path | None = None,
    watchers: Sequence[Watcher] = (),
) -> Run:
    """Train a run from its start to its end, and evaluate it.

    Args:
        settings: Dotted keys and values over the defaults and recipes, such as ``{"budget.target": 0.1}``, or a complete
            config.
        output: The run's folder, which must not exist yet; by default a new one under ``runs/``.
        watchers: Told of progress.

    Raises:
        ConfigError: If the settings cannot be run; nothing is written then.
        RunError: If training fails; what was saved before is kept.
        Stopped: If SIGTERM or SIGINT asked for it; the last step is saved, :func:`resume` goes on.
    """
    refuse_unguarded_script()
    config = settings if isinstance(settings, RunConfig) else resolve([uniform_layer(settings or {}, "settings")]).config
    if output is not None:
        RunFolder.check_free(Path(output))
    splits = open_splits(build_data_set(config))
    prepared = _Prepared(config, splits)
    # the main process chooses for all: what is free may change while the others look
    path = broadcast_object_list([Path(output) if output else _free_folder(config)])[0]
    with prepared.trainer.accelerator.main_process_first():
        folder = RunFolder(path)
        if prepared.trainer.accelerator.is_main_process:
            folder = RunFolder.create(path, config)
            folder.save_data(splits.train)
    return prepared.fit(folder, watchers)


def resume(
    folder: str | Path,
    *,
    data_root: str | Path | None = None,
    bad_images: str | None = None,
    accept_changed_data: bool = False,
    watchers: Sequence[Watcher] = (),
) -> Run:
    """Go on with a run from its newest resume point, exactly as if it had never stopped.

    Args:
        folder: The run's folder.
        data_root: Where the data is now, if it has moved.
        bad_images: ``stop`` or ``skip`` in place of the config's ``data.bad_images``.
        accept_changed_data: Whether to go on with training images that are not those that the run began with.
        watchers: Told of progress.

    Raises:
        ConfigError: If there is no run, or its training images are not those that it began with.
        RunError: If training fails.
        Stopped: If SIGTERM or SIGINT asked for it.
    """
    run = RunFolder.existing(Path(folder))
    config = with_data(run.config(), root=data_root, bad_images=bad_images)
    splits = open_splits(build_data_set(config))
    if not accept_changed_data:
        run.check_data(splits.train)
    prepared = _Prepared(config, splits)
    if accept_changed_data and prepared.trainer.accelerator.is_main_process:
        run.save_data(splits.train)
    return prepared.fit(run, watchers)


def with_data(config: RunConfig, **options: Any) -> RunConfig:
    """The config with other options of its data set; those that are None stay.

    Raises:
        ConfigError: If one is not valid.
    """
    said = {f"data.{name}": value for name, value in options.items() if value is not None}
    if not said:
        return config
    return resolve(
        [uniform_layer(flattened(config.model_dump(mode="json")), "the run"), uniform_layer(said, "resume")]
    ).config


def load(folder: str | Path) -> Model:
    """The trained model of a run; nothing in the folder is executed.

    Args:
        folder: The run's folder, or any folder with its ``config.json`` and ``model.safetensors``.

    Raises:
        ConfigError: If there is no run, or its config is not valid.
        RunError: If the weights are missing, damaged, or not those of the config's network.
    """
    return RunFolder.existing(Path(folder)).load_model()


@overload
def evaluate(folder: str | Path, protocol: Literal["knn", "linear", "transfer"] = "knn", **options: Any) -> Evaluation: ...


@overload
def evaluate(
    folder: str | Path, protocol: Literal["umap", "tsne"], *, output: str | Path | None = None, **options: Any
) -> Projection: ...


@overload
def evaluate(
    folder: str | Path, protocol: Literal["gates"], *, output: str | Path | None = None, **options: Any
) -> GateStatistics: ...


@overload
def evaluate(folder: str | Path, protocol: str = "knn", *, output: str | Path | None = None, **options: Any) -> Report: ...


def evaluate(folder: str | Path, protocol: str = "knn", *, output: str | Path | None = None, **options: Any) -> Report:
    """Evaluate the frozen encoder of a run, on each of its routes, on held-out images.

    Args:
        folder: The run's folder.
        protocol: The protocol's name; ``ssl-dc plugins list --kind protocol`` lists them.
        output: Where to write the picture of a protocol that has one (``umap``, ``tsne``, ``gates``): PNG, PDF or SVG.
        **options: Those of the protocol, as ``ssl-dc plugins show PROTOCOL`` lists them, such as ``k`` for ``knn``,
            ``seeds`` and ``augment`` for ``linear``, ``to`` for ``transfer``.

    Raises:
        ConfigError: If there is no run, no such protocol, if an option does not belong to it or is wrong, or what it
            needs is not installed.
        RunError: If the run's training has not ended.
    """
    picture = None if output is None else Path(output)
    checked = protocol_options(protocol, options, drawn=picture is not None)
    return run_protocol(load(folder), checked, output=picture)


def run_protocol(model: Model, options: ProtocolOptions, *, output: Path | None = None) -> Report:
    """Run an evaluation protocol on a model, with its checked options, and draw its picture if one is asked for.

    Raises:
        ConfigError: If a picture cannot be drawn.
        PluginError: If the protocol does not return a :class:`ssl_dc.Report`.
    """
    if output is not None:
        drawing.check_drawable(output)  # before anything is computed for it
    protocol = registry().find("protocol", options.name)
    report = protocol.target()(model, options)
    if not isinstance(report, Report):
        raise PluginError(f"{protocol} must return a ssl_dc.Report, not a {type(report).__name__}")
    if output is not None:
        drawing.save(report.draw(), output)
    return report


class _Prepared:
    """A config whose parts are all built, so that whatever is wrong with it shows before a folder is made."""

    def __init__(self, config: RunConfig, splits: Splits) -> None:
        self.config = config
        self.splits = splits
        self.trainer = trainer_from_config(config, splits.train)
        self.encoder = self.trainer.learner.encoder

    def fit(self, folder: RunFolder, watchers: Sequence[Watcher]) -> Run:
        """Train in a folder from its newest resume point; calibrate, save, evaluate."""
        self.trainer.watchers = [MetricsFile(folder.metrics_file), *self._guests(folder, watchers), *watchers]
        self.trainer.checkpoints = CheckpointStore(folder.checkpoints, self.config.training.keep_checkpoints)
        try:
            self.trainer.fit()
        except Stopped as stopped:
            self._list_bad_images(folder)
            raise Stopped(f"{stopped}; go on with: {_resume_call(folder)}", stopped.signal) from None
        except DataError as error:
            raise RunError(
                f"{error} Once it can be, go on with: {_resume_call(folder)} (with --bad-images skip, it may be left out)"
            ) from error
        model = Model(self.config, self.encoder)
        if self.config.budget.target is not None and self.config.budget.control == "adaptive":
            self._calibrate(model, self.config.budget.target)
        result = outcome(self.config, model, self.splits)
        if self.trainer.accelerator.is_main_process:
            folder.save_model(self.encoder)
            folder.save_result(result.as_json())
        self._list_bad_images(folder)
        return Run(folder.path, model, result)

    def _list_bad_images(self, folder: RunFolder) -> None:
        """List in the run's folder what could not be read, and say so."""
        splits = self.splits._asdict().items()
        named = {name: images.left_out() for name, images in splits if isinstance(images, Readable)}
        if self.splits.evaluation_train is self.splits.train:
            named.pop("evaluation_train", None)
        found = {name: reasons for name, reasons in named.items() if reasons}
        if found and self.trainer.accelerator.is_main_process:
            folder.save_bad_images(found)
            count = sum(map(len, found.values()))
            for watcher in self.trainer.watchers:
                watcher.on_message(f"{count} images could not be read, and others stood in: {folder.bad_images_file}")

    def _calibrate(self, model: Model, target: float) -> None:
        """Bring the cost to the budget, and say so if the gates do not let it come near."""
        paid = calibrate(self.encoder, self._calibration_batches(model), model.cost, target)
        if abs(paid - target) > BUDGET_TOLERANCE and self.trainer.accelerator.is_main_process:
            for watcher in self.trainer.watchers:
                watcher.on_message(f"the budget is missed: {target:g} of the dense cost was asked for, {paid:.4f} is paid")

    def _calibration_batches(self, model: Model) -> list[Tensor]:
        """Some of the training images, as evaluation sees them."""
        chosen = sample(self.splits.train, CALIBRATION_IMAGES)
        loader = DataLoader(Prepared(chosen, model.transform), batch_size=256)
        device = self.trainer.accelerator.device
        return [batch.to(device, memory_format=torch.channels_last) for batch in loader]

    def _guests(self, folder: RunFolder, told: Sequence[Watcher]) -> list[Watcher]:
        """The tracker, and the watchers that plugins bring: one that fails is left out, training goes on."""
        if not self.trainer.accelerator.is_main_process:
            return []

        def say(text: str) -> None:
            for watcher in told:
                watcher.on_message(text)

        tracker = build("tracker", self.config.tracker, Watcher, folder.path)
        guests: list[Watcher] = [Guarded(tracker, f"tracker {self.config.tracker.name!r}", say)]
        for name in registry().names("watcher"):
            try:
                watcher = registry().find("watcher", name).target()(folder.path)
            except Exception as error:  # a stranger's watcher may raise anything
                say(f"watcher {name!r} is left out: {type(error).__name__}: {error}")
            else:
                guests.append(Guarded(watcher, f"watcher {name!r}", say))
        return guests


def _resume_call(folder: RunFolder) -> str:
    return f"ssl-dc train --resume {shlex.quote(str(folder.path))}"


def _free_folder(config: RunConfig) -> Path:
    """A folder under ``runs/`` that does not exist, named for what is run."""
    budget = "" if config.budget.target is None else f"-{config.budget.target:g}"
    name = f"{config.data.name}-{config.objective.name}-{config.gating.name}{budget}-seed{config.seed}"
    number = 1
    while (path := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return path
