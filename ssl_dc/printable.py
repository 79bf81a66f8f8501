"""Text that may come from a stranger's file, made fit to be shown: it cannot steer the terminal that shows it."""

from __future__ import annotations

import unicodedata

LONGEST_NAME = 120
"""Characters of a name that a message shows."""


def printable(text: str) -> str:
    r"""The text with what is not to be seen written out: ``\x1b`` for the escape character; newlines and tabs stay.

    Control characters (escape sequences begin with one), characters that turn the direction of writing, and the
    surrogates that stand for bytes of a file name that are not UTF-8, which no stream could print.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def name_of(text: str) -> str:
    """A name from a file on one line of bounded length, for messages."""
    whole = printable(text).replace("\n", "\\n").replace("\t", "\\t")
    return whole if len(whole) <= LONGEST_NAME else f"{whole[:LONGEST_NAME]}..."


def _shown(character: str) -> str:
    if character in "\n\t" or not unicodedata.category(character).startswith("C"):
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
