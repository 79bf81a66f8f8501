"""A process of a launch ends well, however slow gloo's threads are."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from helpers.command_line import run_python
from ssl_dc.distributed import let_gloo_finish

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the states of threads are read from /proc")


def test_the_end_waits_for_a_thread_of_gloos_that_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_dc.distributed._LONGEST", 60.0)  # the machine may be busy
    ends: list[float] = []
    begun, over = threading.Event(), threading.Event()

    def work() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("pt_gloo_runloop")
        begun.set()
        hashlib.sha256(bytes(10**8)).hexdigest()  # without Python's lock
        ends.append(time.monotonic())
        over.wait()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    let_gloo_finish()
    returned = time.monotonic()
    over.set()
    thread.join()
    assert ends, "it waited for the work"
    assert ends[0] < returned


def test_a_process_without_such_threads_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(_seconds: float) -> None:
        raise AssertionError("it waited")

    # Other tests of this process may have left gloo's own threads.
    monkeypatch.setattr("ssl_dc.distributed._GLOO_THREAD", "no_such_thread")
    monkeypatch.setattr("ssl_dc.distributed.time.sleep", wait)
    let_gloo_finish()


LAUNCH = """
import os, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import ssl_dc.distributed

dist.init_process_group("gloo")
network = DistributedDataParallel(torch.nn.Linear(100, 100))  # it keeps the group, and with it gloo's threads
network(torch.ones(5, 100)).sum().backward()
for thread in os.listdir("/proc/self/task"):
    if int(thread) != os.getpid():
        os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
parts = [torch.ones(1000), torch.ones(1000)]
dist.all_gather(parts, torch.ones(1000))
dist.all_reduce(parts[0])
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_launches_whose_gloo_threads_get_little_time_end_well(tmp_path: Path) -> None:
    """Without the wait, about a third of them abort."""
    (tmp_path / "launch.py").write_text(LAUNCH)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", tmp_path / "launch.py")
    for number in range(10):
        ended = run_python(*launch, OMP_NUM_THREADS="1", HOME=os.environ.get("HOME", str(tmp_path)))
        assert ended.returncode == 0, (number, ended.stderr[-2000:])
