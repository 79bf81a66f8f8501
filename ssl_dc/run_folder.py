"""The folder of a run: its files and their names.

``config.json``
    The complete config; ``ssl-dc train --config`` reads it too.
``model.safetensors``
    The trained encoder. With ``config.json`` beside it, :func:`ssl_dc.load` needs nothing else.
``data.json``
    The number of training images when the run began, their fingerprint, and the way from the run's folder to the data's.
``bad_images.json``
    The images that could not be read, if there were any and ``data.bad_images`` is ``skip``.
``left_out.json``
    The files of the data set that are not used, if there are any, with the reasons.
``init.safetensors``, ``init.json``
    The weights that the encoder started from, if they were taken from a file (``training.init``); that file, its SHA-256,
    and what of it did not fit.
``metrics.jsonl``
    One JSON object for each logged step.
``tracker.json``
    Which run of Weights & Biases or MLflow the training is, if it is tracked there.
``environment.json``
    The versions, the device and the code that the run was started with.
``history.jsonl``
    One JSON object for each time that the training was begun or continued: when, from which step, for how many epochs and
    steps in all, and the environment.
``best/``
    The config and the model of the step that was best by ``training.keep_best``, with ``best.json``: the measure, its
    value, the step, and what choosing by it means. It is a folder that :func:`ssl_dc.load` takes.
``earlier/N-epochs/``
    The config, the model and the result of the run when it had been trained for N epochs, if it was then trained for
    longer. It is a folder that :func:`ssl_dc.load` takes.
``result.json``
    The accuracy of each route, and its cost.
``traceback.txt``
    The traceback of the exception that a part raised, if one ended the run.
``checkpoints/``
    Resume points.
``.lock``
    The process that trains in the folder, while it does (:mod:`ssl_dc.run_lock`).
"""

from __future__ import annotations

import json
import os
import platform
import stat
import subprocess
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_dc.assemble import Network, build_encoder, build_network
from ssl_dc.atomic_files import is_partial, read_bytes, remove_tree, write_bytes, write_text
from ssl_dc.config import RunConfig, dump, read_complete
from ssl_dc.data.base import ImageSet
from ssl_dc.devices import available_devices
from ssl_dc.distributed import rank
from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import ConfigError, InUseError, RunError
from ssl_dc.json_files import read_record
from ssl_dc.model import Model
from ssl_dc.plugins.options import gone_from
from ssl_dc.printable import name_of
from ssl_dc.run_lock import LOCK_FILE, check_not_held, sole_writer
from ssl_dc.tensor_files import check_fit, fill, read_tensors, write_tensors

_RECORDED = ("ssl-dc", "torch", "torchvision", "accelerate", "numpy", "pydantic", "safetensors")

TRAINING_ALONE = ("objective", "views", "optimizer", "tracker")
"""Kinds of part that only a training uses."""
BEST = "best"
"""The folder in a run's that holds the best model of the looks."""
EARLIER = "earlier"
"""The folder in a run's that holds the models that it had when it had been trained for fewer epochs."""
WAY_TO_DATA = "root_from_run"
"""The key of ``data.json`` that holds the path of the data's folder as seen from the run's folder."""


