"""The README's first code and the checkpoint that it names."""

import re
from pathlib import Path

from modeling_embinv.cli.demo import DEMO_SENTENCES
from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.evaluation import metrics
from modeling_embinv.loading import load_inverter

ROOT = Path(__file__).parents[2]


def test_readme_code_runs(encoder, monkeypatch):
    """The first thing a user pastes must run."""
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    scope = {"vectors": encoder.encode(list(DEMO_SENTENCES))}
    exec(code, scope)
    assert len(scope["texts"]) == len(DEMO_SENTENCES) and all(scope["texts"])


def test_the_checkpoint_carries_the_package_code():
    """Hub users run the copy beside the weights: a fix that reaches only the package is none for them."""
    shipped = {path.name: path.read_bytes() for path in (ROOT / "modeling_embinv").glob("*_embinv.py")}
    copies = {path.name: path.read_bytes() for path in Path(CHECKPOINT).glob("*.py")}
    assert copies.keys() == shipped.keys()
    assert [name for name in copies if copies[name] != shipped[name]] == []


def test_the_shipped_checkpoint_reads_vectors(encoder):
    """A checkpoint of random or mismatched weights would still print fluent lines."""
    folder = Path(CHECKPOINT)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 64 * 2**20
    assert not [path for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
    model, tokenizer = load_inverter(folder)
    embeddings = encoder.encode(list(DEMO_SENTENCES))
    texts = tokenizer.batch_decode(model.generate(embeddings).sequences, skip_special_tokens=True)
    again = encoder.encode(texts)
    own = metrics.cosine(again, embeddings).mean()
    other = metrics.cosine(again, embeddings.roll(1, dims=0)).mean()
    assert own > other + 0.3
