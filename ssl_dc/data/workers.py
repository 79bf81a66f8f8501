"""The processes that prepare images: what they do about signals, how they end, and what their failures mean in words.

Whatever ends a training or an evaluation, these processes end with it. None of them outlives the process that started it.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from ssl_dc.errors import DataError, RunError

T = TypeVar("T")

PARENT_SECONDS = 0.5
"""How often a process looks whether its parent is still there."""
PATIENCE_SECONDS = 8.0
"""How long workers that are asked to end may take to finish what they do."""


def loaded(loader: DataLoader[T]) -> Generator[T, None, None]:
    """The batches of a loader; its processes have ended when this generator has ended, however that comes about.

    Args:
        loader: Made with :func:`prepare_worker` as ``worker_init_fn``.

    Raises:
        DataError: If an image cannot be read, here or in a worker.
        RunError: If the workers cannot be started.
    """
    batches = _started(loader)
    try:
        yield from batches
    except DataError as error:
        raise DataError(_text_of_worker_error(error)) from None
    except (ConnectionError, EOFError) as error:
        if not loader.num_workers or str(error).startswith("Caught "):  # raised by the data set itself
            raise
        raise RunError(_death_in_a_transfer(getattr(batches, "_workers", ()))) from error
    except RuntimeError as error:
        if reason := _reason_of_death(str(error), getattr(batches, "_workers", ())):
            raise RunError(reason) from None
        raise
    finally:
        _end_workers(batches)


ADVICE = "With training.workers=0 (--workers 0) the training process prepares the images itself."


def _started(loader: DataLoader[T]) -> Iterator[T]:
    if not loader.num_workers:
        return iter(loader)
    refuse_unguarded_script()
    _check_main_guard()
    try:
        _try_channels(loader.num_workers)
        with _none_left_half_started(), _deaths_reported_in_turn():
            batches = iter(loader)
            _report_nothing_elsewhere(batches)
            return batches
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        room = f" {SHARED_MEMORY}" if getattr(error, "errno", None) == errno.ENOSPC else ""
        raise RunError(f"the processes that prepare images cannot be started: {reason}.{room} {ADVICE}") from error


@contextmanager
def _none_left_half_started() -> Iterator[None]:
    """End the processes that were started in here if this fails: one may die while torch still starts the others."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException as error:
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
            child.join()
        _abandon_half_made(error)
        raise


