"""The Space's module, loaded once, as it loads the checkpoint and the encoder; one server, one browser; calls."""

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import controls
import httpx
import pytest
import streaming

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE = 120_000  # milliseconds
# no search finds it, so each goes on to its last round unless somebody stops it
ENDLESS = "Nine lawyers from Osaka rejected the second appeal of his landlord."
JSON = {"Content-Type": "application/json"}
# what the page sends for an inversion, with little work
INVERT = [
    "We will meet at the station on Friday evening.",
    *(0, "confidence", 2, 1, "default", 0.05, 1, 0, "encoder", 1),
    *[None] * sum(len(names) for rows in controls.MORE.values() for names in rows),
]
# one for all calls, since each new client reads the certificates again, which takes longer than most answers
_http = httpx.Client(timeout=120, limits=httpx.Limits(max_keepalive_connections=0))


def call(url: str, name: str, data: list, session: str | None = None) -> tuple[str, str]:
    """("complete" or "error", its JSON) of a call over raw HTTP, NaN and all."""
    posted = {"data": data} if session is None else {"data": data, "session_hash": session}
    answer = _http.post(f"{url}/gradio_api/call/{name}", content=json.dumps(posted), headers=JSON)
    if answer.status_code != 200:
        return "error", answer.text
    text = _http.get(f"{url}/gradio_api/call/{name}/{answer.json()['event_id']}").text
    event, data = [part for part in text.split("\n\n") if part and "heartbeat" not in part][-1].split("\n", 1)
    return event.removeprefix("event: "), data.removeprefix("data: ")


@pytest.fixture(scope="session")
def browser():
    """Chromium, one for all tests; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("no /usr/bin/chromium on this machine")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def cached(browser):
    """A browser's profile for all tests: a new one loads and compiles gradio's files anew, for two seconds."""
    return browser.new_context()


@pytest.fixture
def visit(browser, cached, url):
    """Opens the page at a tab, in a window of its own; waits long, as other work on the machine is no fault of it.

    A test's second window is another visitor's, and has a profile of its own.
    """
    pages, others = [], []

    def open_at(
        tab: str | None, width: int = 1366, height: int = 900, theme: str = "light", fragment: str = ""
    ) -> Any:
        if pages:
            others.append(browser.new_context())
        page = (others[-1] if others else cached).new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=theme)
        page.set_default_timeout(PATIENCE)
        page.goto(f"{url}?__theme={theme}#{fragment}")
        if tab is not None:  # else the address says it
            go_to(page, tab)
        return page

    yield open_at
    for page in pages[:1]:
        page.evaluate("localStorage.clear()")  # the next test's visitor is a new one
        page.close()
    cached.clear_cookies()
    for context in others:
        context.close()


def go_to(page: Any, tab: str) -> None:
    """Open a tab, also one that a phone has no room for."""
    page.get_by_role("tab", name="Redacted", exact=True).wait_for()
    named = page.get_by_role("tab", name=tab, exact=True).locator("visible=true")
    if not named.count():
        page.locator(".overflow-menu > button").locator("visible=true").first.click()
        named = page.locator(".overflow-dropdown button", has_text=tab)
    named.first.click()


def wait_until(page: Any, is_true: Callable[[], Any]) -> None:
    """Wait, while the page lives on, till what happens in the server is true."""
    deadline = time.time() + PATIENCE / 1000
    while not is_true():
        assert time.time() < deadline, "it did not become true"
        page.wait_for_timeout(20)


@pytest.fixture(scope="session")
def app():
    import leaks
    import parts
    import recover_tab

    recover_tab.ARRIVAL, recover_tab.FRAME_SECONDS = "quick", 0.0
    parts.PATIENCE = 10 * PATIENCE  # a gradio that tells the end of a cancelled run less often is noticed
    leaks.finder = lambda: None  # as on the Hub; Presidio and its model take seconds to load
    import app

    return app


@pytest.fixture(scope="session")
def launch(app):
    """Starts a server of the page; gives what gradio's `launch` gives, of which the second is the address."""

    def on_a_free_port():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return app.launch(prevent_thread_lock=True, quiet=True, server_port=port)

    return on_a_free_port


@pytest.fixture(scope="session")
def url(launch, tmp_path_factory):
    """One server for all tests of a process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        server, url, _ = launch()
        yield url
        server.get_blocks().close()
        all_stopped()  # a thread of torch that works while Python ends aborts it


@pytest.fixture
def hold():
    """What a search is held at, by the callback that a test patches: so a page is watched in the middle of it."""
    go_on = threading.Event()
    yield go_on
    go_on.set()


def running() -> set[threading.Thread]:
    """The threads that the model works on."""
    return {thread for thread in threading.enumerate() if thread.name == streaming.THREAD}


def all_stopped(seconds: float = 60) -> bool:
    """Whether no thread works any longer, at the latest after so many seconds."""
    deadline = time.time() + seconds
    while running() and time.time() < deadline:
        time.sleep(0.1)
    return not running()
