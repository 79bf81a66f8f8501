"""The one printer of results: tables for people, at any width."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ssl_dc.evaluation.report import NUMBER, Report, ReportTable
from ssl_dc.printable import printable

PIPED = 120
"""Columns of an output that is no terminal. A table of long words there is wider, but never one block a row."""

NARROWEST_TEXT = 24
"""Columns that a cell of words keeps when its lines are broken; numbers and single words are never broken."""

GAP = 2
"""Columns between two columns of a table."""


def print_report(report: Report, *, to_stderr: bool = False) -> None:
    """Print a report's tables to standard output, or to standard error."""
    for table in report.tables():
        print_table(table, to_stderr=to_stderr)


def print_table(table: ReportTable, *, to_stderr: bool = False) -> None:
    """Print a table to standard output, or to standard error: in columns if they fit, else one block a row.

    Columns fit if no number, and no single word, has to be broken. The width is the terminal's, or that of the variable
    COLUMNS if it is set.
    """
    console = Console(highlight=False, stderr=to_stderr)
    piped = not console.is_terminal and not os.environ.get("COLUMNS", "").isdecimal()
    if piped:
        console.width = max(PIPED, sum(_least_widths(table)) + _gaps(table))
    console.print(Text(printable(table.title), style="italic"))
    widths = _widths(table, console.width)
    if widths is None:
        _print_blocks(console, table)
    else:
        console.print(_in_columns(table, widths))
    if table.note:
        console.print(Text(printable(table.note)), soft_wrap=piped)


def print_columns(title: str, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Print rows of plain values under their column names."""
    print_table(ReportTable(title, columns, [[str(row[column]) for column in columns] for row in rows]))


def _widths(table: ReportTable, available: int) -> list[int] | None:
    """The width of each column's text, or None if the columns do not fit."""
    wanted = [max(map(_longest_line, (heading, *cells))) for heading, cells in _columns(table)]
    widths = _least_widths(table)
    free = available - _gaps(table) - sum(widths)
    if free < 0:
        return None
    while free > 0 and widths != wanted:
        neediest = max(range(len(widths)), key=lambda number: wanted[number] - widths[number])
        widths[neediest] += 1
        free -= 1
    return widths


def _least_widths(table: ReportTable) -> list[int]:
    """The least width that each column's text needs."""
    return [max(_longest_word(heading), *map(_narrowest, cells), 0) for heading, cells in _columns(table)]


def _gaps(table: ReportTable) -> int:
    """The width of all gaps between columns."""
    return GAP * (len(table.columns) - 1)


def _columns(table: ReportTable) -> list[tuple[str, list[str]]]:
    """The heading and the cells of each column, as they are shown."""
    rows = table.all_rows
    return [(printable(heading), [printable(row[n]) for row in rows]) for n, heading in enumerate(table.columns)]


def _narrowest(cell: str) -> int:
    """The least width of a cell: that of its longest word, or more, so that words do not stand one below another."""
    if NUMBER.fullmatch(cell):
        return _longest_line(cell)
    return max(_longest_word(cell), min(_longest_line(cell), NARROWEST_TEXT))


def _longest_line(text: str) -> int:
    return max((cell_len(line) for line in text.splitlines()), default=0)


def _longest_word(text: str) -> int:
    return max((cell_len(word) for word in text.split()), default=0)


def _in_columns(table: ReportTable, widths: Sequence[int]) -> Table:
    """The table, its numbers set to the right."""
    # A divider of the box is one space wide; padding to the right of each cell makes the rest of the gap.
    shown = Table(box=SIMPLE, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for number, (heading, width) in enumerate(zip(table.columns, widths, strict=True)):
        numbers = table.has_numbers(number)
        shown.add_column(_cell(heading), justify="right" if numbers else "left", width=width)
    for row in table.rows:
        shown.add_row(*map(_cell, row))
    if table.total is not None:
        shown.add_section()
        shown.add_row(*map(_cell, table.total))
    return shown


def _print_blocks(console: Console, table: ReportTable) -> None:
    """One block a row: its first cell, and below it each other cell beside its heading."""
    first, *others = map(printable, table.columns)
    beside = max(map(cell_len, others), default=0)
    for row in table.all_rows:
        head, *cells = map(printable, row)
        console.print(Text(f"{first}: {head}", style="bold"))
        block = Table.grid(padding=(0, GAP, 0, 0))
        block.add_column(width=beside + GAP)
        block.add_column(overflow="fold")
        for heading, cell in zip(others, cells, strict=True):
            if cell:
                block.add_row(Text(f"{' ' * GAP}{heading}"), Text(cell))
        console.print(block)


def _cell(text: str) -> str:
    """Text as it is: neither rich's markup nor the terminal's escape sequences mean anything in it."""
    return escape(printable(text))
