"""Quantities as a person reads them: times, counts and sizes of memory."""

from __future__ import annotations


def in_words(seconds: float | None) -> str:
    """A time in words, to the minute, or in seconds below a minute."""
    if seconds is None:
        return "unknown"
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    days, hours = divmod(minutes // 60, 24)
    parts = [(days, "d"), (hours, "h"), (minutes % 60 if not days else 0, "min")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def counted(count: int, what: str) -> str:
    """A number of things, such as ``1 step`` or ``1,200 steps``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def mebibytes(size: float) -> str:
    """A number of bytes in MiB."""
    return f"{size / 2**20:,.0f} MiB"


def gibibytes(size: float) -> str:
    """A number of bytes in GiB."""
    return f"{size / 2**30:.1f} GiB"
