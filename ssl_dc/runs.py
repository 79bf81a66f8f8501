"""A run from start to end: it is prepared, trained, calibrated, saved and evaluated."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_dc.assemble import build
from ssl_dc.calibration import calibrate
from ssl_dc.config import RunConfig
from ssl_dc.data.base import DataSet, Splits
from ssl_dc.data.subsets import open_splits
from ssl_dc.data.unreadable import Readable
from ssl_dc.distributed import world_size
from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import ConfigError, DataError, PartError, RunError, SslDcError, Stopped
from ssl_dc.evaluation import drawing
from ssl_dc.evaluation.dialled import calibration_batches
from ssl_dc.evaluation.drawing import described_run
from ssl_dc.evaluation.gate_statistics import gates
from ssl_dc.evaluation.looks import PREFIX, Look, is_better
from ssl_dc.evaluation.options import GatesOptions
from ssl_dc.evaluation.other_data import other_data, told_by
from ssl_dc.evaluation.outcome import BUDGET_TOLERANCE, Outcome, outcome
from ssl_dc.evaluation.report import ReportTable, as_html, frame
from ssl_dc.gating.cost import CostModel
from ssl_dc.model import Model
from ssl_dc.plugins.registry import registry
from ssl_dc.run_folder import RunFolder
from ssl_dc.run_records import json_lines, logged_steps
from ssl_dc.trackers.base import Guarded, Watcher, phase
from ssl_dc.training.best_model import BestModel
from ssl_dc.training.checkpoint import CheckpointStore
from ssl_dc.training.from_config import trainer_from_config
from ssl_dc.training.history_file import HistoryFile
from ssl_dc.training.initial_weights import InitialWeights, initial_weights
from ssl_dc.training.looks import Looks
from ssl_dc.training.metrics_file import MetricsFile

if TYPE_CHECKING:
    from pandas import DataFrame


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

    def to_frame(self) -> DataFrame:
        """The logged steps as a pandas data frame. ``outcome.to_frame()`` has what was reached.

        Raises:
            ConfigError: If pandas is not installed.
            RunError: If they cannot be read.
        """
        return frame(logged_steps(json_lines(RunFolder(self.folder).metrics_file)))

    def _repr_html_(self) -> str:
        """The run as a notebook shows it: what it is, and what was reached."""
        config, cost = self.model.config, self.model.cost
        rows = [
            ("what", described_run(config)),
            ("network", f"{config.backbone.in_words()}, {config.data.image_size} px, {cost.dense_macs:,} MACs an image"),
            ("epochs", f"{config.training.epochs:,}"),
        ]
        return as_html([ReportTable(f"Run {self.folder}", ("", ""), rows), *self.outcome.at(self.folder).tables()])


@dataclass(frozen=True)
class OpenedRun:
    """A run that is to go on, with its data set open, so that planning and training need not open it twice.

    Attributes:
        folder: The run's folder.
        own: Its config, of the length that is asked for.
        config: The same, with what this call says of the data.
        splits: Its images.
        epochs: The length that is asked for; None for that of the run's config.
        accept_changed_data: Whether to go on with images that are not those that the run began with.
    """

    folder: RunFolder
    own: RunConfig
    config: RunConfig
    splits: Splits
    epochs: int | None
    accept_changed_data: bool


class PreparedRun:
    """A run whose parts are all built. Whatever is wrong with its config shows here, before a folder is made.

    Args:
        config: The run's config.
        splits: Its images.
        initial: The weights that the encoder started from, where a run is resumed and ``training.init`` names some.

    Attributes:
        initial: The weights that the encoder starts from; None if they are drawn.

    Raises:
        ConfigError: If the parts do not fit one another, the budget cannot be met, or the weights that ``training.init``
            names cannot be read or do not fit.
    """

    def __init__(self, config: RunConfig, splits: Splits, initial: InitialWeights | None = None) -> None:
        self.config = config
        self.splits = splits
        self.initial = initial
        self.trainer = trainer_from_config(config, splits.train, begin=self._begin)
        self.look = None if config.training.watch_every is None else look_of(config, self.trainer.cost, splits)

    def _begin(self, encoder: Encoder) -> None:
        if self.initial is None and self.config.training.init is not None:
            self.initial = initial_weights(self.config.training.init, encoder)
        if self.initial is not None:
            self.initial.load_into(encoder)

    def save_start(self, folder: RunFolder) -> None:
        """Write into the run's folder what the training starts from: which images, and which weights."""
        folder.save_data(self.splits.train, self.config.data.root)
        if self.initial is not None:
            folder.save_initial(self.initial.tensors, self.initial.record())

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes the run's files."""
        return bool(self.trainer.accelerator.is_main_process)

    def fit(self, folder: RunFolder, watchers: Sequence[Watcher]) -> Run:
        """Train from the newest resume point in a folder, calibrate the gates, save the model, evaluate it.

        Args:
            folder: The run's folder.
            watchers: Told of what happens, besides the metrics file, the tracker and the watchers of plugins.

        Raises:
            RunError: If training or evaluation fails. A model that was trained is saved before it is evaluated.
            Stopped: If a signal asked for it.
        """
        told = self._watchers(folder, watchers)
        try:
            return self._fit(folder, told)
        finally:
            for watcher in told:
                watcher.on_close()

    def _fit(self, folder: RunFolder, told: Sequence[Watcher]) -> Run:
        self._tell_what_was_found(folder, told)
        checkpoints = CheckpointStore(folder.checkpoints, self.config.training.keep_checkpoints)
        if self.initial is not None and checkpoints.newest() is None:
            self._say(told, f"{self.initial}; all are listed in {folder.initial_record_file}")
        try:
            with _traceback_kept(folder), _advice(folder):
                self.trainer.fit(watchers=told, checkpoints=checkpoints, looks=self._looks(folder))
                calibrating = phase(told, "calibrating the gates")
                with calibrating, self.trainer.parts.blamed(lambda: "calibration after the last step"):
                    model = self._calibrated(told)
            if self.is_main_process:
                folder.save_model(model.encoder)
            evaluating = phase(told, "evaluating")
            blamed = self.trainer.parts.blamed(lambda: "evaluation")
            with _after_training(folder), _traceback_kept(folder), blamed, evaluating:
                result = outcome(self.config, model, self.splits, self._started_from())
        except Stopped:
            self._list_bad_images(folder, told, together=True)
            raise
        except BaseException:
            self._list_bad_images(folder, told, together=False)  # the other processes may be waiting elsewhere
            raise
        self._list_bad_images(folder, told, together=True)
        if self.is_main_process:
            folder.save_result(result.as_json())
            for watcher in told:
                watcher.on_result(json.loads(json.dumps(result.as_json())))
            self._show_pictures(model, told)
        return Run(folder.path, model, result)

    def _looks(self, folder: RunFolder) -> Looks | None:
        """What looks at the encoder while it learns, and keeps the best one."""
        look, metric, every = self.look, self.config.training.keep_best, self.config.training.watch_every
        if look is None or every is None:
            return None
        best = None if metric is None else BestModel(folder, metric, is_better)

        def looked(encoder: Encoder, step: int) -> dict[str, float]:
            values = look(encoder)
            if best is not None and self.is_main_process:
                best.offer(encoder, step, values[f"{PREFIX}{metric}"])
            return values

        return Looks(every, looked)

    def _show_pictures(self, model: Model, told: Sequence[Watcher]) -> None:
        """Draw what the gates do, for the watchers that take pictures. A launch of several processes draws nothing."""
        takers = [watcher for watcher in told if watcher.takes_pictures]
        if not takers or not model.has_gates or world_size() > 1:
            return
        try:
            with phase(told, "drawing the gates"):
                picture = drawing.png(gates(model, GatesOptions()).draw())
        except SslDcError as error:  # matplotlib may not be installed
            self._say(told, f"no picture of the gates goes to the tracker: {error}")
            return
        for watcher in takers:
            watcher.on_picture("gates", picture)

    def _calibrated(self, told: Sequence[Watcher]) -> Model:
        """The trained model, calibrated to its budgets. The user is told which budgets are missed."""
        model = Model(self.config, self.trainer.learner.encoder, self.trainer.cost)
        budgets = self.config.budget.budgets
        if not budgets or self.config.budget.control != "adaptive":
            return model
        reached = calibrate(model.encoder, calibration_batches(model, self.splits), model.cost, budgets)
        for budget, paid in zip(budgets, reached, strict=True):
            if abs(paid - budget) > BUDGET_TOLERANCE:
                self._say(told, f"the budget is missed: {budget:g} of the dense cost was asked for, {paid:.4f} is paid")
        return model

    def _started_from(self) -> Model | None:
        """The model that training started from, if its weights were not drawn."""
        if self.initial is None:
            return None
        model = Model.untrained(self.config, self.trainer.cost)
        self.initial.load_into(model.encoder)
        return model

    def _tell_what_was_found(self, folder: RunFolder, told: Sequence[Watcher]) -> None:
        """Say how the user's files were understood, and list in the run's folder those that are left out."""
        found = self.splits.found
        if found is None or not self.is_main_process:
            return
        listed = ""
        if found.left_out.reasons:
            folder.save_left_out(found.left_out.reasons)
            listed = f"; {found.left_out}; listed in {folder.left_out_file}"
        self._say(told, f"{found.summary}{listed}")

    def _list_bad_images(self, folder: RunFolder, told: Sequence[Watcher], *, together: bool) -> None:
        """List in the run's folder which images could not be read, and say so.

        Args:
            folder: The run's folder.
            told: Who is told.
            together: Whether all processes of the launch do it, so that each knows what any has found.
        """
        splits = self.splits._asdict().items()
        named = {name: images.left_out(together=together) for name, images in splits if isinstance(images, Readable)}
        if named.get("evaluation_train") == named.get("train"):
            named.pop("evaluation_train", None)
        found = {name: reasons for name, reasons in named.items() if reasons}
        if found and self.is_main_process:
            folder.save_bad_images(found)
            count = sum(map(len, found.values()))
            said = (
                "1 image could not be read, and another"
                if count == 1
                else f"{count:,} images could not be read, and others"
            )
            self._say(told, f"{said} stood in: {folder.bad_images_file}")

    def _watchers(self, folder: RunFolder, watchers: Sequence[Watcher]) -> list[Watcher]:
        """The watchers of the run. Only the main process has any.

        The tracker and the watchers of plugins are guarded: one that fails is left out, and training goes on.
        """
        if not self.is_main_process:
            return []

        def say(text: str) -> None:
            self._say(watchers, text)

        tracker = build("tracker", self.config.tracker, Watcher, folder.path)
        guests: list[Watcher] = [Guarded(tracker, f"tracker {self.config.tracker.name!r}", say)]
        for name in registry().names("watcher"):
            try:
                watcher = registry().find("watcher", name).target()(folder.path)
            except Exception as error:  # a stranger's watcher may raise anything
                say(f"watcher {name!r} is left out: {type(error).__name__}: {error}")
            else:
                guests.append(Guarded(watcher, f"watcher {name!r}", say))
        history = HistoryFile(folder.history_file, self.config.training.epochs)
        return [MetricsFile(folder.metrics_file), history, *guests, *watchers]

    def _say(self, told: Sequence[Watcher], text: str) -> None:
        for watcher in told if self.is_main_process else ():
            watcher.on_message(text)


