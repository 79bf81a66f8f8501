"""The functions of the library: train, resume, load, evaluate."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, overload

import torch
from accelerate.utils import broadcast_object_list

from ssl_dc.assemble import build_data_set, build_encoder
from ssl_dc.config import Layer, Resolved, RunConfig, dump, uniform_layer, with_data, with_settings
from ssl_dc.config.layers import file_layer, flattened
from ssl_dc.data.base import Splits
from ssl_dc.data.subsets import open_splits
from ssl_dc.data.workers import refuse_unguarded_script
from ssl_dc.devices import AUTO, device_named
from ssl_dc.distributed import peer_failures, rank
from ssl_dc.embedding.embed import SHARD, Embedding, write_embedding
from ssl_dc.embedding.files import writer_for
from ssl_dc.embedding.which_data import embedded_data
from ssl_dc.errors import ConfigError, DataError, PluginError, RunError
from ssl_dc.evaluation import drawing
from ssl_dc.evaluation.dialled import Budgets, dialled, dialled_once
from ssl_dc.evaluation.gate_statistics import GateStatistics
from ssl_dc.evaluation.options import protocol_options
from ssl_dc.evaluation.other_data import evaluation_data, moved_data, on_other_data, told_by
from ssl_dc.evaluation.projection import Projection
from ssl_dc.evaluation.report import Report
from ssl_dc.evaluation.scores import Evaluation
from ssl_dc.fitted_recipe import Fitted, fit
from ssl_dc.hub.names import is_hub_name
from ssl_dc.launch import is_first_process
from ssl_dc.model import Model
from ssl_dc.plugins.options import ProtocolOptions
from ssl_dc.plugins.registry import registry
from ssl_dc.progress.progress import progress_watchers
from ssl_dc.routes import Route
from ssl_dc.run_folder import RunFolder, outline
from ssl_dc.run_lock import check_not_held
from ssl_dc.runs import OpenedRun, PreparedRun, Run
from ssl_dc.tensor_files import check_fit
from ssl_dc.trackers.base import Watcher, phase
from ssl_dc.training.checkpoint import Checkpoint, CheckpointStore
from ssl_dc.training.initial_weights import InitialWeights, initial_weights
from ssl_dc.training.length import with_length
from ssl_dc.training.rehearsal import Timer
from ssl_dc.training_plan.counts import Counts
from ssl_dc.training_plan.plan import Plan
from ssl_dc.training_plan.planning import make_plan

PLACES = frozenset({"data.root", "training.init", "training.watch_root"})
"""Settings that may differ between the machines of a launch: where files are."""


def train(
    settings: Mapping[str, Any] | RunConfig | Fitted | str | Path | None = None,
    *,
    output: str | Path | None = None,
    watchers: Sequence[Watcher] = (),
    progress: bool | Literal["auto"] = "auto",
) -> Run:
    """Train a run from its start to its end, and evaluate it.

    Args:
        settings: Dotted keys and values over the defaults and recipes, such as ``{"budget.target": 0.1}``, the path of a
            YAML file with such settings, or a complete config. The recipe of one's own pictures is fitted to them and to
            the machine; ``{"recipe": "paper"}`` asks for the fixed one.
        output: The run's folder, which must not exist yet; by default a new one under ``runs/``.
        watchers: Told of what happens.
        progress: Whether to show progress (:class:`ssl_dc.Progress`); by default in notebooks, and not in scripts.

    Raises:
        ConfigError: If the settings cannot be run, or another process trains in that folder; nothing is written then.
        RunError: If training fails; what was saved before is kept.
        Stopped: If SIGTERM or SIGINT asked for it; the last step is saved, :func:`resume` goes on.
    """
    refuse_unguarded_script()
    if output is not None:
        RunFolder.check_free(Path(output))
    told = [*watchers, *progress_watchers(progress)]
    with phase(told, "reading the pictures"):
        fitted = _fitted(settings, None)
        config, splits = fitted.resolved.config, fitted.splits or open_splits(build_data_set(fitted.resolved.config))
    prepared = _built(config, splits, told)
    with ExitStack() as held, peer_failures():
        chosen: list[Any] = [None]
        if prepared.is_main_process:  # which chooses for all: what is free may change while the others look
            path = Path(output) if output else _free_folder(config)
            prepared.save_start(held.enter_context(RunFolder.new(path, config)))
            chosen = [(path, dump(config))]
        path, of_main_process = broadcast_object_list(chosen)[0]
        _check_same(config, of_main_process)
        return prepared.fit(RunFolder(path), told)


def opened(layers: Sequence[Layer], output: str | Path | None = None) -> Fitted:
    """The config of a call, with its data set open, so that planning and training need not open it twice.

    Raises:
        ConfigError: If the config is not valid, or something is in the way of the output.
        DataError: If the data set cannot be opened.
    """
    refuse_unguarded_script()
    if output is not None:
        RunFolder.check_free(Path(output))
    fitted = fit(layers)
    return replace(fitted, splits=fitted.splits or open_splits(build_data_set(fitted.resolved.config)))


def _fitted(settings: Mapping[str, Any] | RunConfig | Fitted | str | Path | None, pictures: int | None) -> Fitted:
    if isinstance(settings, Fitted):
        return settings
    if isinstance(settings, RunConfig):
        return Fitted(Resolved(settings, {}), None)
    if isinstance(settings, (str, Path)):
        return fit([file_layer(Path(settings))], pictures=pictures)
    if settings is not None and not isinstance(settings, Mapping):
        raise TypeError(
            'settings are dotted keys and values, such as {"budget.target": 0.1}, the path of a YAML file or a RunConfig,'
            f" not {type(settings).__name__}"
        )
    return fit([uniform_layer(settings or {}, "settings")], pictures=pictures)


def _check_same(config: RunConfig, of_main_process: str) -> None:
    """Check that all processes of a launch train the same config: machines that differ may have other recipes fitted.

    Raises:
        ConfigError: If they do not.
    """
    ours, theirs = (flattened(json.loads(text)) for text in (dump(config), of_main_process))
    keys = (ours.keys() | theirs.keys()) - PLACES
    if others := sorted(key for key in keys if ours.get(key) != theirs.get(key)):
        raise ConfigError(
            f"the processes of this launch have chosen different recipes, in {', '.join(others)}: set these yourself, or"
            " ask for --recipe paper"
        )


def plan(
    settings: Mapping[str, Any] | RunConfig | Fitted | str | Path | None = None,
    *,
    output: str | Path | None = None,
    pictures: int | None = None,
    timer: Timer = perf_counter,
) -> Plan:
    """What a training will do and take: steps, time, memory, files, and what to change. Nothing is written.

    Args:
        settings: As for :func:`train`.
        output: The run's folder; by default a new one under ``runs/``.
        pictures: Plan for so many training images, without looking for the data.
        timer: The clock by which trial steps are timed, in seconds.

    Raises:
        ConfigError: If the settings cannot be run, or ``training.init`` names no weights that fit.
        DataError: If the data is not there, and its size is not known otherwise.
    """
    if pictures is not None and pictures < 1:
        raise ConfigError(f"pictures = {pictures}: a training needs some; allowed: at least 1")
    fitted = _fitted(settings, pictures)
    config = fitted.resolved.config
    where = Path(output) if output else next(path for path in _possible_folders(config) if not path.exists())
    weights = "" if config.training.init is None else initial_weights(config.training.init, build_encoder(config)[0]).brief
    made = make_plan(config, fitted.splits or _splits_or_counts(config, pictures), where, timer=timer)
    return replace(made, weights=weights)


def opened_again(
    folder: str | Path,
    *,
    epochs: int | None = None,
    data_root: str | Path | None = None,
    bad_images: str | None = None,
    compiled: bool | None = None,
    accept_changed_data: bool = False,
) -> OpenedRun:
    """A run that is to go on, with its data set open. The arguments are those of :func:`resume`.

    Raises:
        ConfigError: If there is no run, it is trained and has no resume point, no more epochs are asked for than are done,
            or its training images are not those that it began with.
        DataError: If the data set cannot be opened.
    """
    run = RunFolder.existing(Path(folder))
    own = run.config() if epochs is None else _with_length(run, epochs)
    if epochs is None:
        _newest_point(run)
    config = with_data(own, "resume", root=data_root, bad_images=bad_images)
    config = with_settings(config, "resume", {} if compiled is None else {"training.compile": compiled})
    splits = open_splits(build_data_set(config))
    if not accept_changed_data:
        run.check_data(splits.train)
    return OpenedRun(run, own, config, splits, epochs, accept_changed_data)


def plan_of_rest(run: OpenedRun, *, timer: Timer = perf_counter) -> Plan:
    """What is left to do of a run that stopped, and what it takes.

    Args:
        run: The run.
        timer: The clock by which trial steps are timed, in seconds.

    Raises:
        ConfigError: If the config cannot be trained on so many images.
    """
    done = CheckpointStore(run.folder.checkpoints).newest_step()
    return make_plan(run.config, run.splits, run.folder.path, steps_done=done, timer=timer)


def _splits_or_counts(config: RunConfig, pictures: int | None) -> Splits | Counts:
    """The data set; or how many images it has, if the caller or its publisher says so and it is not there."""
    if pictures is not None:
        return Counts(train=min(pictures, config.data.limit or pictures))
    try:
        return open_splits(build_data_set(config))
    except DataError:
        if config.data.published is None:
            raise
        return Counts.published(config.data.published, config)


def resume(
    folder: str | Path,
    *,
    epochs: int | None = None,
    data_root: str | Path | None = None,
    bad_images: str | None = None,
    compiled: bool | None = None,
    accept_changed_data: bool = False,
    watchers: Sequence[Watcher] = (),
    progress: bool | Literal["auto"] = "auto",
) -> Run:
    """Continue a run from its newest resume point, exactly as if it had never stopped, or train it for longer.

    With ``epochs`` the run follows the schedule of a training of that length from its newest resume point on
    (:mod:`ssl_dc.training.length`). The config keeps the earlier length. A model that is trained already is kept in the
    run's folder, in ``earlier/N-epochs``.

    Args:
        folder: The run's folder.
        epochs: Epochs that the run is to have in all, if they are to be others than planned: more than are done.
        data_root: Where the data is now, if it has moved.
        bad_images: ``stop`` or ``skip`` in place of the config's ``data.bad_images``.
        compiled: Whether torch compiles the network, in place of the config's ``training.compile``. The same is computed up
            to rounding, but for the noise of gates, which is drawn anew.
        accept_changed_data: Whether to go on with training images that are not those that the run began with.
        watchers: Told of what happens.
        progress: Whether to show progress, as in :func:`train`.

    Raises:
        ConfigError: If there is no run, another process trains in it, its training images are not those that it began
            with, or no more epochs are asked for than are done. Nothing is changed then.
        RunError: If training fails.
        Stopped: If SIGTERM or SIGINT asked for it.
    """
    if is_first_process():
        check_not_held(Path(folder))
    told = [*watchers, *progress_watchers(progress)]
    with phase(told, "reading the pictures"):
        run = opened_again(
            folder,
            epochs=epochs,
            data_root=data_root,
            bad_images=bad_images,
            compiled=compiled,
            accept_changed_data=accept_changed_data,
        )
    return resume_opened(run, told)


def resume_opened(run: OpenedRun, watchers: Sequence[Watcher]) -> Run:
    """Continue a run whose data set is open, as :func:`resume` does.

    Args:
        run: The run.
        watchers: Told of what happens.
    """
    folder, config, splits = run.folder, run.config, run.splits
    initial = None if config.training.init is None else InitialWeights.kept_in(folder)
    prepared = _built(config, splits, watchers, initial)
    with ExitStack() as held, peer_failures():
        if prepared.is_main_process:
            held.enter_context(folder.held())
            if run.accept_changed_data:
                folder.save_data(splits.train, config.data.root)
            if prepared.initial is not initial:  # it was killed before it could keep them
                prepared.save_start(folder)
        if run.epochs is not None:
            _change_length(folder, run.own, run.epochs, prepared.is_main_process)
        return prepared.fit(folder, watchers)


def _built(
    config: RunConfig, splits: Splits, told: Sequence[Watcher], initial: InitialWeights | None = None
) -> PreparedRun:
    with phase(told, "building the network"):
        return PreparedRun(config, splits, initial)


def _with_length(run: RunFolder, epochs: int) -> RunConfig:
    """The config of a run that is trained for another number of epochs from its newest resume point on.

    Raises:
        ConfigError: If the run is trained already and has no whole resume point: it would begin anew.
    """
    newest = _newest_point(run)
    return with_length(run.config(), epochs, 0 if newest is None else newest.step)


def _newest_point(run: RunFolder) -> Checkpoint | None:
    """The newest whole resume point of a run; None if it has not come to one.

    Raises:
        ConfigError: If the run is trained already and has none: it would begin anew.
    """
    newest, _ = CheckpointStore(run.checkpoints).latest()
    if newest is None and run.model_file.is_file():
        raise ConfigError(
            f"{run.path} is trained, and has no whole resume point in {run.checkpoints.name}/ to go on from; for more,"
            f" start a new run from its weights: ssl-dc train --init {run.path}"
        )
    return newest


def _change_length(run: RunFolder, config: RunConfig, epochs: int, is_main_process: bool) -> None:
    """Give a run, which is held, its new length, if it has not had it before. All processes of a launch call it.

    Raises:
        ConfigError: If another process has trained the run since the config was made, so that it does not fit any more.
    """
    now = [dump(_with_length(run, epochs)) if is_main_process else None]
    if broadcast_object_list(now)[0] != dump(config):
        raise ConfigError(f"{run.path} has just been changed by another process; give the same call again")
    if is_main_process and config != run.config():
        run.change_length(config)


def load(folder: str | Path, *, device: str | torch.device = "cpu", revision: str | None = None) -> Model:
    """The trained model of a run, or of the Hugging Face Hub. Nothing in its files is executed.

    Args:
        folder: The run's folder, or any folder with its ``config.json`` and ``model.safetensors``. A text ``owner/name``
            that is no folder here names a model on the Hub, which is downloaded. A :class:`pathlib.Path` is always a
            folder.
        device: Where the model goes: ``cpu``, as by default, ``cuda``, ``cuda:1``, ``mps``, or ``auto`` for the best there
            is. ``model.to(...)`` moves it later.
        revision: Branch, tag or commit of a model on the Hub; by default ``main``.

    Raises:
        ConfigError: If there is no run and no such model on the Hub, its config is not valid, or this machine has no such
            device.
        RunError: If the weights are missing, damaged, or not those of the config's network, or the Hub cannot be reached.
        TypeError: If the folder is neither a text nor a path.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(
            f"load takes a run's folder, or owner/name of a model on the Hub, as text or a path, not {folder!r}"
        )
    if folder == "":
        raise ConfigError("load takes a run's folder, or owner/name of a model on the Hub, not an empty text")
    if isinstance(folder, str) and is_hub_name(folder) and not Path(folder).exists():
        from ssl_dc.hub.download import downloaded

        return downloaded(folder, revision).load_model(device_named(device))
    if revision is not None:
        raise ConfigError(f"revision={revision!r} is for a model on the Hub, and {folder} is a folder or no name of one")
    return RunFolder.existing(Path(folder)).load_model(device_named(device))


