"""The two lines of a progress display, as text for any width, and the one line of a log file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from ssl_dc.printable import name_of
from ssl_dc.progress.figures import Figures

SHORTEST_BAR = 3
"""Columns below which a bar says nothing, and is left out."""
SHORT_NAME = 3
"""Letters of a loss term's shortened name, more where two would be the same."""
NOT_MEASURED = "loss not measured yet"


class FirstLine(NamedTuple):
    """The first line: text, a bar of ``bar`` columns between spaces, text; without the bar if it is 0."""

    left: str
    bar: int
    right: str


def first_line(figures: Figures, width: int) -> FirstLine:
    """Step, bar, time and speed in at most ``width`` columns. Where not all fits, speed goes first, then bar, then time."""
    step = f"step {figures.step}/{figures.total_steps}"
    clock, speed = _time(figures), _speed(figures)
    for right in (f"{clock}  {speed}".rstrip(), clock):
        bar = width - len(step) - len(right) - 2
        if bar >= SHORTEST_BAR:
            return FirstLine(step, bar, right)
    if len(step) + 2 + len(clock) <= width:
        return FirstLine(step, 0, clock)
    return FirstLine(step[:width], 0, "")


def second_line(figures: Figures, width: int) -> str:
    """What happens besides steps, or else what was measured last, in at most ``width`` columns."""
    if figures.phase:
        return shortened(phase_line(figures), width)
    if figures.metrics is None:
        return shortened(NOT_MEASURED, width)
    texts = list(measured(figures.metrics.values))
    return next((text for text in texts if cell_len(text) <= width), shortened(texts[-1], width))


def phase_line(figures: Figures) -> str:
    """What happens besides steps, and for how long."""
    return f"{name_of(figures.phase)} {duration(figures.phase_seconds)}"


def log_line(figures: Figures) -> str:
    """All of it in one line of any length."""
    step = f"step {figures.step}/{figures.total_steps}"
    if figures.metrics is None:
        return f"{step}  {_time(figures)}  {_speed(figures)}".rstrip()
    of_step = "" if figures.metrics.step == figures.step else f" (of step {figures.metrics.step})"
    measures = f"{next(measured(figures.metrics.values))}{of_step}"
    return f"{step} epoch {figures.metrics.epoch}  {measures}  {_time(figures)}  {_speed(figures)}".rstrip()


def measured(values: Mapping[str, float]) -> Iterator[str]:
    """The metrics of a step, from the longest text to the shortest. Each leaves out what matters least in the last."""
    loss, lr = f"loss {values['loss']:.4g}", f" lr {values['lr']:.2e}" if "lr" in values else ""
    cost = f" cost {values['cost_ratio']:.3f}" if "cost_ratio" in values else ""
    paid = f" (evaluated {values['evaluated_cost_ratio']:.3f})" if "evaluated_cost_ratio" in values else ""
    rank = f" rank {values['effective_rank']:.0f}" if "effective_rank" in values else ""
    terms = {name_of(key.removeprefix("terms/")): value for key, value in values.items() if key.startswith("terms/")}
    names = dict(zip(terms, _short_names(list(terms)), strict=True))
    if terms:
        whole = " ".join(f"{name} {value:.3g}" for name, value in terms.items())
        yield f"{loss} [{whole}]{cost}{paid}{rank}{lr}"
        yield f"{loss} [{whole}]{cost}{rank}{lr}"
        yield f"{loss} [{whole}]{cost}{rank}"
        by_size = sorted(terms, key=lambda name: -abs(terms[name]))
        for count in range(len(terms), 0, -1):
            shown = " ".join(f"{names[name]} {terms[name]:.3g}" for name in terms if name in by_size[:count])
            yield f"{loss} [{shown}{' ...' if count < len(terms) else ''}]{cost}{rank}"
    else:
        yield f"{loss}{cost}{paid}{rank}{lr}"
    yield f"{loss}{cost}{rank}"
    yield f"{loss}{cost}"
    yield loss


def shortened(text: str, width: int) -> str:
    """The text in at most ``width`` columns, with dots where something is missing."""
    if cell_len(text) <= width:
        return text
    return f"{set_cell_size(text, width - 3)}..." if width > 3 else "." * max(0, width)


def duration(seconds: float) -> str:
    """A time for people: ``0:07``, ``12:34``, ``3:12:34``, ``2 d 04 h``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        days = hours // 24
        return f"{days} d {hours % 24:02} h" if days < 100 else f"{days} d"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _time(figures: Figures) -> str:
    if not figures.running:
        return f"took {duration(figures.seconds)}"
    return "left -:--" if figures.seconds_left is None else f"left {duration(figures.seconds_left)}"


def _speed(figures: Figures) -> str:
    speed = figures.images_per_second
    if speed is None:
        return "" if figures.batch_size is None else "- images/s"
    number = f"{speed:.3g}" if speed < 100 else f"{speed:,.0f}" if speed < 99_999.5 else f"{speed / 1000:,.0f}k"
    return f"{number} images/s"


def _short_names(names: list[str]) -> list[str]:
    """The first letters of each name, as many as tell it from the others."""
    short = []
    for name in names:
        length = SHORT_NAME
        while length < len(name) and any(other != name and other.startswith(name[:length]) for other in names):
            length += 1
        short.append(name[:length])
    return short
