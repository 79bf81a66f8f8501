"""Progress in a terminal, as a person sees it: ``ssl-dc train`` behind a pseudo terminal of every width."""

from __future__ import annotations

import json
import os
import re
from itertools import dropwhile, takewhile
from pathlib import Path

import pytest

from helpers.settings import TINY, as_options
from helpers.terminals import Recording, record
from helpers.training import saved_steps

WIDTHS = (30, 60, 80, 120, 200)
SETTINGS = {**TINY, "training.epochs": 3, "training.log_every": 4, "budget.target": 0.3}
STEPS = 12

IN_TERMINALS = """
import fcntl, json, struct, sys, termios
from ssl_dc.cli import main
from ssl_dc.progress.terminal import Terminal

Terminal.step_taken = lambda self: self._live.refresh()
settings, folder, *widths = sys.argv[1:]
for width in widths:
    sys.stderr.write(f"<{width}>")
    sys.stderr.flush()
    fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, int(width), 0, 0))
    main(["train", *json.loads(settings), "--output", f"{folder}/{width}"], standalone_mode=False)
"""
"""Trains in terminals of several widths, one after the other: the process and its imports are needed once only.

Each step is drawn, however fast the machine is; drawn ten times a second, a fast one shows few of them.
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Recording]:
    """What the command writes to a terminal of each width."""
    folder = tmp_path_factory.mktemp("terminals")
    words = [json.dumps(as_options(SETTINGS)), str(folder), *map(str, WIDTHS)]
    whole = record("-c", IN_TERMINALS, *words, columns=80, OMP_NUM_THREADS="1")
    assert whole.status == 0, whole.written.decode()
    _, *parts = re.split(rb"<(\d+)>", whole.written)
    return {int(width): Recording(part, 0) for width, part in zip(parts[::2], parts[1::2], strict=True)}


AFTER = ("calibrating", "evaluating", "kNN")
"""How the lines begin that come after those of the training."""


def in_training(recording: Recording, width: int) -> list[list[str]]:
    """The lines of the training, of each screen that shows them."""
    found = []
    for screen in recording.screens(width):
        lines = list(dropwhile(lambda line: not line.startswith("step "), screen.lines))
        if lines:
            found.append(list(takewhile(lambda line: not line.startswith(AFTER), lines)))
    return found


@pytest.mark.long
@pytest.mark.parametrize("width", [width for width in WIDTHS if width >= 60])
def test_every_screen_has_two_lines_that_fit_with_all_that_matters(recorded: dict[int, Recording], width: int) -> None:
    screens = in_training(recorded[width], width)
    assert len(screens) > 2
    for first, *others in screens:
        (second,) = others  # neither line is wrapped, and there is no third
        assert re.fullmatch(rf"step \d+/{STEPS} [━╸╺ ]+ (left|took) [-\d:]+  [-\d.,]+ images/s", first)
        assert len(first) <= width - 2
        assert len(second) <= width - 2
        assert second.startswith(("loss ", "preparing the first batch "))
    measured = [second for _, second in screens if re.match(r"loss \d", second)]
    assert measured
    for second in measured:
        terms = {60: r"\[inv .* \.\.\.\]", 80: r"\[inv .* cov .*\]"}.get(width, r"\[invariance .* budget .*\]")
        assert re.search(rf"^loss [\d.]+ {terms} cost 0\.\d+ .*rank \d+", second), second


@pytest.mark.long
@pytest.mark.parametrize("width", WIDTHS)
def test_the_bar_moves_at_steps_whose_loss_is_not_measured(recorded: dict[int, Recording], width: int) -> None:
    steps = [int(first.removeprefix("step ").partition("/")[0]) for first, *_ in in_training(recorded[width], width)]
    assert steps == sorted(steps)
    assert set(steps) >= set(range(1, STEPS + 1))


@pytest.mark.long
def test_a_narrow_terminal_shows_step_and_time(recorded: dict[int, Recording]) -> None:
    for first, second in in_training(recorded[30], 30):
        assert re.fullmatch(rf"step \d+/{STEPS}( [━╸╺ ]+)? (left|took) [-\d:]+", first)
        assert len(second) <= 28


@pytest.mark.long
@pytest.mark.parametrize("width", WIDTHS)
def test_what_happens_besides_steps_is_named_and_leaves_nothing(recorded: dict[int, Recording], width: int) -> None:
    screens = list(recorded[width].screens(width))
    seen = {line.rpartition(" ")[0] for screen in screens for line in screen.lines}
    assert {"reading the pictures", "building the network", "calibrating the gates", "evaluating"} <= seen
    last = screens[-1].lines
    assert [line for line in last if line.startswith(("reading", "building", *AFTER[:2]))] == []


@pytest.mark.long
def test_the_terminal_is_left_with_its_cursor(recorded: dict[int, Recording]) -> None:
    """Also by a process that is killed, so that it is never hidden."""
    assert all(b"\x1b[?25l" not in recording.written for recording in recorded.values())


FIRST_WORDS = """
import sys
from rich.live import Live
from ssl_dc.cli.launched import progress_from_the_start