def save(model: Model, folder: str | Path) -> Path:
    """Write a model into a new folder: its config and its weights, as :func:`load` and :func:`ssl_dc.push` take them.

    For a model that your own code trained further. A training of this package writes its model itself.

    Args:
        model: The model, in float32.
        folder: The folder, which does not exist yet.

    Returns:
        The folder.

    Raises:
        ConfigError: If something is there already.
        RunError: If the weights are not those of a network of the model's config, as in bfloat16 or with thresholds for
            other budgets than those of training, or the folder cannot be written. Nothing is written then.
    """
    network = outline(model.config)
    if network is not None:
        check_fit(network, model.encoder.state_dict(), "the model")
    path = Path(folder)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConfigError(f"{path} is there already and is not overwritten; save takes a folder that does not exist yet")
    run = RunFolder.create(path, model.config)
    run.save_model(model.encoder)
    return run.path


@overload
def evaluate(
    folder: str | Path,
    protocol: Literal["knn", "linear", "finetune", "transfer"] = "knn",
    *,
    device: str | torch.device = AUTO,
    **options: Any,
) -> Evaluation: ...


@overload
def evaluate(
    folder: str | Path,
    protocol: Literal["umap", "tsne"],
    *,
    output: str | Path | None = None,
    device: str | torch.device = AUTO,
    **options: Any,
) -> Projection: ...


