"""The colours of the page, in light and in dark, which people who are colour-blind can tell apart.

Charts name colours by CSS variables, so that the page changes between light and dark without drawing them again. Each pair
of colours of series differs by 35 or more in CIELAB to people with full colour vision, protanopia, deuteranopia and
tritanopia (as Machado, Oliveira and Fernandes simulate them, 2009), and each has a contrast of 3:1 or more to the
background. A test holds both. Colour never stands alone: series differ in the shape of points and the dashes of lines too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

BACKGROUND = {"light": "#ffffff", "dark": "#14171c"}

SERIES: Mapping[str, Sequence[str]] = {
    "light": ("#4c92d9", "#ff3333", "#141466", "#b25970", "#9933ff", "#400d0d"),
    "dark": ("#5081b2", "#ff4000", "#73ffdc", "#ffff00", "#9933ff", "#b25050"),
}
"""Colours of series."""

SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
DASHES: Sequence[Sequence[int]] = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (12, 4), (4, 1))

PLAIN: Mapping[str, Mapping[str, str]] = {
    "light": {"ink": "#1b1f24", "soft": "#57606a", "line": "#d0d7de", "panel": "#f6f8fa", "link": "#0b57a4"},
    "dark": {"ink": "#e6e9ee", "soft": "#a3adb8", "line": "#3a424d", "panel": "#1d2229", "link": "#8ec5ff"},
}
"""Colours of text, softer text, lines, raised surfaces and links."""


def series_colours(count: int) -> list[str]:
    """A colour for each of several series; they repeat after six, and :func:`series_shapes` tells the equal ones apart."""
    return [f"var(--series-{number % len(SERIES['light'])})" for number in range(count)]


def series_shapes(count: int) -> list[str]:
    """A shape for each of several series. No two of the first 24 have the same colour and shape."""
    return [SHAPES[number % len(SHAPES)] for number in range(count)]


def series_dashes(count: int) -> list[list[int]]:
    """A pattern of dashes for each of several series."""
    return [list(DASHES[number % len(DASHES)]) for number in range(count)]


def style_variables() -> str:
    """The colours as CSS variables: light, and dark where the reader's system asks for it."""
    light, dark = (_variables(scheme) for scheme in ("light", "dark"))
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
        f"@media print {{ :root {{ color-scheme: light; {light} }} }}\n"
    )


def _variables(scheme: str) -> str:
    colours = {"ground": BACKGROUND[scheme], **PLAIN[scheme]}
    colours |= {f"series-{number}": colour for number, colour in enumerate(SERIES[scheme])}
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
