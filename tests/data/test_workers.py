"""Processes that prepare images end with the process that started them, and their failures have words."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Client
from multiprocessing.resource_sharer import DupFd
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from helpers.command_line import HANGS, run_python
from ssl_dc.data.workers import _end_workers, loaded, prepare_worker, worker_failures
from ssl_dc.errors import DataError, RunError


class Numbers(Dataset[Tensor]):
    """64 numbers; what is at 20 does something else."""

    def __init__(self, at_20: Callable[[], Any] = lambda: None) -> None:
        self.at_20 = at_20

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Tensor:
        if index == 20:
            self.at_20()
        return torch.tensor(index)


def loader(data: Dataset[Tensor], workers: int = 2) -> DataLoader[Tensor]:
    return DataLoader(data, batch_size=4, num_workers=workers, worker_init_fn=prepare_worker)


def raises(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


Children = Callable[[], int]


@pytest.fixture
def children() -> Children:
    """Counts the processes that this test has started and that still live, among those of all tests in this process."""
    before = set(multiprocessing.active_children())
    return lambda: len(set(multiprocessing.active_children()) - before)


def until(reached: Callable[[], bool]) -> None:
    """Wait for something that is sure to come; the test's time limit ends a wait in vain."""
    while not reached():
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_all_batches_come_and_no_process_is_left(workers: int, children: Children) -> None:
    assert torch.cat(list(loaded(loader(Numbers(), workers)))).tolist() == list(range(64))
    assert children() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_no_process_is_left_when_the_one_who_takes_the_batches_fails(workers: int, children: Children) -> None:
    def take() -> None:
        for number, _ in enumerate(loaded(loader(Numbers(), workers))):
            if number == 3:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        take()
    assert children() == 0


def test_no_process_is_left_when_batches_are_left_over(children: Children) -> None:
    batches = loaded(loader(Numbers()))
    next(batches)
    assert children() == 2
    batches.close()
    assert children() == 0


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("text", ["image a.png cannot be read.", "DataError: x\nDataError: y cannot be read"])
def test_an_image_that_cannot_be_read_is_told_in_its_own_words(workers: int, text: str, children: Children) -> None:
    with pytest.raises(DataError) as caught:
        list(loaded(loader(Numbers(raises(DataError(text))), workers)))
    assert str(caught.value).endswith(text.rpartition("\nDataError: ")[2])
    assert "Traceback" not in str(caught.value)
    assert children() == 0


@pytest.mark.parametrize("error", [RuntimeError("boom"), ConnectionResetError("boom"), KeyError("boom")])
def test_other_errors_of_the_data_set_stay_what_they_are(error: Exception, children: Children) -> None:
    with pytest.raises(type(error), match="boom"), worker_failures():
        list(loaded(loader(Numbers(raises(error)))))
    assert children() == 0


@pytest.mark.long
@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGKILL), (2, signal.SIGSEGV)])
def test_a_worker_that_dies_is_one_message(number: signal.Signals, workers: int, children: Children) -> None:
    with pytest.raises(RunError) as caught, worker_failures():
        list(loaded(loader(Numbers(lambda: os.kill(os.getpid(), number)), workers)))
    assert f"is killed by signal: {signal.strsignal(number)}" in str(caught.value)
    assert "--workers 0" in str(caught.value)
    assert children() == 0


@pytest.mark.long
def test_a_worker_that_dies_interrupts_nothing_but_the_wait_for_a_batch(children: Children) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    batches = loaded(loader(Numbers(lambda: os.kill(os.getpid(), signal.SIGKILL))))
    with pytest.raises(RunError):
        for _ in batches:
            pass
    for _ in range(20):  # each ends a process of this one, which torch's own handler would be told of
        subprocess.run(["true"], check=True)
    assert signal.getsignal(signal.SIGCHLD) is before
    assert children() == 0


def test_a_worker_without_room_in_shared_memory_is_told_so(children: Children) -> None:
    with pytest.raises(RunError, match=r"no room.*/dev/shm"):
        list(loaded(loader(Numbers(lambda: os.kill(os.getpid(), signal.SIGBUS)), 1)))
    assert children() == 0


def test_a_worker_that_dies_while_others_are_started_leaves_none(
    monkeypatch: pytest.MonkeyPatch, children: Children
) -> None:
    """Torch's handler of SIGCHLD, if another loader has installed it, raises in the midst of making the iterator."""

    made: list[Any] = []

    def dies(iterator: Any, *_arguments: Any, **_more: Any) -> None:
        iterator._workers_status = [True, True]
        made.append(iterator)
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter._reset", dies)
    with pytest.raises(RunError, match="a process that prepares images") as caught, worker_failures():
        list(loaded(loader(Numbers(), 2)))
    assert caught.value is not None  # the traceback still holds the iterator, which torch would end with it
    assert children() == 0
    made[0]._shutdown_workers()  # as the garbage collector has it done, perhaps when the pipes are closed
    assert not [queue for queue in made[0]._index_queues if queue._thread is not None], "it writes into its pipes"


