"""What a shared link shows, the page's icon, and the files that it offers."""

import os
import re
from collections.abc import Callable
from html import escape
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from theme import EARLY_CSS

TITLE = "EmbInv: what an embedding says"
DESCRIPTION = (
    "Search indexes, backups and logs keep vectors of texts as if nobody could read them. Type a sentence, and watch "
    "it come back from its vector."
)
ICON, PREVIEW = (Path(__file__).with_name(name) for name in ("icon.svg", "preview.png"))
_TAG = re.compile(rb'<meta\s+(?:property="og:|name="twitter:)[^>]*>\s*')


def tags() -> bytes:
    """What the page's head has of us: tags for a link's preview, and early CSS.

    Hugging Face names the page's host; elsewhere the image has no address.
    """
    host = os.environ.get("SPACE_HOST")
    image = f"https://{host}/{PREVIEW.name}" if host else f"/{PREVIEW.name}"
    told = {"og:type": "website", "og:title": TITLE, "og:description": DESCRIPTION, "og:image": image}
    lines = [f'<meta property="{name}" content="{escape(value)}" />' for name, value in told.items()]
    lines.append('<meta name="twitter:card" content="summary_large_image" />')
    lines.append(f'<meta name="description" content="{escape(DESCRIPTION)}" />')
    return "\n".join([*lines, f"<style>{EARLY_CSS}</style>"]).encode()


def files(offered: dict[str, Callable[[], bytes]]) -> list[Route]:
    """Routes of the preview, and of JSON files by name."""

    async def preview(request: Request) -> Response:
        return FileResponse(PREVIEW)

    def of(content: Callable[[], bytes]) -> Callable[[Request], Response]:
        return lambda request: Response(content(), media_type="application/json")

    return [
        Route(f"/{PREVIEW.name}", preview),
        *(Route(f"/{name}", of(content)) for name, content in offered.items()),
    ]


class Sharing:
    """ASGI middleware: in the page's head, gradio's own tags give way to ours."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] not in ("", "/"):
            return await self.app(scope, receive, send)
        start: Message = {}
        parts: list[bytes] = []

        async def changed(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body", False):
                return
            whole = _TAG.sub(b"", b"".join(parts)).replace(b"<head>", b"<head>\n" + tags(), 1)
            kept = [(name, value) for name, value in start["headers"] if name != b"content-length"]
            await send({**start, "headers": [*kept, (b"content-length", str(len(whole)).encode())]})
            await send({"type": "http.response.body", "body": whole})

        await self.app(scope, receive, changed)