class RunFolder:
    """A run on disk.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.model_file = path / "model.safetensors"
        self.data_file = path / "data.json"
        self.left_out_file = path / "left_out.json"
        self.bad_images_file = path / "bad_images.json"
        self.metrics_file = path / "metrics.jsonl"
        self.environment_file = path / "environment.json"
        self.initial_file = path / "init.safetensors"
        self.initial_record_file = path / "init.json"
        self.history_file = path / "history.jsonl"
        self.result_file = path / "result.json"
        self.traceback_file = path / "traceback.txt"
        self.checkpoints = path / "checkpoints"

    @classmethod
    @contextmanager
    def new(cls, path: Path, config: RunConfig) -> Iterator[RunFolder]:
        """Make the folder of a new run, with its config and environment. Other processes cannot write in it meanwhile.

        Raises:
            ConfigError: If something is there already, since no run is ever overwritten, or another process has just begun
                a run there.
            RunError: If it cannot be made.
        """
        cls.check_free(path)
        folder = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the run folder {path}: {error.strerror or error}") from error
        with folder.held():
            cls._check_own_and_empty(path)  # now that nobody else can begin a run there
            write_text(folder.config_file, dump(config))
            write_text(folder.environment_file, json.dumps(environment(), indent=2) + "\n")
            yield folder

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> RunFolder:
        """Make the folder of a new run as :meth:`new` does, and let it go at once: for writers that are not trainings."""
        with cls.new(path, config) as folder:
            return folder

    @staticmethod
    def check_free(path: Path) -> None:
        """Check that a new run may go there.

        Raises:
            ConfigError: If something is there already, a process trains in it, or another user has put a folder where
                anybody may.
        """
        if path.is_dir() and not _is_planted(path):
            try:
                check_not_held(path)
            except InUseError as error:
                raise InUseError(f"{error}, or name another --output") from None
        RunFolder._check_own_and_empty(path)

    @staticmethod
    def _check_own_and_empty(path: Path) -> None:
        if _is_planted(path):
            raise ConfigError(
                f"{path} belongs to another user, and anybody may put folders there; name an --output of your own"
            )
        if path.exists() and (not path.is_dir() or not all(map(_left_behind, path.iterdir()))):
            raise ConfigError(
                f"{path} is there already and is not overwritten; name another --output, or go on with --resume"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from writing in the folder while the block runs.

        Raises:
            ConfigError: If another process holds it.
            RunError: If it cannot be written.
        """
        with sole_writer(self.path):
            below = (self.checkpoints.glob(".*"), (self.path / BEST).glob(".*"), (self.path / EARLIER).glob("*/.*"))
            for entry in filter(is_partial, (*self.path.iterdir(), *chain.from_iterable(below))):
                remove_tree(entry)
            yield

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The folder of a run that was started before.

        Raises:
            ConfigError: If there is no run, or something in the folder is a link that leads out of it.
        """
        folder = cls(path)
        if not folder.config_file.is_file():
            raise ConfigError(f"{path} is not a run folder: it has no {folder.config_file.name}")
        folder._check_links()
        return folder

    def _check_links(self) -> None:
        """Refuse links that lead out of the folder, since a folder may come from anybody."""
        inside = os.path.realpath(self.path)
        for entry in (*self.path.iterdir(), *self.checkpoints.glob("*"), *self.checkpoints.glob("*/*")):
            if entry.is_symlink() and os.path.commonpath([inside, os.path.realpath(entry)]) != inside:
                raise ConfigError(
                    f"{entry} is a link that leads out of the folder, and is not followed; copy what is meant, as by cp -rL"
                )

    def config(self) -> RunConfig:
        """The run's config. If the run was moved together with its data, the config names the data's folder of today.

        Raises:
            ConfigError: If it is not valid, or lacks a whole section. Missing sections are not guessed from defaults.
        """
        return self._with_data_found(self._complete())

    def config_of_network(self) -> RunConfig:
        """The run's config, for those who do not train: the parts that only a training uses need not be installed.

        Raises:
            ConfigError: As :meth:`config` does.
        """
        return self._with_data_found(self._complete(TRAINING_ALONE))

    def _complete(self, may_be_absent: Collection[str] = ()) -> RunConfig:
        try:
            return read_complete(self.config_file, may_be_absent)
        except ConfigError as error:
            try:
                read_record(self.config_file)
            except (OSError, ValueError):
                only = f"Nothing else holds the run's config: only a copy of {self.config_file.name} from a backup helps"
                raise type(error)(f"{error}. {only}") from error
            raise

    def _with_data_found(self, config: RunConfig) -> RunConfig:
        """The config. If the data's folder is gone, but is there as seen from the run, it names that."""
        root = config.data.root
        if root is None or os.path.exists(root):
            return config
        there = self._data_as_seen_from_here()
        if there is not None and os.path.exists(there):
            data = config.data.model_copy(update={"root": there})
        else:
            data = gone_from(config.data, [root] if there is None or there == root else [root, there])
        return config.model_copy(update={"data": data})

    def _data_as_seen_from_here(self) -> Path | None:
        """Where the data's folder is if the run was moved together with it. None if that was not recorded."""
        run = Path(os.path.realpath(self.path))
        if not self.data_file.is_file():  # this may be a model that a run keeps beside its last one
            kept_by = run.parent if run.name == BEST else run.parents[1] if run.parent.name == EARLIER else run
            run = kept_by if (kept_by / self.config_file.name).is_file() else run
        try:
            way = read_record(run / self.data_file.name).get(WAY_TO_DATA)
        except (OSError, ValueError):  # whoever needs the record says that it is damaged
            return None
        there = os.path.normpath(os.path.join(run, way)) if isinstance(way, str) else ""
        return Path(there) if there and "\0" not in there else None

    def change_length(self, config: RunConfig) -> None:
        """Give the run a config of another length. A model that is trained already is kept in ``earlier/N-epochs``.

        Whenever this is interrupted, the run can be resumed: as it was, or with its new length.

        Args:
            config: The run's config but for its length.

        Raises:
            ConfigError: If the present config is not valid.
            RunError: If something cannot be written.
        """
        trained = self.config().training.epochs
        if self.model_file.is_file():
            kept = self.path / EARLIER / f"{trained}-epochs"
            try:
                kept.mkdir(parents=True, exist_ok=True)
                for file in filter(Path.is_file, (self.config_file, self.result_file, self.model_file)):
                    write_bytes(kept / file.name, read_bytes(file))
                self.model_file.unlink()
                self.result_file.unlink(missing_ok=True)
            except OSError as error:
                raise RunError(f"cannot keep the model of {trained} epochs in {kept}: {error.strerror or error}") from error
        write_text(self.config_file, dump(config))

    def save_data(self, images: ImageSet, root: Path | None) -> None:
        """Record the number and the fingerprint of the training images, and the way from here to their folder."""
        way = {} if root is None else {WAY_TO_DATA: os.path.relpath(os.path.realpath(root), os.path.realpath(self.path))}
        write_text(self.data_file, json.dumps({**_recorded(images), **way}, indent=2) + "\n")

    def check_data(self, images: ImageSet) -> None:
        """Check that the training images are those that the run began with, if that was recorded.

        Raises:
            ConfigError: If they are others.
        """
        if not self.data_file.is_file():
            return
        try:
            before, now = read_record(self.data_file), _recorded(images)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.data_file} cannot be read: {name_of(str(error))}") from error
        if {key: value for key, value in before.items() if key != WAY_TO_DATA} != now:
            count = f"it had {name_of(str(before.get('images')))} images, and has {now['images']} now"
            raise ConfigError(
                f"the training images of {self.path} are not those that it began with: {count}. Give it the same ones"
                " (--data-root says where they are), or go on with these: --accept-changed-data"
            )

    def recorded_images(self) -> int:
        """The number of training images when the run began.

        Raises:
            ConfigError: If it was not recorded.
        """
        try:
            return int(read_record(self.data_file)["images"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{self.data_file} cannot be read: {name_of(str(error))}") from error

    def save_bad_images(self, reasons: Mapping[str, Sequence[str]]) -> None:
        """List the images that could not be read: for each split, the reasons."""
        write_text(self.bad_images_file, json.dumps(reasons, indent=2) + "\n")

    def save_left_out(self, reasons: Mapping[str, Mapping[str, str]]) -> None:
        """List the files of the data set that are not used: for each kind of reason, the paths with their reasons."""
        write_text(self.left_out_file, json.dumps(reasons, indent=2) + "\n")

    def save_initial(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Keep the weights that the encoder starts from, and where they come from."""
        write_text(self.initial_record_file, json.dumps(record, indent=2) + "\n")
        write_tensors(self.initial_file, tensors)

    def save_model(self, encoder: nn.Module) -> None:
        """Write the encoder's weights."""
        write_tensors(self.model_file, encoder.state_dict())

    def load_model(self, device: torch.device | str = "cpu") -> Model:
        """The trained model, on a device.

        Raises:
            ConfigError: If the config is not valid.
            RunError: If the weights are missing, damaged, or those of another network than the config's.
        """
        config = self.config_of_network()
        if not self.model_file.is_file():
            raise RunError(f"{self.path} {self.why_no_model()}")
        try:
            tensors = read_tensors(self.model_file)
        except RunError as error:
            raise RunError(f"{error}. {self._way_back_to_the_model()}") from error
        if network_outline := outline(config):
            check_fit(network_outline, tensors, self.model_file)
        network = self._built(config)
        fill(network.encoder, tensors, self.model_file)
        return Model(config, network.encoder, network.cost).to(device)

    def why_no_model(self) -> str:
        """Why a run has no weights, and how to get them; what follows its path in a message."""
        name = self.model_file.name
        if self.result_file.is_file():  # which is written after the weights
            return f"has no {name}: its training has ended, and the file was removed. {self._way_back_to_the_model()}"
        return f"has no {name}: its training has not ended; go on with ssl-dc train --resume {self.path}"

    def _way_back_to_the_model(self) -> str:
        if any(map(Path.is_dir, self.checkpoints.glob("[!.]*"))):
            return f"The run's resume point holds these weights; this writes them again: ssl-dc train --resume {self.path}"
        return f"The folder has no resume point, so only another copy of {self.model_file.name} helps"

    def _built(self, config: RunConfig) -> Network:
        """The network of the run's config.

        Raises:
            ConfigError: If it cannot be built. The message names the file of the config.
        """
        try:
            return build_network(config)
        except ConfigError as error:
            raise type(error)(f"{self.config_file}: {error}") from error

    def save_traceback(self, error: BaseException) -> Path:
        """Write the traceback of an exception. Returns the file; each process of a launch has its own."""
        file = self.traceback_file if rank() == 0 else self.traceback_file.with_suffix(f".{rank()}.txt")
        write_text(file, "".join(traceback.format_exception(error)))
        return file

    def save_result(self, result: dict[str, Any]) -> None:
        """Write the accuracy and the cost of each route."""
        write_text(self.result_file, json.dumps(result, indent=2) + "\n")


def _left_behind(entry: Path) -> bool:
    """Whether a file is the remainder of a run that was killed before it began."""
    return is_partial(entry) or (entry.name == LOCK_FILE and entry.is_file() and not entry.is_symlink())


def _is_planted(path: Path) -> bool:
    """Whether somebody else has put a folder, or a link to one, where anybody may write, such as in /tmp."""
    if not hasattr(os, "geteuid"):
        return False
    try:
        found, above = path.lstat(), path.absolute().parent.stat()
    except OSError:  # there is nothing
        return False
    return bool(above.st_mode & stat.S_IWOTH) and found.st_uid != os.geteuid()


def _recorded(images: ImageSet) -> dict[str, Any]:
    return {"images": len(images), "fingerprint": images.fingerprint()}


def outline(config: RunConfig) -> Encoder | None:
    """The network without memory for its weights: the file is checked against it before any memory is asked for.

    None if a part cannot be built on torch's meta device.
    """
    try:
        with torch.device("meta"):
            return build_encoder(config)[0]
    except Exception:  # a stranger's part may raise anything; the real build shows what is wrong
        return None


def environment() -> dict[str, Any]:
    """Versions, device and git commit (if any) of this process."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: metadata.version(name) for name in _RECORDED},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else available_devices()[0],
        "threads": torch.get_num_threads(),
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """The commit of the working directory; None if that is no git checkout, or git is not installed."""
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