start = Live.start
def seen(self, refresh=False):
    start(self, refresh)
    print("shown; torch is imported:", "torch" in sys.modules, file=open(sys.argv[1], "w"))
Live.start = seen
progress_from_the_start()
print("torch is imported:", "torch" in sys.modules)
"""


@pytest.mark.long
def test_the_first_words_are_shown_before_torch_is_imported(tmp_path: Path) -> None:
    recording = record("-c", FIRST_WORDS, str(tmp_path / "seen"), columns=80)
    assert recording.written.startswith(b"starting 0:00")
    assert (tmp_path / "seen").read_text() == "shown; torch is imported: False\n"
    assert b"torch is imported: True" in recording.written


@pytest.mark.long
def test_control_c_is_answered_above_the_lines_and_the_step_is_saved(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    pressed: list[bytes] = []

    def keys(written: bytes) -> bytes:
        if re.search(rb"step (?!1/)\d+/", written) and not pressed:  # whichever step a busy machine draws first
            pressed.append(b"\x03")
            return b"\x03"
        return b""

    settings = as_options({**SETTINGS, "training.epochs": 4000, "training.batch_size": 32, "data.limit": 128})
    recording = record("-m", "ssl_dc", "train", *settings, "--output", str(folder), columns=80, keys=keys)
    assert pressed
    assert recording.status == 130
    *_, screen = recording.screens(80)
    last = "\n".join(screen.lines)
    answer = "ending after this step, then saving; press Ctrl-C again to stop now"
    assert last.count(answer) == 1
    (stopped,) = re.findall(r"ssl-dc: stopped by SIGINT after step (\d+) of 16000, which is saved", last)
    assert saved_steps(folder)[-1] == int(stopped)
    assert last.index(answer) < last.index("step ") < last.index("ssl-dc: stopped")


@pytest.mark.long
def test_progress_is_left_to_a_terminal_that_can_move_its_cursor(tmp_path: Path) -> None:
    words = ["-m", "ssl_dc", "train", *as_options({**SETTINGS, "training.epochs": 1}), "--output", str(tmp_path / "run")]
    recording = record(*words, columns=80, TERM="dumb")
    assert recording.status == 0
    assert b"\x1b" not in recording.written
    assert b"training from step 0 to 4" in recording.written


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_writes_to_the_terminal_itself(tmp_path: Path) -> None:
    program = """
import os, sys
from ssl_dc.progress.progress import Progress
progress = Progress()
progress.on_start(0, 2)
redirected = sys.stderr
if os.fork() == 0:
    sys.stdout.write(f"worker {sys.stderr is sys.__stderr__} ")
    sys.stdout.flush()
    os._exit(0)
os.wait()
progress.on_end()
print("main", redirected is not sys.__stderr__)
"""
    recording = record("-c", program, columns=80)
    assert b"worker True" in recording.written
    assert b"main True" in recording.written
