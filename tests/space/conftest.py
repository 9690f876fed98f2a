"""The Space's module, loaded once, as it loads the checkpoint and the encoder; its server on a free port; calls."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

CHROMIUM = Path("/usr/bin/chromium")
JSON = {"Content-Type": "application/json"}
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


@contextmanager
def new_page(width: int, height: int, patience: int) -> Iterator[Any]:
    """An empty page in Chromium, which waits `patience` milliseconds for anything; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("no /usr/bin/chromium on this machine")
    with playwright.sync_playwright() as running:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(patience)
        yield page
        browser.close()


@pytest.fixture(scope="session")
def app():
    import app

    app.FRAME_SECONDS = 0.0
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