def look_of(config: RunConfig, cost: CostModel, splits: Splits) -> Look:
    """What looks at the encoder of a run while it learns.

    Args:
        config: The run's config.
        cost: What its network costs.
        splits: The run's own images, which are looked at unless the config names others.

    Raises:
        ConfigError: If there is no such data set, or the looks do not have the measure that ``training.keep_best`` names.
        DataError: If its images cannot be opened.
    """
    training = config.training
    if training.watch_data is not None:
        with told_by("--watch-data"):
            data = other_data("--watch-data", training.watch_data, root=training.watch_root)
            splits = open_splits(build("data", data, DataSet))
    look = Look(config, cost, splits)
    metric = training.keep_best or ""
    if metric.endswith("gated") and not config.gating.gates:
        raise ConfigError(f"training.keep_best = {metric}: gating {config.gating.name!r} has no gated route")
    if metric.startswith(("knn", "linear")) and not look.has_labels:
        raise ConfigError(
            f"training.keep_best = {metric}: the images that are looked at have no labels, or are too few; name labelled"
            " ones, with --watch-data, or choose rankme, lidar or alpha_req"
        )
    return look


@contextmanager
def _advice(folder: RunFolder) -> Iterator[None]:
    """Say how to continue, in the message that ends a training."""
    try:
        yield
    except Stopped as stopped:
        raise Stopped(f"{stopped}; go on with: {_resume_call(folder)}", stopped.signal) from None
    except DataError as error:
        raise RunError(f"{error} Once it can be, go on with: {_resume_call(folder)}{SKIP}") from error


@contextmanager
def _traceback_kept(folder: RunFolder) -> Iterator[None]:
    """Write the traceback of a part's exception into the run's folder, and name the file in the message."""
    try:
        yield
    except PartError as error:
        file = folder.save_traceback(error.__cause__ or error)
        raise PartError(f"{error}; its traceback is in {file}") from error.__cause__


@contextmanager
def _after_training(folder: RunFolder) -> Iterator[None]:
    """Say that the trained model is saved, and how to continue, in the message that ends an evaluation."""
    try:
        yield
    except SslDcError as error:
        skip = SKIP if isinstance(error, DataError) else ""
        raise RunError(
            f"{error} Only the evaluation failed: the trained model is saved as {folder.model_file}. Evaluate it once more"
            f" with: {_resume_call(folder)}{skip}"
        ) from error


SKIP = " (with --bad-images skip, it may be left out)"


def _resume_call(folder: RunFolder) -> str:
    return f"ssl-dc train --resume {shlex.quote(str(folder.path))}"
