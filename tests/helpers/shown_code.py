"""The commands and programs that pages show, and what pages say about those that no test runs there.

A comment on a line of its own before a block says it; readers of the rendered page do not see it:

- ``<!-- not run: REASON -->`` for the whole block;
- ``<!-- not run "TEXT": REASON -->`` for the lines of the block that contain the text;
- ``<!-- run by FILE -->`` and ``<!-- run by FILE "TEXT" -->``: another test, or the CI script, runs it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    [*REPOSITORY.glob("docs/**/*.md"), *(REPOSITORY / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY"))]
)
"""Not the changelog, which may name what is no longer there."""

BLOCK = re.compile(r"((?:^<!-- [^\n]* -->\n)*)^```(\w*)[^\n`]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARK = re.compile(r'<!-- (?:not run|run by (?P<file>\S+?))(?: "(?P<text>[^"]+)")?(?:: (?P<reason>.+))? -->')


@dataclass(frozen=True)
class Mark:
    """Why no test of this kind runs a block, or some of its lines.

    Attributes:
        file: The test or script that runs it instead; None if nothing does.
        text: The lines that are meant contain this; None for the whole block.
        reason: Why nothing runs it; None if something does.
    """

    file: str | None
    text: str | None
    reason: str | None


@dataclass(frozen=True)
class Block:
    """A block of code on a page.

    Attributes:
        page: The page.
        language: What stands behind the fence, such as ``sh``.
        text: The code.
        marks: What stands before it.
    """

    page: Path
    language: str
    text: str
    marks: tuple[Mark, ...]

    def lines(self) -> list[str]:
        """The commands of a block in ``sh``, without comments."""
        lines = (re.sub(r"(^|\s+)#.*", "", line) for line in self.text.splitlines())
        return [line for line in lines if line.strip()]

    def is_run(self, line: str = "") -> bool:
        """Whether a line of the block, or the block itself, is to be run."""
        return not any(mark.text is None or mark.text in line for mark in self.marks)


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(page, language, text, tuple(map(mark_of, comments.splitlines()))) for comments, language, text in found]


def mark_of(comment: str) -> Mark:
    """What a comment before a block says."""
    match = MARK.fullmatch(comment)
    assert match is not None, f"not understood: {comment}"
    assert (match["file"] is None) == (match["reason"] is not None), f"without a reason: {comment}"
    return Mark(match["file"], match["text"], match["reason"])
