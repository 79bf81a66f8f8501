"""Every call of a benchmark that a page shows is one that the benchmark takes."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from helpers.shown_code import PAGES, REPOSITORY


class Taken(Exception):  # noqa: N818  # nothing went wrong
    """The arguments were understood; the benchmark goes no further."""


def calls() -> Iterator[tuple[str, str]]:
    """The page and the text of each call, in blocks and in sentences."""
    for page in PAGES:
        text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
        text = re.sub(r"`[^`\n]*\n?[^`\n]*`", lambda span: span[0].replace("\n", " "), text)
        for call in re.findall(r"python (benchmarks/\w+\.py[^`\n]*)", text):
            yield str(page.relative_to(REPOSITORY)), call.partition("  #")[0].strip()


@pytest.fixture
def _only_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks end once they have parsed their arguments."""
    parse = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser, *given: Any) -> argparse.Namespace:
        parse(self, *given)
        raise Taken

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "benchmarks"), *sys.path])


def take(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words: Sequence[str] = shlex.split(call)
    monkeypatch.setattr(sys, "argv", list(words))
    runpy.run_path(str(REPOSITORY / words[0]), run_name="__main__")


@pytest.mark.usefixtures("_only_arguments")
@pytest.mark.parametrize(("page", "call"), sorted(set(calls())))
def test_a_benchmark_takes_the_call_that_a_page_shows(page: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Taken):
        take(call, monkeypatch)


@pytest.mark.usefixtures("_only_arguments")
@pytest.mark.parametrize("more", ["--at 0.1 0.3 plain:0", "--nothing 3"])
def test_a_call_that_a_benchmark_refuses_is_found(more: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        take(f"benchmarks/budgets.py --output OUT {more}", monkeypatch)


def test_calls_are_found() -> None:
    assert len(list(calls())) > 20
