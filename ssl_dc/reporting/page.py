"""A page that shows runs: what stands on it, and how it becomes one file of HTML that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from ssl_dc.atomic_files import write_text
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.report import ReportTable, as_html
from ssl_dc.reporting.palette import style_variables

INSTALL = "reports need altair: pip install 'ssl-dc[report]'"


@dataclass(frozen=True)
class Picture:
    """An image in the page.

    Attributes:
        source: The image itself, as a ``data:`` address.
        said: What it is, for those who do not see it.
        caption: Stands below it.
    """

    source: str
    said: str
    caption: str


@dataclass(frozen=True)
class Text:
    """Sentences."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Details:
    """A long text that is shown when it is asked for."""

    title: str
    text: str
    kind: str = "details"


@dataclass(frozen=True)
class Tables:
    """Tables that are always shown."""

    tables: Sequence[ReportTable]
    kind: str = "tables"

    @property
    def html(self) -> str:
        """The tables in HTML."""
        return as_html(self.tables)


@dataclass(frozen=True)
class Chart:
    """A chart, with the same in words and in numbers.

    Attributes:
        title: What it shows.
        summary: What is to be seen in it, in words.
        spec: The chart, in Vega-Lite.
        table: Its numbers.
    """

    title: str
    summary: str
    spec: Mapping[str, Any]
    table: ReportTable

    @property
    def html(self) -> str:
        """The table in HTML."""
        return as_html([self.table])

    @property
    def embedded(self) -> str:
        """The chart as it stands in the page."""
        return _json(self.spec)


@dataclass(frozen=True)
class Charts:
    """Charts, side by side where there is room."""

    charts: Sequence[Chart]
    wide: bool = False
    kind: str = "charts"


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures, each row under a heading."""

    rows: Sequence[tuple[str, Sequence[Picture]]]
    kind: str = "gallery"


Block = Text | Details | Tables | Charts | Gallery


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading.

    Attributes:
        title: The heading.
        blocks: What stands under it, from top to bottom.
        level: 2 for a part of the page, 3 for a part of such a part.
    """

    title: str
    blocks: Sequence[Block]
    level: int = 2


@dataclass(frozen=True)
class ReportPage:
    """A page that shows runs. It is one file, which a browser shows without a network.

    Attributes:
        title: Of the page.
        made: When it was made, and by what, in words.
        sections: Its parts.
        thumbnails: The images that its charts show where one points, as ``data:`` addresses.
        refresh_seconds: After so many seconds an opened page loads itself again; None for a page that stays as it is.
        without_data: The runs of which it leaves parts out because their data cannot be opened, by their labels.
    """

    title: str
    made: str
    sections: Sequence[Section]
    thumbnails: Mapping[str, str] = field(default_factory=dict)
    refresh_seconds: float | None = None
    without_data: Sequence[str] = ()

    @property
    def charts(self) -> list[Chart]:
        """All charts, in order."""
        blocks = [block for section in self.sections for block in section.blocks]
        return [chart for block in blocks if isinstance(block, Charts) for chart in block.charts]

    def as_html(self) -> str:
        """The page.

        Raises:
            ConfigError: If altair is not installed.
        """
        check_charts()
        scripts = [_charting_script(), _file("page.js")]
        html: str = _template().render(
            page=self,
            style=style_variables() + _file("page.css"),
            scripts=scripts,
            hashes=" ".join(_hash(script) for script in scripts),
            data=_json({"thumbnails": self.thumbnails, "refreshSeconds": self.refresh_seconds}),
        )
        return html

    def save(self, path: str | Path) -> Path:
        """Write the page to a file, whole or not at all.

        Raises:
            ConfigError: If altair is not installed.
            RunError: If it cannot be written.
        """
        write_text(Path(path), self.as_html())
        return Path(path)

    def _repr_html_(self) -> str:
        """The page as a notebook shows it: in a frame, so that neither disturbs the other."""
        style = "width: 100%; height: 48em; border: 1px solid #8888"
        return f'<iframe title="{escape(self.title)}" style="{style}" srcdoc="{escape(self.as_html())}"></iframe>'


def check_charts() -> None:
    """Make sure that charts can be made.

    Raises:
        ConfigError: If altair, or the charting library that it hands to the browser, is not installed.
    """
    try:
        import altair  # noqa: F401  # looked for, before anything is computed
        import vl_convert  # noqa: F401
    except ImportError:
        raise ConfigError(INSTALL) from None


@cache
def _charting_script() -> str:
    """Vega, Vega-Lite and vega-embed, which draw the charts in the browser; vl-convert carries them."""
    import vl_convert

    script: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its argument is optional
    return script.replace("</script", "<\\/script")


@cache
def _template() -> Any:
    from jinja2 import Environment

    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_file("page.html.jinja"))


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """By which the page says that this script, and no other, may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")
