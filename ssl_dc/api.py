"""The functions of the library: train, resume, load, evaluate."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, overload

import torch
from accelerate.utils import broadcast_object_list

from ssl_dc.assemble import build_data_set
from ssl_dc.config import RunConfig, resolve, uniform_layer, with_data
from ssl_dc.data.base import Splits
from ssl_dc.data.subsets import open_splits
from ssl_dc.data.workers import refuse_unguarded_script
from ssl_dc.devices import AUTO, device_named
from ssl_dc.distributed import peer_failures, rank
from ssl_dc.embedding.embed import SHARD, Embedding, write_embedding
from ssl_dc.embedding.which_data import embedded_data
from ssl_dc.errors import ConfigError, PluginError, RunError
from ssl_dc.evaluation import drawing
from ssl_dc.evaluation.dialled import Budgets, dialled
from ssl_dc.evaluation.gate_statistics import GateStatistics
from ssl_dc.evaluation.options import protocol_options
from ssl_dc.evaluation.other_data import moved_data, on_other_data, other_data, told_by
from ssl_dc.evaluation.projection import Projection
from ssl_dc.evaluation.report import Report
from ssl_dc.evaluation.scores import Evaluation
from ssl_dc.model import Model
from ssl_dc.plugins.options import ProtocolOptions
from ssl_dc.plugins.registry import registry
from ssl_dc.progress.progress import progress_watchers
from ssl_dc.routes import Route
from ssl_dc.run_folder import RunFolder
from ssl_dc.runs import PreparedRun, Run
from ssl_dc.trackers.base import Watcher, phase


def train(
    settings: Mapping[str, Any] | RunConfig | None = None,
    *,
    output: str | Path | None = None,
    watchers: Sequence[Watcher] = (),
    progress: bool | Literal["auto"] = "auto",
) -> Run:
    """Train a run from its start to its end, and evaluate it.

    Args:
        settings: Dotted keys and values over the defaults and recipes, such as ``{"budget.target": 0.1}``, or a complete
            config.
        output: The run's folder, which must not exist yet; by default a new one under ``runs/``.
        watchers: Told of what happens.
        progress: Whether to show progress (:class:`ssl_dc.Progress`); by default in notebooks, and not in scripts.

    Raises:
        ConfigError: If the settings cannot be run, or another process trains in that folder; nothing is written then.
        RunError: If training fails; what was saved before is kept.
        Stopped: If SIGTERM or SIGINT asked for it; the last step is saved, :func:`resume` goes on.
    """
    refuse_unguarded_script()
    config = settings if isinstance(settings, RunConfig) else resolve([uniform_layer(settings or {}, "settings")]).config
    if output is not None:
        RunFolder.check_free(Path(output))
    told = [*watchers, *progress_watchers(progress)]
    splits = _read(config, told)
    prepared = _built(config, splits, told)
    with ExitStack() as held, peer_failures():
        chosen: list[Path | None] = [None]
        if prepared.is_main_process:  # which chooses for all: what is free may change while the others look
            path = Path(output) if output else _free_folder(config)
            held.enter_context(RunFolder.new(path, config)).save_data(splits.train)
            chosen = [path]
        return prepared.fit(RunFolder(broadcast_object_list(chosen)[0]), told)


def resume(
    folder: str | Path,
    *,
    data_root: str | Path | None = None,
    bad_images: str | None = None,
    accept_changed_data: bool = False,
    watchers: Sequence[Watcher] = (),
    progress: bool | Literal["auto"] = "auto",
) -> Run:
    """Continue a run from its newest resume point, exactly as if it had never stopped.

    Args:
        folder: The run's folder.
        data_root: Where the data is now, if it has moved.
        bad_images: ``stop`` or ``skip`` in place of the config's ``data.bad_images``.
        accept_changed_data: Whether to go on with training images that are not those that the run began with.
        watchers: Told of what happens.
        progress: Whether to show progress, as in :func:`train`.

    Raises:
        ConfigError: If there is no run, another process trains in it, or its training images are not those that it began
            with.
        RunError: If training fails.
        Stopped: If SIGTERM or SIGINT asked for it.
    """
    run = RunFolder.existing(Path(folder))
    config = with_data(run.config(), "resume", root=data_root, bad_images=bad_images)
    told = [*watchers, *progress_watchers(progress)]
    splits = _read(config, told)
    if not accept_changed_data:
        run.check_data(splits.train)
    prepared = _built(config, splits, told)
    with ExitStack() as held, peer_failures():
        if prepared.is_main_process:
            held.enter_context(run.held())
            if accept_changed_data:
                run.save_data(splits.train)
        return prepared.fit(run, told)


def _read(config: RunConfig, told: Sequence[Watcher]) -> Splits:
    with phase(told, "reading the pictures"):
        return open_splits(build_data_set(config))


def _built(config: RunConfig, splits: Splits, told: Sequence[Watcher]) -> PreparedRun:
    with phase(told, "building the network"):
        return PreparedRun(config, splits)


def load(folder: str | Path, *, device: str | torch.device = "cpu") -> Model:
    """The trained model of a run. Nothing in the folder is executed.

    Args:
        folder: The run's folder, or any folder with its ``config.json`` and ``model.safetensors``.
        device: Where the model goes: ``cpu``, as by default, ``cuda``, ``cuda:1``, ``mps``, or ``auto`` for the best there
            is. ``model.to(...)`` moves it later.

    Raises:
        ConfigError: If there is no run, its config is not valid, or this machine has no such device.
        RunError: If the weights are missing, damaged, or not those of the config's network.
    """
    return RunFolder.existing(Path(folder)).load_model(device_named(device))


@overload
def evaluate(
    folder: str | Path,
    protocol: Literal["knn", "linear", "transfer"] = "knn",
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
    checked = protocol_options(protocol, options, drawn=picture is not None)
    model = load(folder, device=device)
    if eval_data is None:
        if eval_data_root is not None or eval_data_set:
            raise ConfigError("--eval-data-root and --eval-data-set belong to --eval-data: name the data set as well")
        return run_protocol(_at(moved_data(model, data_root), budget), checked, output=picture)
    if data_root is not None:
        raise ConfigError(
            "--data-root says where the run's own data is, which --eval-data leaves unopened; give one of them"
        )
    root = None if eval_data_root is None else Path(eval_data_root)
    other = other_data("--eval-data", eval_data, root=root, settings=eval_data_set)
    with told_by("--eval-data"):
        return run_protocol(on_other_data(_at(model, budget), other), checked, output=picture)


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
        data_root: Folder that holds a data set that is named, or the run's own if it has moved.
        data_set: Other options of the data set, such as ``{"image_column": "img"}``.
        splits: Only these parts of it: ``train``, ``evaluation_train``, ``calibration``, ``test``.
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
    model = load(folder, device=device)
    if way.gated and not model.has_gates:
        raise ConfigError(
            f"--route gated: this model has no gates, it was trained with gating {model.config.gating.name!r}"
        )
    if data is None and data_root is not None:
        model = moved_data(model, data_root)
    if budget is not None:
        model = dialled(model, budget)
        if len(model.gated_routes) > 1:
            raise ConfigError("--budget: a file has the features of one budget; call once for each")
        way = model.gated_route
    options = embedded_data(model.config, data, data_root, data_set)
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
    budgets = config.budget.budgets
    budget = f"-{budgets[0]:g}" if len(budgets) == 1 else f"-{budgets[0]:g}to{budgets[-1]:g}" if budgets else ""
    name = f"{config.data.name}-{config.objective.name}-{config.gating.name}{budget}-seed{config.seed}"
    for number in itertools.count(1):
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"cannot make the run folder {path}: {error.strerror or error}") from error
        break
    return path
