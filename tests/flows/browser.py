"""A real browser without a window, where one is installed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """GRISTMILL_BROWSER, or the first that is installed."""
    given = os.environ.get("GRISTMILL_BROWSER")
    return given or next(filter(None, map(shutil.which, BROWSERS)), None)


NEEDS_BROWSER = [
    pytest.mark.skipif(
        find_spec("playwright") is None,
        reason="the package playwright is not installed: pip install -e '.[ui]'",
    ),
    pytest.mark.skipif(
        find_browser() is None,
        reason=f"no browser: none of {', '.join(BROWSERS)} is installed, GRISTMILL_BROWSER is not set",
    ),
]


@contextmanager
def open_browser(*arguments: str) -> "Iterator[Browser]":
    """The browser, with further arguments of its command line."""
    from playwright.sync_api import sync_playwright  # not there, the tests are skipped

    usual = ("--no-sandbox", "--disable-gpu", "--disable-quic")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), args=[*usual, *arguments]
        )
        yield browser
        browser.close()
