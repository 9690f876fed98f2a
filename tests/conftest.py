"""The order and the processes of the tests, and the encoders that they share; nothing here needs a network.

No heavy import stands here at the top: the process that hands the tests to the others reads this file as well.
"""

import gc
import itertools
import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# numpy's threads, and those of the processes that tests start: two of them on a busy machine wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from tests.fresh_process import FreshProcesses

BACKBONES = {
    "bert": dict(model_type="bert", num_hidden_layers=2),
    "xlm-roberta": dict(model_type="xlm-roberta", num_hidden_layers=2, pad_token_id=1),
    "modernbert": dict(
        model_type="modernbert", num_hidden_layers=4, local_attention=8, bos_token_id=1, eos_token_id=2,
        cls_token_id=1, sep_token_id=2, pad_token_id=0,
    ),
}  # fmt: skip
# folders and files whose tests share what takes long to load, by a name for it
TOGETHER = {
    "tests/space/": "the Space's page with its examples", "tests/audit/": "the audit's dictionaries",
    "tests/project/test_readme.py": "the audit's dictionaries",
}  # fmt: skip
# two processes that begin with torch would both compile it; the second one compiles these meanwhile
FROM_THE_OTHER_END = ("sympy", "scipy.stats", "pandas", "matplotlib.pyplot", "sklearn.linear_model", "gradio")


@pytest.fixture
def file_limit():
    """Sets a limit on the size of files, as `ulimit -f` and, much alike, a full disk do; None = none."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Imports make a million objects and hardly any garbage: to look for it takes a quarter of their time."""
    gc.disable()
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
        for name in FROM_THE_OTHER_END:
            with suppress(ImportError):
                import_module(name)
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]):
    """What takes longest comes first, so that neither process ends with it alone: folders, then slow files."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not item.nodeid.startswith(tuple(TOGETHER)), item.path not in slow))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """A file's tests stay in one process, as `--dist loadfile` has it; those of one name in `TOGETHER` as well."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            names = (name for start, name in TOGETHER.items() if nodeid.startswith(start))
            return next(names, super()._split_scope(nodeid))

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_finish():
    """What is imported stays: the end of each training run collects garbage, and would look through all of it."""
    import torch

    torch.set_num_threads(1)  # tiny networks gain nothing from threads, and two of them on a busy machine wait
    gc.collect()
    gc.freeze()


@pytest.fixture(params=list(BACKBONES))
def family(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def encoder():
    from modeling_embinv.data.encoder_config import EncoderConfig
    from modeling_embinv.data.encoders import load_encoder

    return load_encoder(EncoderConfig(id="sentence-transformers/all-MiniLM-L6-v2"))


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    """Runs code in a process of its own, without the seconds that importing torch takes."""
    processes = FreshProcesses(tmp_path_factory.mktemp("fresh"))
    yield processes
    processes.close()


@pytest.fixture(scope="session")
def pairs(tmp_path_factory, encoder) -> Path:
    """A folder of 60 prepared pairs."""
    from modeling_embinv.data.prepare import prepare
    from modeling_embinv.data.sources import Document

    folder = tmp_path_factory.mktemp("pairs") / "out"
    nouns, verbs, places = (
        ("dog", "child", "king", "doctor", "bird"),
        ("sleeps", "sings", "waits"),
        ("home", "school", "the sea", "a park in spring with friends"),
    )
    texts = [f"A {n} {v} near {p}." for n, v, p in itertools.product(nouns, verbs, places)]
    prepare([Document(t, t) for t in texts], encoder, folder, length=16, validation_share=0.2, show_progress=False)
    return folder
