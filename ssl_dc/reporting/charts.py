"""The kinds of chart that reports have, by altair.

Each point carries a sentence that says what it is, for the pointer and for screen readers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt

from ssl_dc.reporting.palette import series_colours, series_dashes, series_shapes

Spec = dict[str, Any]

HEIGHT = 260
LABEL = 320
"""The longest label of an axis or a legend, in pixels; a longer one is cut off."""


class Point(NamedTuple):
    """A point of a chart.

    Attributes:
        series: What it belongs to; series differ in colour, shape and dashes.
        x: Its place along.
        y: Its place upwards.
        about: What it is, in words.
        image: The key of the thumbnail that is shown with it; empty for none.
        joined: Whether the line of its series goes through it.
        large: Whether it is drawn larger than others.
    """

    series: str
    x: float
    y: float
    about: str
    image: str = ""
    joined: bool = True
    large: bool = False


def lines(points: Sequence[Point], *, along: str, upwards: str | None = None, dots: int = 28) -> Spec:
    """Lines of series; the point nearest to the pointer answers.

    Args:
        points: The points of all series.
        along: What ``x`` is.
        upwards: What ``y`` is, where the chart's title does not say it.
        dots: Size of the points, in square pixels.
    """
    names = _series(points)
    pointed = _pointed()
    base = alt.Chart(_values(points)).encode(
        x=alt.X("x:Q", title=along, axis=_axis(point.x for point in points), scale=alt.Scale(zero=False, nice=True)),
        y=alt.Y("y:Q", title=upwards, axis=_axis(point.y for point in points), scale=alt.Scale(zero=False, nice=True)),
        color=_colour(names),
    )
    marks = base.mark_point(filled=True, opacity=1, tooltip=alt.TooltipContent("data")).encode(
        shape=_shape(names),
        size=alt.when(pointed).then(alt.value(150)).when("datum.large").then(alt.value(130)).otherwise(alt.value(dots)),
        description=alt.Description("about:N"),
    )
    line = base.transform_filter("datum.joined").mark_line(aria=False, strokeWidth=2)
    return _finished(alt.LayerChart(layer=[line.encode(strokeDash=_dash(names)), marks.add_params(pointed)]))


def scatter(points: Sequence[Point], *, series: Sequence[str], along: str, upwards: str) -> Spec:
    """Points in the plane, whose places on the axes mean nothing by themselves.

    Args:
        points: The points.
        series: All series, in the order of the legend; there is no legend of a single one.
        along: What ``x`` is.
        upwards: What ``y`` is.
    """
    pointed = _pointed()
    bare = alt.Axis(labels=False, ticks=False, grid=False)
    chart = (
        alt.Chart(_values(points))
        .mark_point(filled=True, opacity=0.85, tooltip=alt.TooltipContent("data"))
        .encode(
            x=alt.X("x:Q", title=along, axis=bare, scale=alt.Scale(zero=False, nice=False, padding=8)),
            y=alt.Y("y:Q", title=upwards, axis=bare, scale=alt.Scale(zero=False, nice=False, padding=8)),
            color=_colour(series),
            shape=_shape(series),
            size=alt.when(pointed).then(alt.value(220)).otherwise(alt.value(36)),
            description=alt.Description("about:N"),
        )
        .add_params(pointed)
    )
    return _finished(chart, height=360)


def bars(points: Iterable[tuple[str, str, float, str]], *, series: Sequence[str], along: str) -> Spec:
    """Bars that lie, a group for each row: row, series, length, and what it is in words. Rows keep their order."""
    values: list[dict[str, Any]] = [{"row": row, "series": name, "x": x, "about": about} for row, name, x, about in points]
    rows = list(dict.fromkeys(value["row"] for value in values))
    chart = (
        alt.Chart(alt.InlineData(values=values))
        .mark_bar(tooltip=alt.TooltipContent("data"))
        .encode(
            x=alt.X("x:Q", title=along, axis=_axis(value["x"] for value in values)),
            y=alt.Y("row:N", title=None, sort=rows, axis=alt.Axis(labelLimit=LABEL, grid=False)),
            yOffset=alt.YOffset("series:N", sort=list(series)),
            color=_colour(series),
            description=alt.Description("about:N"),
        )
    )
    return _finished(chart, height=max(HEIGHT, 20 * len(rows)))


def heat_map(cells: Sequence[tuple[str, str, float, str]], *, along: str, upwards: str, of: str) -> Spec:
    """A map of shares in [0, 1]: column, row, share, and what it is in words. Columns and rows keep their order."""
    values = [{"x": x, "y": y, "share": share, "about": about} for x, y, share, about in cells]
    greatest = max((share for _, _, share, _ in cells), default=0.0) or 1.0
    columns, rows = (list(dict.fromkeys(str(value[axis]) for value in values)) for axis in ("x", "y"))
    chart = (
        alt.Chart(alt.InlineData(values=values))
        .mark_rect(tooltip=alt.TooltipContent("data"))
        .encode(
            x=alt.X("x:N", title=along, sort=columns, axis=alt.Axis(labelAngle=-40, labelLimit=LABEL)),
            y=alt.Y("y:N", title=upwards, sort=rows, axis=alt.Axis(labelLimit=LABEL)),
            color=alt.Color(
                "share:Q",
                scale=alt.Scale(scheme="cividis", domain=[0, greatest]),
                legend=alt.Legend(
                    title=of, orient="bottom", direction="horizontal", gradientLength=180, titleLimit=LABEL, format=".0%"
                ),
            ),
            description=alt.Description("about:N"),
        )
    )
    return _finished(chart, height=max(160, 20 * len(rows)))


def _values(points: Sequence[Point]) -> alt.InlineData:
    return alt.InlineData(values=[point._asdict() for point in points])


def _series(points: Iterable[Point]) -> list[str]:
    return list(dict.fromkeys(point.series for point in points))


def _pointed() -> alt.Parameter:
    """The point nearest to the pointer."""
    return alt.selection_point(name="pointed", nearest=True, on="pointerover", clear="pointerout", empty=False)


def _axis(values: Iterable[float]) -> alt.Axis:
    """An axis; large numbers stand on it as 2M, small ones in full."""
    large = max(map(abs, values), default=0) >= 10_000
    return alt.Axis(tickCount=5, labelOverlap=True, format="~s" if large else alt.Undefined)


def _legend(names: Sequence[str]) -> alt.Legend | None:
    """A legend below the chart; none for a single series."""
    if len(names) < 2:
        return None
    longest = max(map(len, names))
    columns = 5 if longest <= 8 else 2 if longest <= 24 else 1
    return alt.Legend(title=None, orient="bottom", columns=columns, labelLimit=LABEL, symbolOpacity=1, symbolSize=80)


def _colour(names: Sequence[str]) -> alt.Color:
    scale = alt.Scale(domain=list(names), range=series_colours(len(names)))
    return alt.Color("series:N", scale=scale, legend=_legend(names))


def _shape(names: Sequence[str]) -> alt.Shape:
    scale = alt.Scale(domain=list(names), range=series_shapes(len(names)))
    return alt.Shape("series:N", scale=scale, legend=_legend(names))


def _dash(names: Sequence[str]) -> alt.StrokeDash:
    scale = alt.Scale(domain=list(names), range=series_dashes(len(names)))
    return alt.StrokeDash("series:N", scale=scale, legend=_legend(names))


def _finished(chart: alt.Chart | alt.LayerChart, height: int = HEIGHT) -> Spec:
    """The chart as a value, as wide as its place on the page."""
    sized = chart.properties(width="container", height=height, background="transparent")
    spec: Mapping[str, Any] = sized.configure_view(stroke=None).configure_axis(labelFontSize=11, titleFontSize=12).to_dict()
    return dict(spec)
