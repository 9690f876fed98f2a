"""A tiny checkpoint and a store to audit; results of attacks, written down without one; an encoder that remembers."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from modeling_embinv.audit.attack import ENCODER, SEARCH, VECTORS, Attacker, Recovered
from modeling_embinv.audit.findings import measure, measure_kinds, other_texts
from modeling_embinv.audit.fingerprint import Origin
from modeling_embinv.audit.kinds import entity
from modeling_embinv.audit.report import Report
from modeling_embinv.audit.sample import Sample
from modeling_embinv.audit.tiers import OTHER_TEXT, TierResult
from modeling_embinv.cli.main import main
from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.configuration_embinv import EmbInvConfig
from modeling_embinv.data.encoders import SentenceEncoder
from modeling_embinv.loading import load_inverter
from modeling_embinv.training.backbone import prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from tests.hub.tiny_folder import new_tiny_inverter

TEXTS = [
    "Where is my new card?", "The transfer to Oslo has not arrived.", "I was charged twice for one coffee.",
    "Can I change my address online?", "My phone was stolen on Friday.", "The app rejects my fingerprint.",
    "How long does a refund take?", "Call Karen Miller at +1 212 555 0199 about her account.",
]  # fmt: skip

DATE = "2026-11-27T22:41:26Z"


def entities(text: str, **pieces):
    """The entities of a text, each given as kind="words as they stand in it"; "_" in a kind is its hyphen."""
    found = []
    for kind, piece in pieces.items():
        start = text.index(piece)
        found.append(entity(kind.replace("_", "-"), text, start, start + len(piece)))
    return found


def sample_of(texts, width: int = 4) -> Sample:
    vectors = np.random.default_rng(0).standard_normal((len(texts), width)).astype(np.float32)
    ids = [f"T-{row}" for row in range(len(texts))]
    return Sample(vectors, np.arange(len(texts)), ids, list(texts), len(texts), "d1235")


def tier_result(texts, recovered, found=None) -> TierResult:
    others = other_texts(recovered, texts)
    floors = {OTHER_TEXT: others} if others else {}
    found = found or [[] for _ in texts]
    back = Recovered(list(recovered), [0.5] * len(texts), [0.9] * len(texts), 1.0)
    figures, kinds = measure(texts, recovered, floors, back.cosine), measure_kinds(found, recovered, floors)
    return TierResult(VECTORS, sample_of(texts), back, figures, kinds, found, None)


def report_of(result: TierResult, **values) -> Report:
    source = {"name": "dump.parquet", "column": "embedding", "id_column": None, "text_column": "body",
              "rows": 9, "digest": "d1235", "skipped": {"count": 0, "examples": []}}  # fmt: skip
    checkpoint = {"name": "model", "encoder": "a/b", "checksums": None}
    return Report(source, checkpoint, "a/b", Origin("model", "a/b", None), result.sample, 0, DATE, [result], **values)


@pytest.fixture(scope="package")
def remembering():
    """Encoders embed each text once for all tests: every audit embeds the same hundreds of public ones."""
    encode, seen = SentenceEncoder.encode, {}

    def remembered(self, texts, *options, **named):
        keys = [(repr(self.config), text) for text in texts]
        if new := [key for key in dict.fromkeys(keys) if key not in seen]:
            seen.update(zip(new, encode(self, [text for _, text in new], *options, **named), strict=True))
        return torch.stack([seen[key] for key in keys]) if keys else encode(self, texts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SentenceEncoder, "encode", remembered)
        yield


@pytest.fixture(scope="package", autouse=True)
def short_search():
    """Attackers search as they do by default, but narrowly: tiny checkpoints write nonsense either way."""
    narrow = dict.fromkeys(SEARCH, 1) | {"num_candidates": 2, "num_proposals": 4}
    with pytest.MonkeyPatch.context() as patch:
        for settings in (SEARCH, ENCODER.settings, VECTORS.settings):
            for name, value in narrow.items():
                patch.setitem(settings, name, value)
        yield


def write(path, vectors, **columns):
    """A parquet file of vectors and other columns."""
    pq.write_table(pa.table({"embedding": pa.array(list(vectors), pa.list_(pa.float32())), **columns}), path)
    return path


def run(capsys, *arguments) -> tuple[int, str, str]:
    """`embinv audit` with these arguments: its exit status, output and error output."""
    code = main(["audit", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="package")
def model(encoder, tmp_path_factory):
    """A folder of a checkpoint without a surrogate, which knows its encoder's vectors."""
    torch.manual_seed(0)
    fingerprint = EmbInvConfig.from_pretrained(CHECKPOINT).encoder_fingerprint
    sizes = {"embedding_dim": 384, "encoder_id": "sentence-transformers/all-MiniLM-L6-v2"}
    inverter = new_tiny_inverter(encoder.tokenizer, encoder_fingerprint=fingerprint, **sizes)
    inverter.generation_config.calibration = {"open_loop": {"bias": 0.5}}
    return export(inverter, prepare_tokenizer(encoder.tokenizer), tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def attacker(model, encoder, tmp_path):
    inverter, tokenizer = load_inverter(model)
    return Attacker(inverter.eval(), tokenizer, tmp_path, encoder.encode, show_progress=False)


@pytest.fixture(scope="package")
def vectors(encoder) -> np.ndarray:
    return encoder.encode(TEXTS).numpy()


@pytest.fixture(scope="package")
def store(vectors, tmp_path_factory):
    names = [f"T-{row}" for row in range(len(TEXTS))]
    return write(tmp_path_factory.mktemp("store") / "dump.parquet", vectors, ticket=names, body=TEXTS)
