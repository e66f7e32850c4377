"""The pages, what they are made of, and the headers that guard them."""

import httpx
import pytest

from gateway.api.pages import CONTENT_SECURITY_POLICY
from gateway.resources import web_dir
from tests.api.conftest import config_of
from tests.api.stand import Stand, problem, standing
from tests.servers import RunningServer

PAGES = {
    "/": ("text/html; charset=utf-8", "index.html"),
    "/demo/": ("text/html; charset=utf-8", "demo/index.html"),
    "/favicon.ico": ("image/svg+xml", "favicon.svg"),
    "/static/gateway.js": ("text/javascript; charset=utf-8", "gateway.js"),
    "/static/base.css": ("text/css; charset=utf-8", "base.css"),
    "/demo/dashboard.js": ("text/javascript; charset=utf-8", "demo/dashboard.js"),
}


def check_guarded(answer: httpx.Response) -> None:
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_served_as_what_it_is_and_guarded(api: Stand, path: str) -> None:
    media_type, file = PAGES[path]
    answer = await api.http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.content == (web_dir() / file).read_bytes()
    check_guarded(answer)


def test_pages_may_run_and_load_nothing_that_is_not_ours() -> None:
    rules = dict(rule.split(" ", 1) for rule in CONTENT_SECURITY_POLICY.split("; "))
    assert rules["default-src"] == "'self'"
    assert rules["connect-src"] == "'self' ws: wss:"
    assert {rules[name] for name in ("object-src", "base-uri", "frame-ancestors")} == {"'none'"}
    assert "unsafe" not in CONTENT_SECURITY_POLICY


async def test_a_page_that_has_not_changed_is_not_sent_again(api: Stand) -> None:
    for path in PAGES:
        etag = (await api.http.get(path)).headers["etag"]
        answer = await api.http.get(path, headers={"if-none-match": etag})
        assert (answer.status_code, answer.content) == (304, b"")
        check_guarded(answer)


@pytest.mark.parametrize(
    "path",
    [
        *("/static/nope.js", "/static/", "/static/%2e%2e/pyproject.toml", "/static/..%2fREADME.md"),
        *("/static//etc/passwd", "/demo/../../gateway/app.py", "/demo/nope", "/static/%00"),
    ],
)
async def test_nothing_else_of_the_disk_is_served(api: Stand, path: str) -> None:
    status, _, body = await api.raw(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert status == 404, body
    assert b"problem:not-found" in body


async def test_the_dashboard_is_found_without_its_last_slash(api: Stand) -> None:
    answer = await api.http.get("/demo")
    assert (answer.status_code, answer.headers["location"]) == (307, "/demo/")


async def test_the_console_is_told_what_is_configured(api: Stand) -> None:
    answer = await api.http.get("/console.json")
    check_guarded(answer)
    told = answer.json()
    assert told["demo"] is True
    assert [each["path"] for each in told["commands"]][:2] == ["/orders", "/break"]
    assert told["commands"][0]["schema"]["required"] == ["customer", "qty"]
    assert {"pattern": "mute", "history": None} in told["channels"]
    assert {"pattern": "log", "history": {"size": 1000, "ttl": 3600}} in told["channels"]
    assert "sesame" not in answer.text


async def test_pages_can_be_switched_off(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pages")
    async with standing(config_of(valkey, folder, console=False, demo=False)) as api:
        for path in (*PAGES, "/console.json"):
            problem(await api.http.get(path), 404, "not-found")
    async with standing(config_of(valkey, folder, console=True, demo=False)) as api:
        assert (await api.http.get("/")).status_code == 200
        problem(await api.http.get("/demo/"), 404, "not-found")
    async with standing(config_of(valkey, folder, console=False, demo=True)) as api:
        assert (await api.http.get("/demo/")).status_code == 200
        assert (await api.http.get("/static/gateway.js")).status_code == 200
        problem(await api.http.get("/"), 404, "not-found")