@overload
def evaluate(
    folder: str | Path,
    protocol: Literal["gates"],
    *,
    output: str | Path | None = None,
    device: str | torch.device = AUTO,
    **options: Any,
) -> GateStatistics: ...


@overload
def evaluate(
    folder: str | Path,
    protocol: str = "knn",
    *,
    output: str | Path | None = None,
    device: str | torch.device = AUTO,
    **options: Any,
) -> Report: ...


def evaluate(
    folder: str | Path,
    protocol: str = "knn",
    *,
    output: str | Path | None = None,
    device: str | torch.device = AUTO,
    budget: Budgets | None = None,
    data_root: str | Path | None = None,
    eval_data: str | None = None,
    eval_data_root: str | Path | None = None,
    eval_data_set: Mapping[str, Any] | None = None,
    **options: Any,
) -> Report:
    """Evaluate the frozen encoder of a run, on each of its routes, on held-out images.

    In a launch of several processes all of them call it. They share the images, and each gets the whole report; the first
    one draws the picture.

    Args:
        folder: The run's folder.
        protocol: The protocol's name; ``ssl-dc plugins list --kind protocol`` lists them.
        output: Where to write the picture of a protocol that has one (``umap``, ``tsne``, ``gates``): PNG, PDF or SVG.
        device: Where features are computed, such as ``cpu`` or ``cuda:1``; by default on the best device there is.
        budget: Share of the dense cost that the gated route may pay, in place of the budget of training. Of several, the
            report has a gated route for each.
        data_root: Where the run's data is now, if it has moved.
        eval_data: Another data set to evaluate on, labelled where the run's own is not, by its name.
        eval_data_root: Folder that holds it.
        eval_data_set: Its other options, such as ``{"image_column": "img"}``.
        **options: Those of the protocol, as ``ssl-dc plugins show PROTOCOL`` lists them, such as ``k`` for ``knn``,
            ``seeds`` and ``augment`` for ``linear``, ``to`` for ``transfer``.

    Raises:
        ConfigError: If there is no run, protocol or device of that name, an option is wrong or does not belong to the
            protocol, or something that the protocol needs is not installed.
        DataError: If the images cannot be opened, or have no labels and the protocol needs some.
        RunError: If the run's training has not ended.
    """
    picture = None if output is None else Path(output)
    checked = protocol_options(protocol, options, drawn=picture is not None, spelt=str)
    other = evaluation_data(data_root, eval_data, eval_data_root, eval_data_set, calibrates=budget is not None)
    if not checked.opens_own_data and (other is not None or (data_root is not None and budget is None)):
        option = "--eval-data" if other is not None else "--data-root"
        raise ConfigError(f"{option}: protocol {protocol} opens a data set of its own; leave the option out")
    if picture is not None:
        drawing.check_drawable(picture)  # before anything is computed
    model = load(folder, device=device)
    model = _at(moved_data(model, data_root), budget)
    if other is None:
        return run_protocol(model, checked, output=picture)
    with told_by("--eval-data"):
        return run_protocol(on_other_data(model, other), checked, output=picture)


