"""The Space: watch a sentence embedding being read back.

    python space/app.py        # http://127.0.0.1:7860, from checkpoints/, without Hub or GPU

On Hugging Face it runs as it lies; `EMBINV_MODEL` names another folder or repository.
"""

import functools
import inspect
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modeling_embinv.cores import threads_of_quota

os.environ.update(threads_of_quota())
# gradio keeps this many events for its statistics, and builds a table of all of them at each one
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
# a folder of this page's own, for old files in it are deleted
os.environ.setdefault("GRADIO_TEMP_DIR", str(Path(tempfile.gettempdir()) / "embinv-space"))

import gradio as gr
import torch
from guard import MAX_UPLOAD, GuardedBlocks, app_options
from inverter import Inverter
from leaks_tab import leaks_tab
from parts import LIVE, refused_html
from recover_tab import recover_tab
from redacted_tab import redacted_tab
from researchers_tab import researchers_tab
from sharing import ICON, TITLE, Sharing, files
from theme import CSS, theme
from vectors_tab import SAMPLE_URL, sample_file, vectors_tab

try:
    import spaces

    on_gpu = spaces.GPU
except ImportError:  # only ZeroGPU has it
    on_gpu = lambda function: function  # noqa: E731

HERE = Path(__file__).parent
LOCAL = HERE.parent / "checkpoints" / "embinv-minilm"
MODEL = os.environ.get("EMBINV_MODEL") or (str(LOCAL) if LOCAL.exists() else "embinv/embinv-minilm")
MAX_SESSIONS = 256  # visitors whose pages are kept
MAX_WAITING = 128  # in the queue
KEPT_SECONDS, SWEPT_SECONDS = 3600, 600  # how long uploads are kept; how often old ones are deleted
TABS = {
    "Redacted": redacted_tab, "Recover": recover_tab, "What leaks": leaks_tab, "Vectors": vectors_tab,
    "For researchers": researchers_tab,
}  # fmt: skip

inverter = Inverter(MODEL, "cuda" if torch.cuda.is_available() else "cpu")


def guarded(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler, a generator, whose errors are one line on the page and in the API, never a stack trace.

    One of the page, whose outputs are a message and a result, shows the error that it is given as its first value.
    """
    assert inspect.isgeneratorfunction(handler)
    placed = on_gpu(handler)

    @functools.wraps(handler)
    def streaming(*args: Any, **kwargs: Any) -> Iterator[Any]:
        if args and isinstance(args[0], ValueError):
            yield [refused_html(args[0]), ""]
            return
        try:
            yield from placed(*args, **kwargs)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return streaming


def about() -> str:
    """What the page reads, what becomes of what one types, and where more stands."""
    return (
        f"Reads vectors of `{inverter.model.config.encoder_id}`: English, up to {inverter.max_tokens} tokens. "
        "What you type is sent to this server, and is neither logged nor kept; a file is deleted after an hour. No "
        "other visitor sees either; even so, paste no secrets. For auditing vectors that you are allowed to read. "
        "[Paper](https://arxiv.org/abs/2602.11047) · [Code](https://github.com/embinv/embinv) · "
        "[Model card](https://huggingface.co/embinv/embinv-minilm) · "
        "[Documentation](https://embinv.github.io/embinv/)"
    )


def build() -> gr.Blocks:
    """The page."""
    deleting = dict(delete_cache=(SWEPT_SECONDS, KEPT_SECONDS))
    with GuardedBlocks(title=TITLE, analytics_enabled=False, **deleting) as page:
        gr.Markdown(
            f"# {TITLE}\nSearch indexes, backups and logs keep vectors of texts as if nobody could read them, and a "
            "leak is called harmless where “only the embeddings” got out. A masked diffusion model brings the words "
            "back."
        )
        for name, tab in TABS.items():
            with gr.Tab(name):
                tab(inverter, guarded)
        gr.Markdown(about(), elem_classes="about")
        page.load(None, js=LIVE)
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=2)
    return page


def launch(**options: Any) -> Any:
    """Start the page; fonts and everything else come from this server."""
    inside = app_options(SWEPT_SECONDS, KEPT_SECONDS, [Sharing], files({SAMPLE_URL: lambda: sample_file(inverter)}))
    limits = dict(max_file_size=MAX_UPLOAD, state_session_capacity=MAX_SESSIONS, app_kwargs=inside)
    looks = dict(theme=theme(), css=CSS, favicon_path=str(ICON))
    return build().launch(**looks, ssr_mode=False, enable_monitoring=False, **limits, **options)


if __name__ == "__main__":
    launch()