def test_a_worker_that_died_with_a_lock_of_torch_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_dc.data.workers.PATIENCE_SECONDS", 0.2)
    batches = iter(loader(Numbers()))
    next(batches)
    batches._workers_done_event._cond._lock.acquire()  # type: ignore[attr-defined]  # as one that is killed leaves it
    workers = list(batches._workers)  # type: ignore[attr-defined]
    _end_workers(batches)
    assert [worker.is_alive() for worker in workers] == [False, False]


def test_shared_memory_that_runs_out_is_one_message() -> None:
    torchs = "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"
    with pytest.raises(RunError, match=r"no room.*/dev/shm.*--shm-size"), worker_failures():
        raise RuntimeError(torchs)


def waiting(ready: Any) -> None:
    prepare_worker(0)
    ready.set()
    time.sleep(600)


def test_a_worker_lives_through_signals_of_others_and_ends_when_its_parent_asks() -> None:
    ready = multiprocessing.Event()
    worker = multiprocessing.Process(target=waiting, args=(ready,))
    worker.start()
    ready.wait()
    for name in ("INT", "TERM", "TERM"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    worker.join(1.0)
    assert worker.is_alive()
    worker.terminate()
    worker.join()
    assert worker.exitcode == 0


def test_a_worker_ends_when_its_parent_is_killed() -> None:
    ready = multiprocessing.Event()
    pids, told = os.pipe()
    parent = os.fork()
    if parent == 0:
        worker = multiprocessing.Process(target=waiting, args=(ready,))
        worker.start()
        os.write(told, f"{worker.pid}\n".encode())
        time.sleep(600)
    worker_pid = int(os.read(pids, 100))
    ready.wait()
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    until(lambda: is_gone(worker_pid))


def interrupted_transfer(prepare: bool, done: Any) -> None:
    if prepare:
        prepare_worker(0)
    address = DupFd(1)._id[0]  # type: ignore[attr-defined]  # starts the thread that hands tensors over
    with socket.socket(socket.AF_UNIX) as receiver:
        receiver.connect(address)
        receiver.recv(1)  # the rest is never read: the connection is reset
    with Client(address, authkey=multiprocessing.current_process().authkey):
        pass  # heard once the first has been dealt with
    time.sleep(0.2)
    done.set()


@pytest.mark.parametrize("prepare", [True, False])
def test_a_worker_whose_main_process_is_killed_in_a_transfer_shows_no_traceback(
    prepare: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    done = multiprocessing.Event()
    worker = multiprocessing.Process(target=interrupted_transfer, args=(prepare, done))
    worker.start()
    done.wait()
    worker.join()
    assert ("ConnectionResetError" in capfd.readouterr().err) == (not prepare)


SCRIPT = """
import multiprocessing, sys
multiprocessing.set_start_method(sys.argv[1])
import ssl_dc
def train():
    ssl_dc.train({{
        "data.limit": 32, "data.test_limit": 20, "data.image_size": 8, "backbone.width": 4, "objective.expander_width": 8,
        "training.batch_size": 16, "training.epochs": 1, "training.workers": 1,
    }}, output=sys.argv[2])
    print("trained")
{call}
"""


@pytest.mark.parametrize("start", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_a_script_without_a_main_guard_is_told(tmp_path: Path, start: str) -> None:
    """Under these start methods, the default of macOS, Windows and Python 3.14, this waited for ever."""
    (tmp_path / "script.py").write_text(SCRIPT.format(call="train()"))
    said = run_python("script.py", start, "run", cwd=tmp_path)
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1].startswith("ssl_dc.errors.RunError: the processes that prepare images cannot be")
    assert "if __name__ == '__main__':" in said.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_a_script_with_a_main_guard_trains(tmp_path: Path, start: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(call='if __name__ == "__main__":\n    train()'))
    said = run_python("script.py", start, "run", cwd=tmp_path)
    assert said.stdout == "trained\n", said.stderr


@pytest.mark.long
def test_a_machine_that_cannot_start_workers_says_so(tmp_path: Path) -> None:
    mounted = "mount -t tmpfs -o size=4k tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mounted], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a test mount a small /dev/shm")
    words = "train --data.limit 32 --data.image_size 8 --backbone.width 4 --batch-size 16 --workers 1 --output run"
    said = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mounted} && exec {sys.executable} -m ssl_dc {words}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1].startswith(
        "ssl-dc: the processes that prepare images cannot be started: No space left"
    )
    assert "Traceback" not in said.stderr
