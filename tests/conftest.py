"""Tiny models, toy encoders and the real one, shared by the tests; nothing here needs a network."""

import gc
import itertools
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

from modeling_embinv import EmbInvConfig, EmbInvForMaskedDiffusion
from tests.fresh_process import FreshProcesses

# tiny networks gain nothing from threads, and two of them on a busy machine wait for each other
torch.set_num_threads(1)

VOCAB, MASK, END, PAD = 60, 3, 2, 0

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
_SIZES = dict(
    vocab_size=VOCAB, hidden_size=32, num_attention_heads=4, intermediate_size=64, max_position_embeddings=40
)
_NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def tiny_config(family: str = "bert", **overrides) -> EmbInvConfig:
    backbone = {**_SIZES, **BACKBONES[family]}
    if family != "modernbert":
        backbone |= _NO_DROPOUT
    settings = dict(
        backbone_config=backbone, embedding_dim=16, max_sequence_length=12, vocab_size=VOCAB, mask_token_id=MASK,
        eos_token_id=END, pad_token_id=PAD,
    )  # fmt: skip
    return EmbInvConfig(**{**settings, **overrides})


def tiny_model(family: str = "bert", seed: int = 0, **overrides) -> EmbInvForMaskedDiffusion:
    torch.manual_seed(seed)
    return EmbInvForMaskedDiffusion(tiny_config(family, **overrides)).eval()


def awaken(model: EmbInvForMaskedDiffusion, seed: int = 0) -> EmbInvForMaskedDiffusion:
    """Weights as large as trained ones, also where they start at zero, so that t, e and positions matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.trunk.layers.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.mul_(5)
        weight = model.modulation.weight
        weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1 / model.modulation.scale)
    return model


def causal_model(family: str = "bert", **overrides) -> EmbInvForMaskedDiffusion:
    """An inverter that knows both orders, awake."""
    model = awaken(tiny_model(family, **{"num_condition_tokens": 2, "causal_share": 0.5, **overrides}))
    model.get_input_embeddings().weight.data.mul_(10)  # surer of its tokens, so that texts differ
    return model


def unit_vectors(count: int, dim: int = 16, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=1, keepdim=True)


def texts(rows: int, length: int = 12) -> torch.Tensor:
    """Random texts of every length up to the canvas, then end tokens; the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, VOCAB, (rows, length), generator=generator)
    sizes = torch.randint(1, length + 1, (rows, 1), generator=generator)
    return ids.masked_fill(torch.arange(length) >= sizes, END)


def bag_of_tokens(calls: list[int]):
    """An encoder that sums a vector for each token, and counts."""
    table = unit_vectors(VOCAB, seed=5)

    def encode(ids):
        calls.append(len(ids))
        return torch.nn.functional.normalize((table[ids] * (ids != END)[..., None]).sum(dim=1), dim=-1)

    return encode


def with_surrogate(family: str = "bert", **overrides):
    """A model whose surrogate has left its start, where its changes of the trunk are zero."""
    model = awaken(tiny_model(family, surrogate_rank=4, **overrides))
    for weight in (*model.surrogate.up, model.surrogate.start, *model.surrogate.shifts):
        torch.nn.init.normal_(weight, std=0.3)
    return model


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
