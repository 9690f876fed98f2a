"""Vectors of another origin are recognised, and the encoder's own are not suspected."""

import json

import pytest
import torch
from torch.nn.functional import normalize

from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.configuration_embinv import EmbInvConfig
from modeling_embinv.data.prepare import prepare
from modeling_embinv.data.sources import Document
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.fingerprint_embinv import LARGEST_SPREAD, Fingerprint
from modeling_embinv.training.assemble import fingerprint_of, train
from modeling_embinv.training.config import TrainingConfig
from tests.tiny_models import tiny_model

ENCODER = "minilm"

SUBJECTS = ("the dog", "a nurse", "our server", "the new law", "my grandmother", "every train")
ENDINGS = (
    "was late again", "needs more time", "costs two hundred dollars", "cannot be found", "made us laugh", "is in Rome",
    "will be replaced in spring",
)  # fmt: skip
# of other kinds than the fingerprint's: questions, fragments, another language, code
OTHERS = [
    "What is the capital of France?", "apt-get install python3-dev", "Der Zug kommt heute nicht.", "Yes.",
    "chapter 7", "def main(argv): return 0", "GDP: $1.2 trillion (2019 est.)", "東京は日本の首都です。",
    "how do i reset my password",
]  # fmt: skip


@pytest.fixture(scope="module")
def own(encoder) -> torch.Tensor:
    openings = ("Yesterday", "In the end", "They say that", "I think")
    texts = [f"{opening} {subject} {end}." for opening in openings for subject in SUBJECTS for end in ENDINGS]
    return encoder.encode(texts)


@pytest.fixture(scope="module")
def fingerprint(own) -> Fingerprint:
    """As it comes out of a configuration file."""
    return Fingerprint.from_text(Fingerprint.of(own).to_text())


def random_vectors(count: int = 40, dim: int = 384) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(0))


def test_text_form_keeps_the_numbers(own, fingerprint):
    """A wrong byte order or split would make every encoder's vectors strangers."""
    assert torch.allclose(fingerprint.mean, own.mean(dim=0), atol=1e-4)
    assert torch.allclose(fingerprint.variance, own.var(dim=0), rtol=1e-2, atol=1e-7)
    assert len(Fingerprint.of(own).to_text()) == 2048


def test_too_few_vectors_have_no_fingerprint(own):
    """A variance of three vectors would suspect all others."""
    assert Fingerprint.of(own[:99]) is None


@pytest.mark.parametrize("text", ["abc", "AAA=", "AAAA", "", "é", 5, None, "AH4AAA=="])
def test_a_damaged_fingerprint_is_told(text):
    """An edited config.json ended `generate` in an error of base64; one that holds no number fitted every vector."""
    with pytest.raises(EmbInvError, match="encoder_fingerprint must be .* or null, got"):
        Fingerprint.from_text(text)


def test_a_fingerprint_of_another_width_is_told(own):
    """The configuration of one checkpoint with the fingerprint of another ended in an error of two shapes."""
    model = tiny_model(encoder_fingerprint=Fingerprint.of(own).to_text())
    for call in (model.generate, model.mismatch):
        with pytest.raises(EmbInvError, match="encoder_fingerprint is of vectors of 384 numbers, these have 16"):
            call(torch.eye(16))


@pytest.mark.parametrize("kind", ["random", "permuted", "rotated"])
def test_foreign_vectors_are_recognised(released_fingerprint, own, kind):
    """They were inverted to nonsense without a word."""
    foreign = {
        "random": random_vectors(),
        "permuted": own[:40].roll(7, dims=1),
        "rotated": own[:40] @ torch.linalg.qr(random_vectors(384))[0],
    }
    assert "another encoder" in released_fingerprint.mismatch(normalize(foreign[kind], dim=1))


def test_each_row_has_a_spread_of_its_own(fingerprint, own):
    """The mean over all rows hid a part that is another encoder's."""
    mixed = torch.cat([own[:9], own[9:12].roll(7, dims=1)])
    spreads = fingerprint.spreads(mixed)
    assert spreads.shape == (12,) and fingerprint.spread(mixed) == pytest.approx(float(spreads.mean()))
    assert spreads[:9].max() < LARGEST_SPREAD < spreads[9:].min()


def test_differences_and_whole_numbers_are_named(released_fingerprint, own):
    """The direction "king minus queen" has this encoder's variances: its length gives it away."""
    assert "differences" in released_fingerprint.mismatch((own[0] - own[100])[None])
    assert "int8" in released_fingerprint.mismatch((own[:5] * 400).round())


def test_own_vectors_are_not_suspected(released_fingerprint, encoder, own):
    """A false alarm on text of another kind teaches people to ignore the warning."""
    for vectors in (own, encoder.encode(OTHERS), *encoder.encode(OTHERS)[:, None]):
        assert released_fingerprint.mismatch(vectors) is None
    assert released_fingerprint.mismatch(own.half()) is None
    assert released_fingerprint.mismatch(normalize(own + 0.01 * random_vectors(len(own)), dim=1)) is None


@pytest.fixture(scope="module")
def released_fingerprint() -> Fingerprint:
    return Fingerprint.from_text(EmbInvConfig.from_pretrained(CHECKPOINT).encoder_fingerprint)


def test_generate_names_the_encoder_that_it_expects(released_fingerprint):
    """Foreign vectors came back as fluent text, and nothing said that it was invented."""
    model = tiny_model(embedding_dim=384, encoder_id="owner/encoder")
    model.generate(normalize(random_vectors(4), dim=1))  # a model without a fingerprint cannot tell
    model.config.encoder_fingerprint = released_fingerprint.to_text()
    with pytest.warns(UserWarning, match=r"inverts vectors of owner/encoder; these look like random numbers"):
        model.generate(normalize(random_vectors(4), dim=1), num_steps=1)
    assert model.mismatch(torch.empty(0, 384)) is None
    with pytest.raises(ValueError, match="384"):
        model.mismatch(random_vectors(2, 256))


def test_training_takes_the_fingerprint_of_its_encoder(encoder, tmp_path):
    """A checkpoint without one, or with the one of the encoder that it was fine-tuned away from, warns wrongly."""
    texts = [f"{subject} {end}, {number} times" for subject in SUBJECTS for end in ENDINGS for number in range(6)]
    prepare(
        [Document(text, text) for text in texts], encoder, tmp_path / "pairs", length=16, validation_share=0.7,
        show_progress=False,
    )  # fmt: skip
    trunk = dict(model_type="bert", hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    config = TrainingConfig(
        output_dir=str(tmp_path / "run"), encoder=ENCODER, pairs=str(tmp_path / "pairs"), max_steps=1, batch_size=4,
        backbone_config=json.dumps(trunk), max_sequence_length=16, validation_size=150, generation_size=1,
    )  # fmt: skip
    trained = EmbInvConfig.from_pretrained(train(config))
    own = encoder.encode(texts[:40])
    assert Fingerprint.from_text(trained.encoder_fingerprint).mismatch(own) is None
    assert Fingerprint.from_text(trained.encoder_fingerprint).mismatch(own.roll(7, dims=1)) is not None


def test_a_fingerprint_that_fits_is_kept(own):
    """A small validation set of a later stage made a fingerprint that even the encoder's first token fits."""
    inherited = Fingerprint.of(own).to_text()
    assert fingerprint_of(own[:120], inherited) == inherited
    assert fingerprint_of(own[:50], None) is None
    rotated = own.roll(7, dims=1)
    assert fingerprint_of(rotated, inherited) == Fingerprint.of(rotated).to_text()
