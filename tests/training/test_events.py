"""What watchers are told, in which order, and what becomes of one that fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ssl_dc
from helpers.settings import TWO_BY_TWO
from helpers.training import Told
from ssl_dc.plugins.discovery import Plugin
from ssl_dc.plugins.registry import registry
from ssl_dc.trackers.base import Guarded, StepMetrics, Watcher

SETTINGS = {**TWO_BY_TWO, "training.log_every": 2, "training.checkpoint_every": 3}

EVENTS = [name for name in vars(Watcher) if name.startswith("on_")]


def test_a_watcher_is_told_of_everything_in_its_order(tmp_path: Path) -> None:
    told = Told()
    ssl_dc.train(SETTINGS, output=tmp_path / "run", watchers=[told])
    epoch_1 = [("step", 1), ("metrics", 2), ("step", 2), ("epoch", 1), ("checkpoint", 2)]
    epoch_2 = [("step", 3), ("checkpoint", 3), ("metrics", 4), ("step", 4), ("epoch", 2), ("checkpoint", 4)]
    assert told.events == [("start", 0), *epoch_1, *epoch_2, ("end", None)]


@pytest.mark.parametrize("event", EVENTS)
def test_a_guarded_watcher_that_fails_is_told_of_once_and_left_out(event: str) -> None:
    calls = []

    def fails(*about: object) -> None:
        calls.append(about)
        raise KeyError("token")

    watcher = Watcher()
    setattr(watcher, event, fails)
    said: list[str] = []
    guarded = Guarded(watcher, "tracker 'acme'", said.append)
    metrics = StepMetrics(1, 2, 1, {}, 0.0)
    arguments: dict[str, tuple[Any, ...]] = {
        "on_start": (0, 2),
        "on_step": (metrics,),
        "on_message": ("text",),
        "on_phase_end": (),
        "on_end": (),
        "on_close": (),
        "on_picture": ("gates", b""),
    }
    for _ in range(2):
        getattr(guarded, event)(*arguments.get(event, (1,)))
    assert len(calls) == 1
    assert said == [f"tracker 'acme' is left out from here on: {event} raised KeyError: 'token'"]


WATCHER = """
from ssl_dc import Part, Watcher, hookimpl


@hookimpl
def ssl_dc_watchers():
    return [Part(name="{name}", target=__name__ + ":Epochs", summary="Counts epochs.")]


class Epochs(Watcher):
    def __init__(self, folder):
        self.file = folder / "epochs.txt"
        {begin}

    def on_epoch_end(self, epoch):
        {at_epoch}
        self.file.open("a").write(f"{{epoch}} ")
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("begin", "at_epoch", "written", "message"),
    [
        ("", "", "1 2 ", None),
        ("", "raise OSError('disk')", None, "watcher 'epochs' is left out from here on: on_epoch_end raised OSError: disk"),
        ("raise OSError('disk')", "", None, "watcher 'epochs' is left out: OSError: disk"),
    ],
    ids=["works", "fails while watching", "cannot be built"],
)
def test_the_watcher_of_a_plugin_watches_every_training(
    install: Callable[..., list[Plugin]],
    tmp_path: Path,
    begin: str,
    at_epoch: str,
    written: str | None,
    message: str | None,
) -> None:
    install({"acme": {"a": WATCHER.format(name="epochs", begin=begin, at_epoch=at_epoch)}})
    registry.cache_clear()
    told = Told()
    try:
        run = ssl_dc.train(SETTINGS, output=tmp_path / "run", watchers=[told])
    finally:
        registry.cache_clear()
    file = run.folder / "epochs.txt"
    assert (file.read_text() if file.exists() else None) == written
    assert told.messages == ([message] if message else [])
