"""The colours of series: people who are colour-blind can tell them apart, and all can see them on their background."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from ssl_dc.reporting.palette import BACKGROUND, PLAIN, SERIES, series_colours, series_shapes

Vector = npt.NDArray[np.float64]

VISION = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""How linear RGB is seen: Machado, Oliveira and Fernandes 2009, at full severity."""


def linear(colour: str) -> Vector:
    srgb = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """The contrast of WCAG 2."""
    dark, bright = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (bright + 0.05) / (dark + 0.05)


def lab(rgb: Vector) -> Vector:
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(rgb, 0, 1)
    scaled = xyz / [0.9505, 1.0, 1.089]
    x, y, z = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("scheme", SERIES)
def test_any_two_series_differ(scheme: str, vision: str) -> None:
    seen = [lab(np.asarray(VISION[vision]) @ linear(colour)) for colour in SERIES[scheme]]
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)) >= 35


@pytest.mark.parametrize("scheme", SERIES)
def test_all_colours_stand_out_from_where_they_are_drawn(scheme: str) -> None:
    plain = PLAIN[scheme]
    for ground in (BACKGROUND[scheme], plain["panel"]):
        assert all(contrast(colour, ground) >= 3 for colour in SERIES[scheme])
        assert all(contrast(plain[name], ground) >= 4.5 for name in ("ink", "soft", "link"))


def test_the_first_24_series_differ_in_colour_or_shape() -> None:
    assert len(set(zip(series_colours(24), series_shapes(24), strict=True))) == 24
