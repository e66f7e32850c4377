"""A real browser, and real gateways for it to look at."""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, Request, async_playwright, expect

from tests.e2e.gateways import PATIENCE, Site, site
from tests.servers import short_directory

ARGUMENTS = (
    "--no-sandbox",  # it cannot be had as root, and only our own pages are looked at
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def _chromium() -> str:
    for name in ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("needs a browser: apt-get install chromium")


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's chromium without a window, for the whole run."""
    executable = _chromium()
    expect.set_options(timeout=PATIENCE * 1000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield browser
        await browser.close()


@asynccontextmanager
async def _opened(browser: Browser) -> AsyncIterator[tuple[Page, list[str]]]:
    """A page in a profile of its own, and the list of what the browser complains of."""
    complaints: list[str] = []
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE * 1000)
    context.on(
        "console",
        # A violation of the content security policy is an error of the console too.
        lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None,
    )
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("requestfailed", lambda request: complaints.extend(_failure(request)))
    try:
        yield await context.new_page(), complaints
    finally:
        await context.close()


def _failure(request: Request) -> list[str]:
    # ERR_ABORTED is what the page itself did: it closed an event stream.
    aborted = request.failure == "net::ERR_ABORTED"
    return [] if aborted else [f"{request.url}: {request.failure}"]


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page of which the browser must have nothing to complain: no error, no failed request."""
    async with _opened(browser) as (page, complaints):
        yield page
        assert complaints == []


@pytest.fixture
async def roaming(browser: Browser) -> AsyncIterator[Page]:
    """A page whose network comes and goes: the browser may complain of that, and of no more."""
    async with _opened(browser) as (page, complaints):
        yield page
        network = re.compile(r"net::ERR_|^WebSocket connection to ")
        assert [each for each in complaints if not network.search(each)] == []


@pytest.fixture
async def empty_site(short_dir: Path) -> AsyncIterator[Site]:
    """A folder in which no gateway runs yet."""
    async with site(short_dir) as empty:
        yield empty


@pytest.fixture
async def shop(empty_site: Site) -> Site:
    """The example, run as `make run` runs it; nobody has ordered anything yet."""
    await empty_site.start("run", "--port", "0")
    return empty_site


@pytest.fixture(scope="session")
async def busy_shop() -> AsyncIterator[Site]:
    """The same for all tests that take no notice of the orders of others."""
    with short_directory() as directory:
        async with site(directory) as shop:
            await shop.start("run", "--port", "0")
            yield shop
