"""Names from users' files as a picture can show them: in any script, and as plain text whatever they hold."""

from __future__ import annotations

from collections.abc import Iterable

from ssl_dc.printable import name_of

LONGEST = 30
"""Characters of a name that a picture shows."""

NO_FONT = "Last Resort"
"""A font of this name has a box for every character there is; it shows which script is missing, not the character."""


class Lettering:
    r"""How some names are written in a picture.

    Characters that the usual font lacks are taken from other installed fonts. A character that no font has is written out,
    as ``\u4e2d``.

    Args:
        names: The names, or other texts.

    Attributes:
        families: Font families, for matplotlib's ``fontfamily``: each character is drawn by the first that has it.
    """

    def __init__(self, names: Iterable[str]) -> None:
        from matplotlib import rcParams
        from matplotlib.font_manager import FontProperties, fontManager

        self.families = list(rcParams["font.family"])
        usual = fontManager.findfont(FontProperties(family=self.families))
        self._missing = _lacking({c for name in names for c in name_of(name) if not c.isspace()}, usual)
        for entry in fontManager.ttflist:
            if not self._missing:
                break
            ordinary = (entry.style, entry.weight, entry.stretch) == ("normal", 400, "normal")
            if not ordinary or entry.name in self.families or entry.name.startswith(NO_FONT):
                continue
            left = _lacking(self._missing, entry.fname)
            if left != self._missing:
                self.families = [*self.families, entry.name]
                self._missing = left

    def text(self, name: str) -> str:
        """A name on one line, as text for matplotlib: of bounded length, without control characters or formulas."""
        shown = name_of(name)
        shown = shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"
        written = "".join(c.encode("unicode_escape").decode("ascii") if c in self._missing else c for c in shown)
        return written.replace("$", r"\$")  # what stands between two of them would be read as a formula


def _lacking(characters: set[str], font_file: str) -> set[str]:
    """The characters that a font does not have."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(font_file)
    except (OSError, RuntimeError):  # a font that cannot be read has none
        return characters
    return {c for c in characters if not font.get_char_index(ord(c))}
