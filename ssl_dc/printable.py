"""Makes text from a stranger's file safe to show: it cannot control the terminal."""

from __future__ import annotations

import unicodedata

LONGEST_NAME = 120
"""The longest name that a message shows in full, in characters."""


def printable(text: str) -> str:
    r"""The text with unprintable characters written out, such as ``\x1b`` for the escape character.

    Unprintable are control characters (escape sequences begin with one), characters that change the direction of writing,
    surrogates, which stand for bytes of a file name that are not UTF-8, and Unicode's separators of lines and paragraphs.
    Newlines and tabs stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def name_of(text: str) -> str:
    """A name from a file, on one line and of limited length, for messages."""
    whole = printable(text).replace("\n", "\\n").replace("\t", "\\t")
    return whole if len(whole) <= LONGEST_NAME else f"{whole[:LONGEST_NAME]}..."


def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if character in "\n\t" or not (category.startswith("C") or category in ("Zl", "Zp")):
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
