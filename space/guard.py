"""What stands between callers and handlers: values are checked, bodies are limited, errors are one line.

Nothing that a visitor sent reaches the log: a fault is logged as its type and the lines of code where it arose.
"""

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi.exceptions import RequestValidationError
from gradio.exceptions import InvalidPathError
from gradio.route_utils import FnIndexInferError
from gradio.utils import get_upload_folder
from starlette.formparsers import MultiPartException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

WRONG = "Something went wrong here; it has been noted."
MAX_BODY, MAX_UPLOAD = 500_000, 20_000_000  # bytes; a pasted vector of 4,096 numbers has about 90,000
API = "/gradio_api/"
POSTED = ("upload", "queue/join", "call/", "run/", "api/", "cancel", "reset")  # what the page and the clients need
MAX_MESSAGE = 300  # characters
log = logging.getLogger("embinv.space")


def note(error: Exception) -> None:
    """Log a fault by its type and the last lines of code, without its message, which may quote a visitor."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    lines = " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    log.error("%s at %s", type(error).__name__, lines)


class GuardedBlocks(gr.Blocks):
    """Blocks that check every value by the bound of its component, and whose errors are one line.

    A handler of the API is not called with a wrong value. One of the page is given the error in place of its first
    value, so that it can show it beside the input and clear what stood there.
    """

    async def preprocess_data(self, block_fn: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """What gradio makes of the values of an event (`block_fn`), each one checked first."""
        if not isinstance(inputs, list) or len(inputs) != len(block_fn.inputs):
            wanted = sum(not block.stateful for block in block_fn.inputs)
            raise gr.Error(f"This endpoint takes {wanted} values.", print_exception=False)
        wrong: list[ValueError] = []
        try:
            inputs = _checked(block_fn.inputs, inputs)
        except ValueError as error:
            if block_fn.api_visibility != "private":
                raise gr.Error(str(error), print_exception=False) from None
            inputs, wrong = _checked(block_fn.inputs, [None] * len(inputs)), [error]
        try:
            values = await super().preprocess_data(block_fn, inputs, *args, **kwargs)
            return [*wrong, *values[len(wrong) :]]
        except (InvalidPathError, OSError):
            raise gr.Error("This file is not on the server, or no longer: upload it.", print_exception=False) from None

    async def process_api(self, *args: Any, **kwargs: Any) -> Any:
        """What gradio answers; an error is one line."""
        try:
            return await super().process_api(*args, **kwargs)
        except gr.Error as error:
            raise gr.Error(" ".join(str(error.message).split())[:MAX_MESSAGE], print_exception=False) from None
        except Exception as error:
            note(error)
            raise gr.Error(WRONG, print_exception=False) from None


def _checked(blocks: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """The values by the bounds of their components; state is the server's own.

    A component without a bound is a fault of ours and fails.
    """
    pairs = zip(blocks, values, strict=True)
    return [None if block.stateful else block.bound.check(value) for block, value in pairs]


class Guard:
    """ASGI middleware: bodies up to a limit, posts to known routes only, and no traceback for what breaks inside."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        route = scope["path"].partition(API)[2]
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not route.startswith(POSTED):
            return await _line(404, "There is no such endpoint.")(scope, receive, send)
        body = _Body(receive, MAX_UPLOAD if route.startswith("upload") else MAX_BODY)
        if body.is_declared_too_long(scope["headers"]):
            return await _line(413, body.message)(scope, receive, send)
        await self._run(scope, body, send)

    async def _run(self, scope: Scope, body: "_Body", send: Send) -> None:
        started = ended = False

        async def watched(message: Message) -> None:
            nonlocal started, ended
            if not body.is_too_long or started:
                started = True
                ended = message["type"] == "http.response.body" and not message.get("more_body", False)
                await send(message)

        try:
            await self.app(scope, body, watched)
        except Exception as error:
            if not body.is_too_long:
                note(error)
        if not started:
            answer = _line(413, body.message) if body.is_too_long else _line(500, WRONG)
            await answer(scope, body, send)
        elif not ended:
            await send({"type": "http.response.body"})


class _Body:
    """`receive` of a request that ends with an error once more bytes than the limit have come."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self.receive, self.limit = receive, limit
        self.size = 0

    @property
    def message(self) -> str:
        return f"This request is too large; at most {self.limit:,} bytes are read."

    @property
    def is_too_long(self) -> bool:
        return self.size > self.limit

    def is_declared_too_long(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        declared = dict(headers).get(b"content-length", b"")
        return declared.isdigit() and len(declared) < 20 and int(declared) > self.limit

    async def __call__(self) -> Message:
        message = await self.receive()
        self.size += len(message.get("body", b""))
        if self.is_too_long:
            # the one error at which gradio deletes what it has written of an upload
            raise MultiPartException(self.message)
        return message


def _line(status: int, message: str) -> JSONResponse:
    return JSONResponse({"detail": message}, status)


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    return _line(422, "This is no request that the page sends: see /gradio_api/info.")


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    return _line(404, "There is no such endpoint.")


def delete_old_files(folder: str, age: float) -> None:
    """Delete what was last changed more than `age` seconds ago: gradio deletes the uploads that it knows of only.

    It knows nothing of one that broke off.
    """
    for path in sorted(Path(folder).rglob("*"), reverse=True):  # files before their folders
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_ctime > age:
                path.rmdir() if path.is_dir() else path.unlink()


def app_options(
    frequency: float, age: float, inside: Sequence[type] = (), routes: Sequence[BaseRoute] = ()
) -> dict[str, Any]:
    """For `app_kwargs` of gradio's `launch`, which changes the dict: limits, and old files deleted (seconds).

    Args:
        inside: more middleware, behind the guard.
        routes: of files that the page offers.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: ASGIApp) -> AsyncIterator[None]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(frequency)
                await asyncio.to_thread(delete_old_files, get_upload_folder(), age)

        task = asyncio.create_task(sweep())
        yield
        task.cancel()

    handlers = {RequestValidationError: _malformed, FnIndexInferError: _unknown}
    middleware = [Middleware(one) for one in (Guard, *inside)]
    return {"middleware": middleware, "exception_handlers": handlers, "lifespan": lifespan, "routes": list(routes)}
