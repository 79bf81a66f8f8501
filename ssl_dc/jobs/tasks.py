"""Tasks that several workers share, such as the runs of a grid. No two workers ever do the same one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ssl_dc import api
from ssl_dc.config import Layer, resolve
from ssl_dc.config.layers import flattened, merged
from ssl_dc.errors import ConfigError, InUseError, RunError, SslDcError, Stopped
from ssl_dc.progress.progress import Progress
from ssl_dc.run_folder import RunFolder
from ssl_dc.run_lock import sole_writer
from ssl_dc.run_records import json_object
from ssl_dc.training.checkpoint import CheckpointStore

CLAIMS = "claims"
"""The folder, in the output of a grid, with a folder for each task. The worker that does the task holds its lock."""


class Task(Protocol):
    """Something to do once. It can be pickled."""

    @property
    def name(self) -> str:
        """What it is called, as a folder may be."""

    def is_done(self) -> bool:
        """Whether it is done, whoever did it."""

    def do(self) -> None:
        """Do it, or go on with it where another worker was interrupted."""


@dataclass(frozen=True)
class TrainingTask:
    """A run that is trained and evaluated.

    Attributes:
        name: The name of its folder.
        layers: Its settings.
        folder: Its folder.
    """

    name: str
    layers: tuple[Layer, ...]
    folder: Path

    def is_done(self) -> bool:
        """Whether the run is trained and evaluated, and its result can be read."""
        return json_object(RunFolder(self.folder).result_file) is not None

    def do(self) -> None:
        """Train the run, or go on with it. A run whose result is damaged is evaluated once more.

        Raises:
            RunError: If the run cannot be evaluated once more without training it anew.
        """
        if (self.folder / "config.json").is_file():
            self.check()
            self._tell_of_damage()
            api.resume(self.folder, watchers=[Progress()], progress=False)
        else:
            api.train(api.opened(self.layers, self.folder), output=self.folder, watchers=[Progress()], progress=False)

    def _tell_of_damage(self) -> None:
        run = RunFolder(self.folder)
        if not run.result_file.is_file():
            return
        if run.model_file.is_file() and CheckpointStore(run.checkpoints).newest() is None:
            raise RunError(
                f"{run.result_file} is damaged, and no resume point is left from which it could be written again; remove"
                f" {self.folder} to train the run anew"
            )
        print(f"{run.result_file} is damaged and is written again", file=sys.stderr, flush=True)

    def check(self) -> None:
        """Check that the settings are valid, and that a run that is there was made with them.

        Raises:
            ConfigError: If not.
        """
        resolve(self.layers)
        if not (self.folder / "config.json").is_file():
            return
        there = flattened(RunFolder.existing(self.folder).config().model_dump(mode="json"))
        said = merged(self.layers)
        now = flattened(resolve(self.layers).config.model_dump(mode="json"))
        grid = ["budget.grid"] if "budget.target" in said.values else []  # a range sets it as well
        for key in (*said.values, *grid):
            if key in now and there.get(key) != now[key]:
                raise ConfigError(
                    f"{self.folder} was made with other settings: {key} = {there.get(key)}, now {now[key]}"
                    f" ({said.sources.get(key, 'budget.target')}); name another --output"
                )


@dataclass(frozen=True)
class Worked:
    """What a worker has done.

    Attributes:
        done: Names of the tasks that it did.
        failed: The message of each task that failed, by its name.
        left: Names of the tasks that others were working on.
    """

    done: tuple[str, ...]
    failed: dict[str, str]
    left: tuple[str, ...]


def work(tasks: Sequence[Task], output: Path) -> Worked:
    """Do all tasks that nobody has done and nobody is doing, one after the other. One that fails is left, and told.

    Args:
        tasks: The tasks.
        output: The folder that the workers share; their locks lie in it.

    Raises:
        Stopped: If a signal ended a training.
    """
    done, failed, left = list[str](), dict[str, str](), list[str]()
    for number, task in enumerate(tasks, start=1):
        if task.is_done():
            continue
        claim = output / CLAIMS / task.name
        claim.mkdir(parents=True, exist_ok=True)
        try:
            with sole_writer(claim):
                if task.is_done():  # another worker has just ended it
                    continue
                print(f"[{number}/{len(tasks)}] {task.name}", file=sys.stderr, flush=True)
                task.do()
                done.append(task.name)
        except Stopped:
            raise
        except InUseError:
            left.append(task.name)
        except SslDcError as error:
            print(f"{task.name}: {error}", file=sys.stderr, flush=True)
            failed[task.name] = str(error)
    return Worked(tuple(done), failed, tuple(left))


def summed(parts: Sequence[Any]) -> Worked:
    """What several workers have done together."""
    done = tuple(name for part in parts for name in part.done)
    failed = {name: text for part in parts for name, text in part.failed.items()}
    return Worked(done, failed, tuple(sorted({name for part in parts for name in part.left} - {*done, *failed})))
