from __future__ import annotations

import subprocess
import sys

import pytest

from ssl_dc.data import ssl_dc_data
from ssl_dc.data.base import DataSet
from ssl_dc.parts import Part, import_string
from ssl_dc.views import ssl_dc_views
from ssl_dc.views.base import Views

PARTS = [(part, DataSet) for part in ssl_dc_data()] + [(part, Views) for part in ssl_dc_views()]


@pytest.mark.parametrize(("part", "base"), PARTS, ids=lambda value: getattr(value, "name", None))
def test_part_names_a_class_of_its_kind_and_options_of_its_name(part: Part, base: type) -> None:
    assert issubclass(import_string(part.target), base)
    assert import_string(part.options)().name == part.name


def test_listing_data_sets_and_views_with_their_options_does_not_import_torch() -> None:
    code = (
        "import sys, ssl_dc.data, ssl_dc.views, ssl_dc.data.options, ssl_dc.views.options;"
        "ssl_dc.data.ssl_dc_data(); ssl_dc.views.ssl_dc_views();"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
