"""A real browser, and real gateways for it to look at."""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

from tests.e2e.clients import Client
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


# An async fixture keeps its event loop for all tests that run meanwhile, so none here is for the
# whole run: other tests want another loop.


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Debian's chromium without a window, for all tests of a file."""
    executable = _chromium()
    expect.set_options(timeout=PATIENCE * 1000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield browser
        await browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complains of during the test."""
    return []


@asynccontextmanager
async def _opened(browser: Browser, complaints: list[str]) -> AsyncIterator[Page]:
    """A page in a profile of its own."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE * 1000)

    def on_console(said: ConsoleMessage) -> None:
        # A violation of the content security policy is an error of the console too.
        if said.type in ("error", "warning"):
            complaints.append(said.text)

    def on_failure(request: Request) -> None:
        # ERR_ABORTED is what the page itself did: it closed an event stream.
        if request.failure != "net::ERR_ABORTED":
            complaints.append(f"{request.url}: {request.failure}")

    context.on("console", on_console)
    context.on("requestfailed", on_failure)
    context.on("weberror", lambda error: complaints.append(f"uncaught: {error.error}"))
    try:
        yield await context.new_page()
    finally:
        await context.close()


@pytest.fixture
async def page(browser: Browser, complaints: list[str]) -> AsyncIterator[Page]:
    """A page of which the browser must have nothing to complain: no error, no failed request."""
    async with _opened(browser, complaints) as page:
        yield page
        assert complaints == []


@pytest.fixture
async def roaming(browser: Browser, complaints: list[str]) -> AsyncIterator[Page]:
    """A page whose network comes and goes: the browser may complain of that, and of no more."""
    async with _opened(browser, complaints) as page:
        yield page
        network = re.compile(r"net::ERR_|^WebSocket connection to ")
        assert [each for each in complaints if not network.search(each)] == []


@pytest.fixture
async def client(browser: Browser, complaints: list[str]) -> AsyncIterator[Client]:
    """The client in a page: requests may fail, but it must know what to do about it."""
    async with _opened(browser, complaints) as page:
        yield Client(page)
        assert [each for each in complaints if each.startswith("uncaught")] == []


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


@pytest.fixture(scope="module")
async def busy_shop() -> AsyncIterator[Site]:
    """The same for all tests of a file that take no notice of the orders of others."""
    with short_directory() as directory:
        async with site(directory) as shop:
            await shop.start("run", "--port", "0")
            yield shop