def _abandon_half_made(error: BaseException) -> None:
    """Keep the iterator that torch was making from asking its workers to end when it is deleted.

    The garbage collector may close its pipes first. It would then write to, and close, whatever has their numbers by then.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        made = frame.f_locals.get("self")
        if isinstance(made, _MultiProcessingDataLoaderIter):
            made._shutdown = True
            _report_nothing_elsewhere(made)


@contextmanager
def _deaths_reported_in_turn() -> Iterator[None]:
    """Let torch report a dead worker of a loader that is started in here where it waits for a batch, and nowhere else.

    Torch's own handler of SIGCHLD raises in the midst of whatever this process does: while it starts workers, ends them or
    closes a file. Torch leaves it out if it takes it for installed, and then finds a dead worker within 5 seconds. Other
    loaders of the process get it as ever.
    """
    before = signal_handling._SIGCHLD_handler_set  # there is no public name for it
    signal_handling._SIGCHLD_handler_set = True
    try:
        yield
    finally:
        signal_handling._SIGCHLD_handler_set = before


def _report_nothing_elsewhere(batches: Iterator[Any]) -> None:
    """Let the handler of SIGCHLD, which another loader may have installed before, say nothing of these workers."""
    if getattr(batches, "_worker_pids_set", False):
        signal_handling._remove_worker_pids(id(batches))  # type: ignore[attr-defined]  # there is no public name
        batches._worker_pids_set = False  # type: ignore[attr-defined]


SHARED_MEMORY = "Shared memory (/dev/shm) is too small: give it more room (docker run --shm-size 1g) or use fewer workers."


def _try_channels(workers: int) -> None:
    """Make and drop what workers are spoken to by. Where torch cannot make it, it leaves a traceback behind at exit."""
    made = [multiprocessing.Event(), *(multiprocessing.Queue() for _ in range(workers + 1))]
    made.clear()


def refuse_unguarded_script() -> None:
    """End a process that runs its script's training call again because the script lacks a main guard.

    Python starts processes so under the start methods ``spawn`` and ``forkserver``: each first runs the script's other
    lines.
    """
    if _runs_its_script_again():
        os._exit(1)  # heard by the main process, in _check_main_guard


def _runs_its_script_again() -> bool:
    return bool(getattr(multiprocessing.current_process(), "_inheriting", False))


def _check_main_guard() -> None:
    """Try with a process that does nothing whether a process can be started from this script.

    Without the trial a large data set would be written to a process that has ended, which waits for ever.

    Raises:
        RunError: If the script lacks a main guard.
    """
    main = sys.modules["__main__"]
    of_a_script = getattr(main, "__file__", None) is not None and getattr(main, "__spec__", None) is None
    if multiprocessing.get_start_method() == "fork" or not of_a_script:
        return
    trial = multiprocessing.Process(target=_do_nothing)
    trial.start()
    trial.join()
    if trial.exitcode != 0:
        raise RunError(
            "the processes that prepare images cannot be started, because each of them first runs the lines of your script."
            f" Put the call that trains below `if __name__ == '__main__':`. {ADVICE}"
        )


def _do_nothing() -> None:
    """What the trial process does."""


def _end_workers(batches: Iterator[Any]) -> None:
    """End the processes behind an iterator of a loader; an iterator without processes is left alone.

    They are asked first, and killed if that does not help. Torch asks by locks that they share. A worker that died while it
    held one makes the asking wait for ever, so it is done in a thread of its own.
    """
    workers = list(getattr(batches, "_workers", ()))
    if not workers:
        return

    def ask() -> None:
        with suppress(Exception):  # whatever fails here, they are killed below
            batches._shutdown_workers()  # type: ignore[attr-defined]  # torch has no public name for it

    asking = threading.Thread(target=ask, daemon=True)
    with suppress(RuntimeError):  # torch may report in here that a worker has died, which is no news now
        asking.start()
        asking.join(PATIENCE_SECONDS)
    for worker in workers:
        with suppress(RuntimeError):
            worker.kill()
        worker.join()


@contextmanager
def worker_failures() -> Iterator[None]:
    """Tell what happened where a process that prepares images dies. Torch raises that in the middle of anything.

    Raises:
        RunError: If one was killed, or shared memory ran out.
    """
    try:
        yield
    except RuntimeError as error:
        if reason := _reason_of_death(str(error)):
            raise RunError(reason) from None
        raise


def _death_in_a_transfer(workers: Sequence[BaseProcess]) -> str:
    """What happened where the connection to a worker broke while it handed a batch over."""
    for worker in workers:
        worker.join(1 / len(workers))  # it is about to end
    signals = _ended_by(workers)
    if signal.SIGBUS in signals:
        return _no_room()
    return _death(f" {_killed_by(signals[0])}" if signals else " ended unexpectedly")


def _ended_by(workers: Sequence[BaseProcess]) -> list[int]:
    """The signals that have ended workers."""
    ends = [worker.exitcode or 0 for worker in workers]
    return [-end for end in ends if end < 0]


def _killed_by(number: int) -> str:
    return f"is killed by signal: {signal.strsignal(number)}"


def _no_room() -> str:
    return f"a process that prepares images has no room. {SHARED_MEMORY} {ADVICE}"


def _reason_of_death(text: str, workers: Sequence[BaseProcess] = ()) -> str | None:
    """What a message of torch says about its worker processes, in words; None if it speaks of something else."""
    found = re.search(
        r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (is killed by signal: [\w ]+|exited unexpectedly)", text
    )
    signals = _ended_by(workers) if found else []
    if signal.SIGBUS in signals or re.search(
        r"shared memory|unable to (allocate|resize|write to file) .*/torch_|Bus error", text
    ):
        return _no_room()
    if found:
        return _death(f" (pid {found[1]}) {_killed_by(signals[0]) if signals else found[2]}")
    return None


def _death(what: str) -> str:
    return (
        f"a process that prepares images{what}. The system kills processes when memory runs out; fewer workers need less of"
        f" it. {ADVICE}"
    )


def _text_of_worker_error(error: DataError) -> str:
    """The message of an error that may come from a worker, without the traceback that torch puts in front of it."""
    text = str(error)
    if not text.startswith("Caught "):
        return text
    *_, last = re.split(rf"^(?:[\w.]*\.)?{type(error).__name__}: ", text, flags=re.MULTILINE)
    return last.strip()


def prepare_worker(number: int) -> None:  # noqa: ARG001  # what a DataLoader calls in each worker
    """Let a process that prepares images end when its main process wants it or is gone, and by no other request.

    Ctrl-C goes to a terminal's whole foreground group, and schedulers signal whole jobs. A worker lives through these,
    because the main process still has a step to end and to save.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        _in_background(_end_on_request)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the main process then ends it by SIGKILL
    sys.excepthook = _report_but_broken_connections
    when_parent_ends(lambda: os._exit(1))


def _report_but_broken_connections(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report an error as Python does, unless it says that the main process has gone, which this process sees by itself.

    The thread of multiprocessing that hands tensors over reports so.
    """
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def _end_on_request() -> NoReturn:
    """End this process when its main process sends SIGTERM; swallow those of others."""
    main = multiprocessing.parent_process()
    while True:
        told = signal.sigwaitinfo({signal.SIGTERM})
        if main is not None and told.si_pid == main.pid:
            os._exit(0)  # torch takes any other status for a failure


def when_parent_ends(act: Callable[[], None]) -> None:
    """Call a function, in a thread of its own, once the process that started this one has ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        act()

    _in_background(watch)


def _in_background(function: Callable[[], None]) -> None:
    threading.Thread(target=function, daemon=True).start()
