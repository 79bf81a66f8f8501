"""A browser without a window, where one is installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from helpers.command_line import HANGS

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless Chromium: that of SSL_DC_TEST_CHROMIUM, the system's, or playwright's own; or a skip that says why."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives a browser")
    found = os.environ.get("SSL_DC_TEST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    with playwright.sync_playwright() as driver:
        if found is None and not os.path.exists(driver.chromium.executable_path):
            pytest.skip("needs Chromium: apt-get install chromium, or set SSL_DC_TEST_CHROMIUM to one")
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"], timeout=1000 * HANGS)
        try:
            yield browser
        finally:
            browser.close()