def _at(model: Model, budget: Budgets | None) -> Model:
    return model if budget is None else dialled(model, budget)


def embed(
    folder: str | Path,
    data: str | Path | None = None,
    *,
    output: str | Path,
    route: Route | str = Route.DENSE,
    budget: Budgets | None = None,
    data_root: str | Path | None = None,
    data_set: Mapping[str, Any] | None = None,
    splits: Sequence[str] = (),
    shard_size: int | None = None,
    workers: int | None = None,
    device: str | torch.device = AUTO,
    watchers: Sequence[Watcher] = (),
    progress: bool | Literal["auto"] = "auto",
) -> Embedding:
    """Write the features of the frozen encoder of a run to a file, for all images of a data set.

    A call that was killed goes on when it is called again: what was computed is kept in ``OUTPUT.parts`` until the file is
    whole. In a launch of several processes all of them call it. They share the images, on a disk that all see.

    Args:
        folder: The run's folder.
        data: A folder of pictures, a folder or file of parquet, a folder that ``datasets`` saved, or the name of a data
            set; by default the run's own. Of a data set that is given here nothing is held out.
        output: The file, which does not exist yet: ``.parquet``, with a row for each image (``split``, ``name``, ``label``,
            ``class``, ``macs``, ``features``), or ``.npy``, (n, feature_dim) float32, with a ``.csv`` of the other columns.
        route: The route, or its name.
        budget: Share of the dense cost that the gated route may pay, in place of the budget of training.
        data_root: Folder that holds a data set that is named, or else the run's own if it has moved. The run's own is
            opened if it is embedded, or if gates are calibrated on it for ``budget``.
        data_set: Other options of the data set, such as ``{"image_column": "img"}``.
        splits: Only these parts of it: ``train``, ``evaluation_train``, ``calibration``, ``test``, ``others``.
        shard_size: Images that are kept together, 1024 by default.
        workers: Processes that prepare images; by default as many as the run has.
        device: Where features are computed; by default on the best device there is.
        watchers: Told of phases, and of each batch as a step.
        progress: Whether to show progress, as in :func:`train`.

    Raises:
        ConfigError: If there is no run, data set or device of that name, the output is there already or its ending names no
            format, or shards of another embedding stand beside it.
        DataError: If the images cannot be opened or read. One of a set without labels that cannot be read has no row in the
            file instead, and is reported. The data set's ``bad_images`` decides otherwise.
        RunError: If the run's training has not ended, features are not finite, or the file cannot be written.
    """
    way = Route.parse(route) if isinstance(route, str) else route
    if budget is not None and not way.gated:
        raise ConfigError("--budget is for the gated route: give --route gated")
    writer_for(Path(output))  # before anything is computed
    model = load(folder, device=device)
    if way.gated and not model.has_gates:
        raise ConfigError(
            f"--route gated: this model has no gates, it was trained with gating {model.config.gating.name!r}"
        )
    of_the_run = data is None or (budget is not None and not registry().has("data", str(data)))
    if of_the_run and data_root is not None:
        model, data_root = moved_data(model, data_root), None
    options = embedded_data(model.config, data, data_root, data_set)
    if budget is not None:
        model = dialled_once(model, budget)
        way = model.gated_route
    with told_by("--data"):
        return write_embedding(
            model,
            build_data_set(model.config.model_copy(update={"data": options})),
            Path(output),
            way,
            splits=splits,
            shard_size=SHARD if shard_size is None else shard_size,
            workers=model.config.training.workers if workers is None else workers,
            watchers=[*watchers, *progress_watchers(progress)],
        )


