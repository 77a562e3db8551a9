"""A browser for the pages.

It needs Chromium and the extra `page`; where one is missing the tests are skipped, and say so,
unless MLX_ESM_KERNELS_BROWSER=required, as .ci/run has it.
"""

import os
import shutil

import pytest
from browser import WIDTHS

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Without a GPU Chromium draws WebGL on the CPU; the superuser has no sandbox there.
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def skip(why):
    if os.environ.get("MLX_ESM_KERNELS_BROWSER") == "required":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def chromium():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        skip('playwright is missing: pip install -e ".[page]"')
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        skip(f"there is no browser here ({', '.join(BROWSERS)})")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def new_page(chromium):
    """Windows; in the end their consoles must be clean and nothing may have left the machine."""
    complaints, contexts = [], []

    def opened(size="wide", scheme="light"):
        width, height = WIDTHS[size]
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        local = ("file:", "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(local) else complaints.append(r.url))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
