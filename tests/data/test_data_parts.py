from __future__ import annotations

import subprocess
import sys


def test_listing_data_sets_and_views_with_their_options_does_not_import_torch() -> None:
    code = (
        "import sys, ssl_dc.data, ssl_dc.views, ssl_dc.data.options, ssl_dc.views.options;"
        "ssl_dc.data.ssl_dc_data(); ssl_dc.views.ssl_dc_views();"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