def run_protocol(model: Model, options: ProtocolOptions, *, output: Path | None = None) -> Report:
    """Run an evaluation protocol on a model, and draw its picture if ``output`` names a file.

    Raises:
        ConfigError: If a picture cannot be drawn.
        PluginError: If the protocol does not return a :class:`ssl_dc.Report`.
    """
    if output is not None:
        drawing.check_drawable(output)  # before anything is computed
    protocol = registry().find("protocol", options.name)
    report = protocol.target()(model, options)
    if not isinstance(report, Report):
        raise PluginError(f"{protocol} must return a ssl_dc.Report, not a {type(report).__name__}")
    if output is not None and rank() == 0:
        drawing.save(report.draw(), output)
    return report


def _free_folder(config: RunConfig) -> Path:
    """Make a folder under ``runs/`` that did not exist, named for what is run.

    Raises:
        RunError: If it cannot be made.
    """
    for path in _possible_folders(config):
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"cannot make the run folder {path}: {error.strerror or error}") from error
        break
    return path


def _possible_folders(config: RunConfig) -> Iterator[Path]:
    """Folders under ``runs/``, named for what is run, the best first."""
    budgets = config.budget.budgets
    budget = f"-{budgets[0]:g}" if len(budgets) == 1 else f"-{budgets[0]:g}to{budgets[-1]:g}" if budgets else ""
    name = f"{config.data.name}-{config.objective.name}-{config.gating.name}{budget}-seed{config.seed}"
    name = re.sub(r"[^\w.-]+", "-", name)  # a part may be named package:name, or by the path of a plugin's file
    for number in itertools.count(1):
        yield Path("runs") / (name if number == 1 else f"{name}-{number}")
