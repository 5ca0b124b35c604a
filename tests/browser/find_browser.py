"""The browser that the tests drive. As a script, its exit status is 0 where there is one."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
from playwright.sync_api import Browser, BrowserType, Error, sync_playwright

NO_BROWSER = "There is no browser to test with: install Chromium, or name one in the variable CHROMIUM."
COMMANDS = ("chromium", "chromium-browser", "google-chrome", "msedge")
CHANNELS = ("chrome", "msedge")
"""Browsers that playwright finds by itself though they are not on the PATH (Windows, macOS)."""


def find_program(chromium: BrowserType) -> str | None:
    """The program that CHROMIUM names, else one on the PATH, else playwright's own; None: there is none."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, COMMANDS)), None)
    own = chromium.executable_path
    return found or (own if Path(own).exists() else None)


def launch(chromium: BrowserType, **options: Any) -> Browser | None:
    """Start a browser with playwright's `options`; None where there is none.

    Raises:
        Error: there is one that does not start.
    """
    program = find_program(chromium)
    if program is not None:
        return chromium.launch(executable_path=program, **options)
    for channel in CHANNELS:
        try:
            return chromium.launch(channel=channel, **options)
        except Error:
            continue
    return None


def no_browser() -> NoReturn:
    """The test is left out; but where nobody watches (CI), that would hide something, and it fails."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_BROWSER)


def main() -> int:
    """Start a browser and end it again; returns the exit status."""
    with sync_playwright() as playwright:
        try:
            browser = launch(playwright.chromium)
        except Error as error:
            sys.stderr.write(f"The browser does not start: {error.message}\n")
            return 1
        if browser is None:
            return 1
        browser.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
