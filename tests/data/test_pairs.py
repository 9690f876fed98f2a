"""Canvas rows, pairs on disk and spans on the fly, with the real all-MiniLM-L6-v2."""

import itertools
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from modeling_embinv.data.canvas import encode_canvas
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.pairs import check_pairs, load_pairs, read_manifest, write_shard
from modeling_embinv.data.prepare import prepare
from modeling_embinv.data.sources import SPLITS, Document, split_of
from modeling_embinv.data.spans import SpanSampler, TokenizedCorpus
from modeling_embinv.data.tokens import Vocabulary, tokenize
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.integrity_embinv import vocabulary_checksum
from modeling_embinv.texts_embinv import decode_rows
from tests.tiny_models import tiny_config, with_vocabulary

END = 102
WHO = ["The miller", "Her youngest aunt", "An unhurried postman", "Nobody at the observatory", "The ferryman's dog"]
DID = ["painted", "misunderstood", "never sold", "quietly rebuilt", "photographed"]
WHAT = ["the drawbridge", "a telescope", "three crates of oranges", "the church's bell-tower", "an unreadable map"]
WHEN = ["before dawn", "in 1974", "while it rained", "for 3.50 a day", "after the festival, they say"]
SENTENCES = [f"{' '.join(words)}." for words in itertools.product(WHO, DID, WHAT, WHEN)]
DOCUMENTS = [Document(text, text) for text in SENTENCES[::4]]
SHARES = {"validation_share": 0.2, "test_share": 0.1}


@pytest.fixture(scope="module")
def tokenizer(encoder):
    return encoder.tokenizer


@pytest.fixture(scope="module")
def vocabulary(encoder):
    return encoder.vocabulary


@pytest.fixture(scope="module")
def corpus(vocabulary):
    long = " ".join(SENTENCES[:6])
    documents = [Document(text, text) for text in [*SENTENCES, long, "Snowdrifts unquestionably disappeared", "Hm"]]
    return TokenizedCorpus.build(documents, vocabulary, validation_share=0.0)


def all_rows(folder):
    """Every row of a folder as {ids: (split, embedding)}."""
    rows = {}
    for split, count in read_manifest(folder)["rows"].items():
        if count:
            pairs = load_pairs(folder, split).with_format("numpy")[:]
            rows |= {
                tuple(i): (split, e) for i, e in zip(pairs["input_ids"].tolist(), pairs["embedding"], strict=True)
            }
    return rows


def shard_bytes(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.arrow"))}


# Canvas


def test_canvas_convention(tokenizer, vocabulary):
    """Catches [CLS] in a row, padding other than the end token, and an end token in a text that was cut."""
    texts = ["rain and snow", "one two three four", "one two three four five"]
    canvas = encode_canvas(vocabulary, texts, 4)
    words = [tokenizer.convert_ids_to_tokens(row) for row in canvas.input_ids]
    assert canvas.input_ids.dtype == torch.int64 and vocabulary.end == END
    assert words == [["rain", "and", "snow", "[SEP]"], *[["one", "two", "three", "four"]] * 2]
    assert canvas.texts == ["rain and snow", "one two three four", "one two three four"]
    assert encode_canvas(vocabulary, ["rain"], 4).input_ids.tolist() == [[4542, END, END, END]]


def test_rows_are_a_fixed_point(tokenizer, vocabulary):
    """Catches an encoder that is fed another text than the ids say: case, accents, punctuation, cuts inside words."""
    texts = [
        *SENTENCES,
        "Don't  re-use Élan's  U.S.A. e-mails (100%)! naïve",
        "价格是 5元",
        "supercalifragilistic " * 9,
    ]
    for length in (3, 8, 32):
        canvas = encode_canvas(vocabulary, texts, length)
        assert len(canvas.kept) > 0.98 * len(texts)
        again = encode_canvas(vocabulary, canvas.texts, length)
        assert again.texts == canvas.texts and torch.equal(again.input_ids, canvas.input_ids)
        assert decode_rows(tokenizer, canvas.input_ids, END) == canvas.texts


def test_unfaithful_texts_are_dropped(vocabulary):
    """Catches rows whose text lost something: unknown characters, special tokens written out, nothing at all."""
    texts = ["fine", "", "a \U0001f9ff b", "the [SEP] token", "  ", "also fine", "[MASK]"]
    canvas = encode_canvas(vocabulary, texts, 8)
    assert canvas.kept == [0, 5] and canvas.texts == ["fine", "also fine"]
    assert encode_canvas(vocabulary, [], 8).input_ids.shape == (0, 8)


def test_decode_stops_at_the_first_end(tokenizer):
    """Catches what stands after the end token leaking into the text."""
    cat, dog = tokenize(tokenizer, ["cat", "dog"])
    ids = torch.tensor([[*cat, END, *dog, END], cat + dog + cat + dog, [END] + dog * 3])
    assert decode_rows(tokenizer, ids, END) == ["cat", "cat dog cat dog", ""]


def test_encoding_leaves_no_truncation_behind(encoder):
    """Catches texts cut for good because the encoder's last call left its truncation in the shared tokenizer."""
    encoder.encode(["warm up"])
    assert len(tokenize(encoder.tokenizer, ["word " * 500])[0]) == 500


def bpe_tokenizer(mark):
    """A BPE tokenizer that marks word starts as sentencepiece ("▁") or byte-level BPE ("Ġ") does."""
    vocabulary = ["</s>", f"{mark}red", f"{mark}blue", "red", "der", "##", mark]
    model = models.BPE({token: i for i, token in enumerate(vocabulary)}, [])
    backend = Tokenizer(model)
    backend.add_special_tokens(["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


@pytest.mark.parametrize("mark", ["▁", "Ġ"])
def test_word_starts_of_the_other_families(mark):
    """Catches WordPiece's rule applied to vocabularies that merely contain "##"."""
    tokenizer = bpe_tokenizer(mark)
    assert Vocabulary(tokenizer).word_starts.tolist() == [False, True, True, False, False, False, True]
    assert Vocabulary(tokenizer).end == 0


def test_word_starts_of_wordpiece(tokenizer, vocabulary):
    """Catches continuations or special tokens taken for words."""
    starts = vocabulary.word_starts
    ids = tokenizer.convert_tokens_to_ids(["rain", "##ing", ",", "[SEP]", "[MASK]"])
    assert len(starts) == len(tokenizer) and starts[ids].tolist() == [True, False, True, False, False]


def test_byte_level_rows_are_a_fixed_point():
    """Catches a decoder that strips the space a byte-level token begins with, or keeps half a character."""
    backend = Tokenizer(
        models.BPE({token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder, backend.post_processor = decoders.ByteLevel(), processors.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    canvas = encode_canvas(Vocabulary(tokenizer), [" two  spaces", "Zoë", "雨雨"], 4)
    assert canvas.kept == [0, 1] and canvas.texts == [" two", "Zoë"]


# Splits


def test_split_is_a_function_of_the_key():
    """Catches splits that depend on order, on Python's hash seed, or on the share of another split."""
    keys = [f"document {i}" for i in range(4000)]
    splits = [split_of(key, 0.1, 0.05) for key in keys]
    assert splits[:12] == [split_of(key, 0.1, 0.05) for key in keys[:12]]
    shares = [splits.count(split) / len(keys) for split in SPLITS]
    assert np.allclose(shares, [0.85, 0.1, 0.05], atol=0.02)
    validation = {key for key in keys if split_of(key, 0.1) == "validation"}
    assert validation == {key for key, split in zip(keys, splits, strict=True) if split == "validation"}
    assert split_of("document 0", 0.0) == "train" and split_of("document 0", 1.0) == "validation"


@pytest.mark.parametrize("shares", [(float("nan"), 0.0), (0.1, float("nan")), (-0.1, 0.2), (0.7, 0.6)])
def test_impossible_shares_are_one_line(shares):
    """Of NaN no document was held out, and nobody was told."""
    with pytest.raises(
        EmbInvError, match="validation_share and test_share must be at least 0, and at most 1 together"
    ):
        split_of("key", *shares)


def test_split_never_changes():
    """Catches a new hash that would move texts of published test sets into training."""
    assert [split_of(f"key {i}", 0.3, 0.3) for i in range(6)] == [
        "train",
        "validation",
        "train",
        "test",
        "train",
        "train",
    ]


# Pairs on disk


def test_pairs_hold_what_the_encoder_saw(tmp_path, encoder):
    """Catches ids and vectors out of step, lost rows, and types that load back as something else."""
    manifest = prepare(DOCUMENTS, encoder, tmp_path / "pairs", length=16, batch_size=32, shard_size=50, **SHARES)
    assert manifest == read_manifest(tmp_path / "pairs") and manifest["complete"]
    assert manifest["documents"] == sum(manifest["rows"].values()) == len(DOCUMENTS)
    assert manifest["encoder_id"] == encoder.config.id and manifest["length"] == 16
    assert manifest["embedding_dim"] == 384 and manifest["end_token_id"] == END
    for split in SPLITS:
        pairs = load_pairs(tmp_path / "pairs", split)
        assert len(pairs) == manifest["rows"][split] > 0 and pairs.cache_files
        rows = pairs.with_format("torch")[:]
        assert rows["input_ids"].shape == (len(pairs), 16) and not rows["input_ids"].is_floating_point()
        texts = decode_rows(encoder.tokenizer, rows["input_ids"], END)
        difference = encoder.encode(texts) - rows["embedding"].float()
        assert difference.abs().max() < 1e-3
    assert len(manifest["shards"]["train"]) > 1


def test_splits_do_not_depend_on_order(tmp_path, encoder):
    """Catches a held-out text that becomes a training text when the corpus is shuffled or grows."""
    arguments = {"encoder": encoder, "length": 16, "show_progress": False} | SHARES
    prepare(DOCUMENTS[:60], out_dir=tmp_path / "a", **arguments)
    prepare(DOCUMENTS[80::-1], out_dir=tmp_path / "b", **arguments)
    first, second = all_rows(tmp_path / "a"), all_rows(tmp_path / "b")
    assert set(first) < set(second) and all(second[ids][0] == first[ids][0] for ids in first)


def test_pieces_of_a_document_stay_together(tmp_path, encoder):
    """Catches pieces of one document in two splits, and text lost between them; no two documents share a word here."""
    words = [word for word in encoder.tokenizer.get_vocab() if word.isascii() and word.isalpha() and len(word) > 4]
    books = [sorted(words)[i * 60 : i * 60 + 60] for i in range(12)]
    documents = [Document(f"book {i}", " ".join(book)) for i, book in enumerate(books)]
    first = prepare(documents, encoder, tmp_path / "first", length=12, **SHARES)
    assert sum(first["rows"].values()) == 12
    every = prepare(documents, encoder, tmp_path / "all", length=12, spans_per_document="all", **SHARES)
    assert sum(every["rows"].values()) == 12 * 60 / 12 and every["rows"]["validation"] > 0
    rows = all_rows(tmp_path / "all")
    for document, book in zip(documents, books, strict=True):
        ids = set(encoder.tokenizer.convert_tokens_to_ids(book))
        splits = [split for row, (split, _) in rows.items() if ids & set(row)]
        assert splits == [split_of(document.key, *SHARES.values())] * 5


def test_pieces_begin_at_words(tmp_path, encoder):
    """Catches a piece that begins with "##ly": its text would be tokenized differently and be dropped or wrong."""
    text = " ".join(f"unquestionably misremembered {sentence}" for sentence in SENTENCES[:40:2])
    manifest = prepare([(text, text)], encoder, tmp_path, length=7, spans_per_document="all", validation_share=0)
    starts = encoder.vocabulary.word_starts
    assert all(starts[row[0]] for row in all_rows(tmp_path))
    assert manifest["rows"]["train"] > 30 and manifest["dropped"]["unfaithful"] < 5


def test_duplicates_are_written_once(tmp_path, encoder):
    """Catches a text that is in training and, by its other spelling, in the test set."""
    shouted = [Document(f"{text} again", text.upper()) for text, _, _ in DOCUMENTS[:30]]
    mixed = DOCUMENTS[:30] + shouted + DOCUMENTS[:30]
    manifest = prepare(mixed, encoder, tmp_path, length=16, batch_size=16, shard_size=16, **SHARES)
    assert sum(manifest["rows"].values()) == len(all_rows(tmp_path)) == 30
    assert manifest["dropped"]["duplicate"] == 60


def killed_after(documents, count):
    yield from documents[:count]
    raise KeyboardInterrupt


@pytest.mark.parametrize("spans", ["first", "all"])
def test_resume_equals_an_uninterrupted_run(tmp_path, encoder, spans):
    """Catches lost or doubled rows after a kill, duplicates forgotten by it, and documents embedded twice."""
    long = [Document(f"long {i}", " ".join(SENTENCES[i : i + 9])) for i in range(0, 40, 9)]
    documents = [*DOCUMENTS[:40], *long, *DOCUMENTS[20:90]]
    arguments = {"encoder": encoder, "length": 16, "batch_size": 8, "shard_size": 20, "spans_per_document": spans}
    before = encoder.calls
    whole = prepare(documents, out_dir=tmp_path / "whole", **arguments, **SHARES)
    needed = encoder.calls - before
    for kill in (10, 55, 56, 90):
        with pytest.raises(KeyboardInterrupt):
            prepare(killed_after(documents, kill), out_dir=tmp_path / "parts", **arguments, **SHARES)
    finished = read_manifest(tmp_path / "parts")
    assert not finished["complete"] and 0 < finished["documents"] < len(documents)
    before = encoder.calls
    assert prepare(documents, out_dir=tmp_path / "parts", **arguments, **SHARES) == whole
    assert encoder.calls - before == needed - sum(finished["rows"].values())
    assert shard_bytes(tmp_path / "parts") == shard_bytes(tmp_path / "whole")
    before = encoder.calls
    assert prepare(documents, out_dir=tmp_path / "parts", **arguments, **SHARES) == whole
    assert encoder.calls == before


def test_kill_while_a_shard_is_written(tmp_path, encoder, monkeypatch):
    """Catches a half-written shard that counts, or that blocks the next call."""
    arguments = {"encoder": encoder, "length": 16, "batch_size": 8, "shard_size": 20}
    whole = prepare(DOCUMENTS[:60], out_dir=tmp_path / "whole", **arguments)
    writes = itertools.count()

    def die(source, target):
        if next(writes) == 3:
            raise KeyboardInterrupt
        source.rename(target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", die)
        prepare(DOCUMENTS[:60], out_dir=tmp_path / "parts", **arguments)
    with pytest.raises(ValueError, match="is not finished"):
        load_pairs(tmp_path / "parts")
    assert prepare(DOCUMENTS[:60], out_dir=tmp_path / "parts", **arguments) == whole
    assert shard_bytes(tmp_path / "parts") == shard_bytes(tmp_path / "whole")


def test_a_second_run_is_refused_while_the_first_writes(tmp_path, encoder):
    """Two runs of one command wrote the same shards, each over the other's."""
    arguments = {"encoder": encoder, "length": 16, "batch_size": 8, "shard_size": 20}
    whole = prepare(DOCUMENTS[:60], out_dir=tmp_path / "whole", **arguments)

    def documents():
        yield from DOCUMENTS[:50]
        with pytest.raises(EmbInvError, match="another run is writing there"):
            prepare(DOCUMENTS[:60], out_dir=tmp_path / "twice", **arguments)
        yield from DOCUMENTS[50:60]

    assert prepare(documents(), out_dir=tmp_path / "twice", **arguments) == whole
    names = [sorted(path.name for path in (tmp_path / folder).rglob("*")) for folder in ("whole", "twice")]
    assert names[0] == names[1]


def test_other_arguments_or_documents_are_an_error(tmp_path, encoder):
    """Catches one folder that silently mixes two canvas lengths, two encoders or two corpora."""
    arguments = {"length": 16, "batch_size": 8, "shard_size": 20}
    with pytest.raises(KeyboardInterrupt):
        prepare(killed_after(DOCUMENTS, 50), encoder, tmp_path, **arguments)
    with pytest.raises(ValueError, match="other arguments: length was 16, now 12; shard_size was 20, now 30"):
        prepare(DOCUMENTS, encoder, tmp_path, length=12, batch_size=8, shard_size=30)
    prompted = load_encoder(EncoderConfig(encoder.config.id, prompt="query: "))
    with pytest.raises(ValueError, match="encoder_prompt was None, now query: "):
        prepare(DOCUMENTS, prompted, tmp_path, **arguments)
    for documents in (DOCUMENTS[1:], DOCUMENTS[:10]):
        with pytest.raises(ValueError, match="begun with other documents"):
            prepare(documents, encoder, tmp_path, **arguments)


@pytest.fixture(scope="module")
def swapped(encoder, tmp_path_factory):
    """The same encoder with a tokenizer in which two words have each other's ids."""
    folder = tmp_path_factory.mktemp("swapped")
    encoder.tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    words = content["model"]["vocab"]
    words["never"], words["before"] = words["before"], words["never"]
    path.write_text(json.dumps(content), encoding="utf-8")
    return load_encoder(EncoderConfig(encoder.config.id, tokenizer=str(folder)))


def set_manifest(folder, without=(), **values):
    """Changes the manifest of a folder."""
    manifest = json.loads((folder / "manifest.json").read_text()) | values
    for key in without:
        del manifest[key]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_another_tokenizer_is_an_error(tmp_path, encoder, swapped):
    """A folder that was begun with one tokenizer and resumed with another mixed the ids of both in silence."""
    arguments = {"length": 16, "batch_size": 8, "shard_size": 20}
    for folder in ("new", "old"):
        with pytest.raises(KeyboardInterrupt):
            prepare(killed_after(DOCUMENTS, 50), encoder, tmp_path / folder, **arguments)
    with pytest.raises(EmbInvError, match="other arguments: vocabulary was 30522-[0-9a-f]+, now 30522-"):
        prepare(DOCUMENTS, swapped, tmp_path / "new", **arguments)
    set_manifest(tmp_path / "old", without=["vocabulary"])  # of a version that did not note it
    finished = prepare(DOCUMENTS, encoder, tmp_path / "new", **arguments)
    assert prepare(DOCUMENTS, encoder, tmp_path / "old", **arguments) == finished
    with pytest.raises(EmbInvError, match="other arguments: vocabulary was"):
        prepare(DOCUMENTS, swapped, tmp_path / "new", **arguments)


def inverter_config(encoder, vocabulary=None, **facts):
    """The configuration of an inverter of this encoder's vectors."""
    checksums = {"vocabulary": vocabulary or vocabulary_checksum(encoder.tokenizer)}
    ids = {"mask_token_id": 103, "eos_token_id": END}
    sizes = with_vocabulary(30522) | {"embedding_dim": 384, "encoder_id": encoder.config.id, "checksums": checksums}
    return tiny_config(**sizes | ids | facts)


def test_pairs_of_another_tokenizer_are_refused(tmp_path, encoder, swapped):
    """Ids of another tokenizer, whose end token is the same, were scored and fitted as if they were the model's."""
    prepare(DOCUMENTS[:10], swapped, tmp_path, length=16, show_progress=False)
    check_pairs(tmp_path, inverter_config(swapped))
    check_pairs(tmp_path, inverter_config(encoder, checksums=None))  # of a version that noted none
    with pytest.raises(EmbInvError, match="prepared with vocabulary 30522-[0-9a-f]+, the model has 30522-"):
        check_pairs(tmp_path, inverter_config(encoder))
    set_manifest(tmp_path, without=["vocabulary"])
    check_pairs(tmp_path, inverter_config(encoder))


def test_a_mask_that_the_inverter_added_is_no_other_tokenizer(tmp_path, encoder):
    """An inverter of a tokenizer without [MASK] has one token more than its pairs, which are its own all the same."""
    prepare(DOCUMENTS[:10], encoder, tmp_path, length=16, show_progress=False)
    grown = with_vocabulary(30523) | {"vocabulary": "30523-0123456789abcdef"}
    check_pairs(tmp_path, inverter_config(encoder, **grown, mask_token_id=30522))
    with pytest.raises(EmbInvError, match="prepared with vocabulary 30522-.*the model has 30523-"):
        check_pairs(tmp_path, inverter_config(encoder, **grown))


@pytest.mark.parametrize("name, value", [("prompt", "query: "), ("revision", "v1"), ("id", "some/encoder")])
def test_pairs_of_another_prompt_or_revision_are_refused(tmp_path, encoder, name, value):
    """Vectors of texts behind another prompt were scored, and a good calibration was fitted anew on them."""
    prepare(DOCUMENTS[:10], encoder, tmp_path, length=16, show_progress=False)
    key, own = f"encoder_{name}", getattr(encoder.config, name)
    with pytest.raises(EmbInvError, match=f"prepared with {key} {own}, the model has {value}"):
        check_pairs(tmp_path, inverter_config(encoder, **{key: value}))
    set_manifest(tmp_path, without=[key])  # of a version that did not note it
    check_pairs(tmp_path, inverter_config(encoder, **{key: value}))


def test_a_finished_folder_is_compared(tmp_path, encoder):
    """Texts that were given later for a finished folder were never read, and the call seemed to succeed."""
    arguments = {"encoder": encoder, "out_dir": tmp_path, "length": 16, "show_progress": False}
    first, before = prepare(DOCUMENTS[:20], **arguments), encoder.calls
    for documents in (DOCUMENTS[20:40], DOCUMENTS[:10], []):
        with pytest.raises(EmbInvError, match="begun with other documents: the first 20 must be the same"):
            prepare(documents, **arguments)
    with pytest.raises(EmbInvError, match="is finished with 20 documents, and more are given"):
        prepare(DOCUMENTS[:21], **arguments)
    assert prepare(DOCUMENTS[:20], **arguments) == first and encoder.calls == before


def test_other_vectors_are_an_error(tmp_path, encoder):
    """A run that was resumed with another column of vectors trained on a mixture of both."""
    vectors = np.random.default_rng(2).normal(size=(60, 384)).astype(np.float32)
    good, bad = (
        [Document(one.key, one.text, sign * vector) for one, vector in zip(DOCUMENTS[:60], vectors, strict=True)]
        for sign in (1, -1)
    )
    arguments = {"encoder": encoder, "length": 16, "batch_size": 8, "shard_size": 20}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their lengths
        for folder in ("new", "old"):
            with pytest.raises(KeyboardInterrupt):
                prepare(killed_after(good, 50), out_dir=tmp_path / folder, **arguments)
        for documents in (bad, DOCUMENTS[:60]):
            with pytest.raises(EmbInvError, match="begun with other vectors: the first 40 must be the same"):
                prepare(documents, out_dir=tmp_path / "new", **arguments)
        manifest = tmp_path / "old" / "manifest.json"  # of a version that kept no digest of the vectors
        old = json.loads(manifest.read_text())
        del old["vectors_digest"]
        manifest.write_text(json.dumps(old))
        assert prepare(good, out_dir=tmp_path / "old", **arguments) == prepare(
            good, out_dir=tmp_path / "new", **arguments
        )
    assert shard_bytes(tmp_path / "old") == shard_bytes(tmp_path / "new")


def test_bad_calls(tmp_path, encoder):
    """Catches arguments that fail after hours, or make an empty or silently cut data set."""
    for arguments, message in (
        ({"length": 64}, "beyond the encoder's max_length 32"),
        ({"spans_per_document": "some"}, '"first" or "all"'),
        ({"validation_share": 0.9, "test_share": 0.2}, "not parts of a whole"),
        ({"shard_size": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare(DOCUMENTS, encoder, tmp_path / "new", **arguments)
    for documents in ([], [Document("a", "")], [Document("a", "[SEP]")]):
        with pytest.raises(ValueError, match=f"{len(documents)} documents gave no row"):
            prepare(documents, encoder, tmp_path / "new")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        prepare(DOCUMENTS, encoder, tmp_path)


def test_a_kill_in_the_first_write_does_not_spoil_the_folder(tmp_path, encoder):
    """Half of the first manifest counted as "other files": the same call was refused for good."""
    (tmp_path / "manifest.json.partial").write_text('{"format_ver')
    manifest = prepare(DOCUMENTS[:5], encoder, tmp_path, length=16, show_progress=False)
    assert manifest["complete"] and not (tmp_path / "manifest.json.partial").exists()


def test_an_encoder_by_its_other_name_goes_on(tmp_path, encoder):
    """all-MiniLM-L6-v2 with and without its organisation counted as two encoders."""
    first = prepare(DOCUMENTS[:5], encoder, tmp_path, length=16, show_progress=False)
    bare = load_encoder("all-MiniLM-L6-v2")
    assert prepare(DOCUMENTS[:5], bare, tmp_path, length=16, show_progress=False) == first


def test_given_vectors_replace_the_encoder(tmp_path, encoder):
    """Catches vectors beside the wrong texts, needless encoder calls, and a cut text with its full vector."""
    vectors = np.random.default_rng(1).normal(size=(21, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    documents = [Document(d.key, d.text, vector) for d, vector in zip(DOCUMENTS[:20], vectors, strict=False)]
    long = Document("long", " ".join(SENTENCES[:9]), vectors[20])
    before = encoder.calls
    manifest = prepare([*documents, long, DOCUMENTS[30]], encoder, tmp_path / "pairs", validation_share=0)
    assert encoder.calls - before == 1 and manifest["dropped"]["too_long"] == 1
    pairs = load_pairs(tmp_path / "pairs").with_format("numpy")[:]
    assert len(pairs["embedding"]) == 21 and np.allclose(pairs["embedding"][:20], vectors[:20], atol=1e-3)
    texts = decode_rows(encoder.tokenizer, torch.as_tensor(pairs["input_ids"]), END)
    assert texts == encode_canvas(encoder.vocabulary, [d.text for d in [*documents, DOCUMENTS[30]]], 32).texts
    for bad, message in ((vectors[0][:100], r"shape \(batch, 384\)"), (vectors[0] * np.nan, "holds NaN")):
        with pytest.raises(ValueError, match=f"the vector of 'a text': .*{message}"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prepare([Document("a", "a text", bad)], encoder, tmp_path / "bad")


def test_empty_texts_are_counted_apart(tmp_path, encoder):
    """Rows of a store without a text were "unfaithful", as if the tokenizer were at fault."""
    vectors = np.eye(4, 384, dtype=np.float32)
    texts = ["", "A red kite.", " \n", ""]
    documents = [Document(text, text, vector) for text, vector in zip(texts, vectors, strict=True)]
    manifest = prepare(documents, encoder, tmp_path / "pairs", validation_share=0)
    assert manifest["rows"]["train"] == 1
    assert manifest["dropped"] == {"unfaithful": 0, "duplicate": 0, "too_long": 0, "empty": 3}
    with pytest.raises(
        EmbInvError, match="^2 documents gave no row: all texts are empty; name their column with --text-column$"
    ):
        prepare([documents[0], documents[2]], encoder, tmp_path / "none")


def test_a_folder_without_a_count_of_empty_texts_goes_on(tmp_path, encoder):
    """A folder that an older version began could not be finished."""
    documents = [*DOCUMENTS[:20], Document("", "")]
    with pytest.raises(KeyboardInterrupt):
        prepare(killed_after(documents, 16), encoder, tmp_path, shard_size=8, batch_size=8, length=16)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["dropped"]["empty"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert prepare(documents, encoder, tmp_path, shard_size=8, batch_size=8, length=16)["dropped"]["empty"] == 1


def test_loading_what_is_not_there(tmp_path, encoder):
    """Catches library tracebacks for a missing folder, split or shard."""
    prepare(DOCUMENTS[:10], encoder, tmp_path / "pairs", validation_share=0)
    for folder, split, message in (
        ("none", "train", "holds no manifest.json"),
        ("pairs", "validation", "no rows in split 'validation'; present: train"),
        ("pairs", "dev", "no rows in split 'dev'"),
    ):
        with pytest.raises(ValueError, match=message):
            load_pairs(tmp_path / folder, split)
    shard = tmp_path / "pairs" / "train" / "shard-00000.arrow"
    shard.write_bytes(b"ARROW1" * 20)
    with pytest.raises(EmbInvError, match=r"shard-00000.arrow: corrupt"):
        load_pairs(tmp_path / "pairs")
    shard.unlink()
    with pytest.raises(ValueError, match="shard-00000.arrow is missing"):
        load_pairs(tmp_path / "pairs")
    manifest = tmp_path / "pairs" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format_version": 0}))
    with pytest.raises(ValueError, match="format version 0; this software reads 1"):
        read_manifest(tmp_path / "pairs")
    manifest.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        read_manifest(tmp_path / "pairs")


def begun(encoder, folder):
    """A folder that was begun and not finished, its shards and the arguments to go on with."""
    arguments = {"encoder": encoder, "out_dir": folder, "length": 16, "batch_size": 8, "shard_size": 20}
    with pytest.raises(KeyboardInterrupt):
        prepare(killed_after(DOCUMENTS, 50), **arguments)
    return arguments, sorted(folder.rglob("*.arrow"))


def test_a_missing_shard_is_noticed_when_the_folder_is_prepared_again(tmp_path, encoder):
    """Loading said to prepare the folder again, which did nothing as the manifest says complete."""
    arguments, shards = begun(encoder, tmp_path)
    message = f"{shards[0].name} is missing: delete {tmp_path} and run its `embinv prepare` again"
    content = shards[0].read_bytes()
    shards[0].unlink()
    with pytest.raises(EmbInvError, match=message):
        prepare(DOCUMENTS, **arguments)
    shards[0].write_bytes(content)
    assert prepare(DOCUMENTS, **arguments)["complete"]
    shards[0].unlink()
    for call in (lambda: prepare(DOCUMENTS, **arguments), lambda: load_pairs(tmp_path)):
        with pytest.raises(EmbInvError, match=message):
            call()


@pytest.mark.parametrize("size", [0.0, 0.3, 0.5, 0.9])
def test_a_cut_shard_is_named_by_a_resumed_run(tmp_path, encoder, size):
    """A shard that a power cut or a full disk left cut ended the resumed run in a line that names no file."""
    arguments, shards = begun(encoder, tmp_path)
    content = shards[0].read_bytes()
    shards[0].write_bytes(content[: int(size * len(content))])
    with pytest.raises(EmbInvError, match=rf"{shards[0].name}: corrupt.*: delete {tmp_path} and run") as error:
        prepare(DOCUMENTS, **arguments)
    assert "\n" not in str(error.value)


def test_rows_that_a_shard_lost_are_noticed(tmp_path, encoder):
    """A shard that was cut between two batches reads as a shorter one: rows were missing and none was told."""
    arguments, shards = begun(encoder, tmp_path)
    rows, embeddings = [[END] * 16], np.zeros((1, 384), np.float16)
    whole = shards[0].read_bytes()
    write_shard(shards[0], np.array(rows, np.int32), embeddings)
    message = rf"train holds \d+ rows in place of \d+: delete {tmp_path} and run its `embinv prepare` again"
    with pytest.raises(EmbInvError, match=message):
        prepare(DOCUMENTS, **arguments)
    shards[0].write_bytes(whole)
    prepare(DOCUMENTS, **arguments)
    write_shard(shards[0], np.array(rows, np.int32), embeddings)
    with pytest.raises(EmbInvError, match=message):
        load_pairs(tmp_path)


@pytest.mark.parametrize(
    "changed, names", [({"rows": [3]}, "rows"), ({"length": "a", "shards": None}, "length, shards")], ids=str
)
def test_a_manifest_of_other_types_is_named(tmp_path, encoder, changed, names):
    """A manifest of whole JSON that lost a key, or holds another type, ended in a traceback that names no file."""
    prepare(DOCUMENTS[:10], encoder, tmp_path, length=16, show_progress=False)
    message = rf"manifest.json: {names} .*: delete {tmp_path} and run its `embinv prepare` again"
    set_manifest(tmp_path, **changed)
    with pytest.raises(EmbInvError, match=message):
        load_pairs(tmp_path)
    set_manifest(tmp_path, without=changed)
    with pytest.raises(EmbInvError, match=message):
        load_pairs(tmp_path)


def test_a_manifest_that_cannot_be_read_says_what_works(tmp_path, encoder):
    """The line said to prepare the folder again, which ended in the same line."""
    prepare(DOCUMENTS[:10], encoder, tmp_path, length=16, show_progress=False)
    manifest = tmp_path / "manifest.json"
    for content in (json.dumps({"format_version": 0}), "{"):
        manifest.write_text(content)
        with pytest.raises(EmbInvError, match=f"delete {tmp_path} and run its `embinv prepare` again"):
            prepare(DOCUMENTS[:10], encoder, tmp_path, length=16, show_progress=False)


# Spans on the fly


def test_corpus_holds_its_split(tokenizer, vocabulary):
    """Catches held-out documents among the spans, and ids that differ from the tokenizer's own."""
    texts = {}
    for split in ("train", "validation"):
        corpus = TokenizedCorpus.build(DOCUMENTS, vocabulary, split=split, validation_share=0.3)
        rows = [corpus.ids[corpus.offsets[i] : corpus.offsets[i + 1]].tolist() for i in range(len(corpus))]
        texts[split] = [d.text for d in DOCUMENTS if split_of(d.key, 0.3) == split]
        assert rows == tokenizer(texts[split], add_special_tokens=False)["input_ids"]
    assert len(texts["train"]) + len(texts["validation"]) == len(DOCUMENTS)


def test_corpus_trains_on_nothing_that_reads_like_a_held_out_text(vocabulary):
    """A line that differs from a held-out one in letter case alone was trained on; to the encoder they are one."""
    loud = [Document(d.text.upper(), d.text.upper()) for d in DOCUMENTS]
    of = {
        split: TokenizedCorpus.build([*DOCUMENTS, *loud], vocabulary, split=split, **SHARES)
        for split in ("train", "validation", "test")
    }
    rows = {
        split: [corpus.ids[a:b].tobytes() for a, b in itertools.pairwise(corpus.offsets)]
        for split, corpus in of.items()
    }
    held_out = {*rows["validation"], *rows["test"]}
    assert held_out.isdisjoint(rows["train"])
    # nothing else is left out, and the splits themselves are what they were
    assert len({*rows["train"], *held_out}) == len(DOCUMENTS)
    count = sum(split_of(d.key, **SHARES) == "validation" for d in [*DOCUMENTS, *loud])
    assert len(of["validation"]) == count


def test_corpus_without_unknown_or_special_tokens(tokenizer, vocabulary):
    """Catches an end token in the middle of a row, and text that is lost on the way to the encoder."""
    documents = [(text, text) for text in ("a fine day", "the [SEP] token", "a \U0001f9ff b", "", "more rain")]
    corpus = TokenizedCorpus.build(documents, vocabulary, validation_share=0)
    assert tokenizer.decode(corpus.ids) == "a fine day more rain" and corpus.offsets.tolist() == [0, 3, 5]


def test_corpus_cache(tmp_path, tokenizer, vocabulary, encoder):
    """Catches a cache that is not used, is used for another tokenizer or split, or is left half-written."""

    def refuse():
        raise AssertionError("the documents were read again")
        yield

    arguments = {"vocabulary": vocabulary, "cache_dir": tmp_path / "cache", "validation_share": 0.3}
    built = TokenizedCorpus.build(DOCUMENTS, **arguments)
    encoder.encode(["leaves its truncation in the tokenizer"])
    loaded = TokenizedCorpus.build(refuse(), **arguments)
    assert isinstance(loaded.ids, np.memmap) and np.array_equal(loaded.ids, built.ids)
    assert np.array_equal(loaded.offsets, built.offsets)
    plain = TokenizedCorpus.build(DOCUMENTS, vocabulary, validation_share=0.3)
    assert np.array_equal(plain.ids, built.ids)
    for changed in (
        {"split": "validation"},
        {"validation_share": 0.2},
        {"vocabulary": Vocabulary(bpe_tokenizer("Ġ"))},
    ):
        with pytest.raises(AssertionError, match="read again"):
            TokenizedCorpus.build(refuse(), **arguments | changed)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    with pytest.raises(ValueError, match="no text fell into split 'test'"):
        TokenizedCorpus.build(DOCUMENTS, **arguments, split="test")
    with pytest.raises(ValueError, match="no split 'dev'"):
        TokenizedCorpus.build(DOCUMENTS, **arguments, split="dev")


def test_why_a_split_is_empty_is_told(vocabulary):
    """Of thirty texts none was held out, and the line spoke of unknown tokens and of a share that training has not."""
    train, held_out = (
        next(key for key in map(str, range(99)) if split_of(key, 0.5, 0) == name) for name in SPLITS[:2]
    )
    kite, marked = "A red kite.", "A [SEP] kite."
    for documents, split, said in (
        ([Document(train, kite)], "validation", "no text fell into split 'validation', .* give more texts"),
        (
            [Document(train, marked)],
            "train",
            "split 'train' .* each of 1 is empty, or has an unknown or special token",
        ),
        ([Document(train, kite), Document(held_out, "a red KITE.")], "train", "each of 1 reads like a held-out text"),
    ):
        with pytest.raises(EmbInvError, match=said) as error:
            TokenizedCorpus.build(documents, vocabulary, split=split, validation_share=0.5)
        assert "another share" not in str(error.value)


def test_a_split_without_rows_says_how_to_get_some(tmp_path, encoder):
    """`evaluate --split test` named the splits that there are, and not what makes the other one."""
    prepare(DOCUMENTS[:5], encoder, tmp_path, length=16, validation_share=0, show_progress=False)
    with pytest.raises(EmbInvError, match=r"no rows in split 'test'; present: train\. Prepare .* --test-share"):
        load_pairs(tmp_path, "test")


def test_the_folder_of_a_split_leads_to_the_one_above(tmp_path, encoder):
    """`calibrate data/mine/train` was told to make a folder that is there."""
    prepare(DOCUMENTS[:5], encoder, tmp_path / "mine", length=16, validation_share=0, show_progress=False)
    with pytest.raises(EmbInvError, match=rf"train is a split of prepared pairs: give {tmp_path / 'mine'}\.$"):
        read_manifest(tmp_path / "mine" / "train")


@pytest.mark.parametrize("name", ["ids", "offsets"])
@pytest.mark.parametrize("size", [0, 100, -8])
def test_a_cut_corpus_cache_is_named(tmp_path, vocabulary, name, size):
    """Tokens that a full disk left cut ended every later run in a line that names no file."""
    TokenizedCorpus.build(DOCUMENTS, vocabulary, tmp_path)
    (path,) = tmp_path.glob(f"*/{name}.npy")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(EmbInvError, match=rf"{path.parent} is damaged \(.+\): delete it and run again") as error:
        TokenizedCorpus.build(DOCUMENTS, vocabulary, tmp_path)
    assert "\n" not in str(error.value)


def test_batches_repeat(corpus):
    """Catches a resumed run that sees other rows than an uninterrupted one, or the same rows in every batch."""
    first = SpanSampler(corpus, 16, seed=3)
    rows = [first.batch(i, 64) for i in range(3)]
    resumed = SpanSampler(corpus, 16, seed=3)
    assert torch.equal(resumed.batch(2, 64), rows[2]) and torch.equal(resumed.batch(0, 64), rows[0])
    assert not torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], SpanSampler(corpus, 16, 4).batch(0, 64))
    assert rows[0].shape == (64, 16) and rows[0].dtype == torch.int64


@pytest.mark.parametrize("canvas", [None, 12, 5])
def test_spans_are_whole_words(corpus, tokenizer, vocabulary, canvas):
    """Catches spans that begin inside a word or run into the next document, and rows the encoder reads differently."""
    sampler = SpanSampler(corpus, 20, seed=0, whole_share=0)
    rows = torch.cat([sampler.batch(i, 256, canvas) for i in range(4)])
    assert corpus.vocabulary.word_starts[rows[:, 0]].all()
    texts = decode_rows(tokenizer, rows, END)
    faithful = encode_canvas(vocabulary, texts, rows.shape[1])
    assert len(faithful.kept) > 0.99 * len(rows) and torch.equal(faithful.input_ids, rows[faithful.kept])
    known = encode_canvas(
        vocabulary, [*SENTENCES, " ".join(SENTENCES[:6]), "Snowdrifts unquestionably disappeared"], 99
    )
    everything = " | ".join(known.texts)
    assert all(text in everything for text in texts)
    lengths = (rows != END).sum(1)
    assert lengths.min() >= 3 and len(lengths.unique()) >= min(rows.shape[1] - 2, 10)


def test_whole_documents(corpus, tokenizer, vocabulary):
    """Catches a document that is cut early, or an end token after a text that goes on."""
    rows = SpanSampler(corpus, 20, seed=0, whole_share=1).batch(0, 20_000)
    sentences = encode_canvas(vocabulary, SENTENCES, 20)
    expected = {tuple(row) for row in sentences.input_ids.tolist()}
    expected |= {tuple(tokenize(tokenizer, [" ".join(SENTENCES[:6])])[0][:20])}
    expected |= {tuple(encode_canvas(vocabulary, ["Snowdrifts unquestionably disappeared"], 20).input_ids[0].tolist())}
    assert {tuple(row) for row in rows.tolist()} == expected


@pytest.mark.parametrize("whole_share", [0.0, 0.5, 1.0])
def test_canvas_holds_no_longer_text(corpus, whole_share):
    """Catches a small canvas that shows cut documents as if they were complete."""
    sampler = SpanSampler(corpus, 20, seed=1, whole_share=whole_share)
    rows = sampler.batch(0, 3000, canvas=9)
    assert rows.shape == (3000, 9)
    ends = rows == END
    assert torch.equal(ends, ends.cummax(dim=1).values)
    if whole_share == 1:
        lengths = np.diff(corpus.offsets)
        assert ends[:, -1].all() and (~ends).sum(1).min() >= 3 and (~ends).sum(1).max() == lengths[lengths < 9].max()
    if whole_share == 0:
        assert not ends.all(dim=1).any() and not ends[:, :3].any()


def test_spans_of_a_sentencepiece_tokenizer():
    """Catches spans that read back differently where words are marked at their beginning, as in XLM-R and E5."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    corpus = TokenizedCorpus.build(DOCUMENTS, Vocabulary(tokenizer), validation_share=0)
    rows = SpanSampler(corpus, 24, seed=0).batch(0, 500)
    faithful = encode_canvas(Vocabulary(tokenizer), decode_rows(tokenizer, rows, Vocabulary(tokenizer).end), 24)
    assert len(faithful.kept) == 500 and torch.equal(faithful.input_ids, rows)


def test_canvas_that_no_document_fits(vocabulary):
    """Catches an empty draw where every document is longer than the canvas: spans take their place."""
    corpus = TokenizedCorpus.build([Document("a", SENTENCES[0])], vocabulary, validation_share=0)
    rows = SpanSampler(corpus, 16, seed=0, whole_share=1).batch(0, 50, canvas=4)
    assert corpus.vocabulary.word_starts[rows[:, 0]].all() and (rows[:, :3] != END).all()


def test_bad_sampler_arguments(corpus, vocabulary):
    """Catches settings that would give rows of nothing, or of another width than the model's."""
    for arguments, message in (
        ({"min_tokens": 0}, "min_tokens must be between 1 and the length 16"),
        ({"min_tokens": 17}, "min_tokens"),
        ({"whole_share": 2}, "whole_share must be"),
    ):
        with pytest.raises(ValueError, match=message):
            SpanSampler(corpus, 16, 0, **arguments)
    with pytest.raises(ValueError, match="none of the 1 documents has 3 tokens"):
        SpanSampler(TokenizedCorpus.build([("a", "Hm")], vocabulary, validation_share=0), 16, 0)
    for canvas in (2, 17):
        with pytest.raises(ValueError, match="canvas must be between 3 and 16 tokens"):
            SpanSampler(corpus, 16, 0).batch(0, 4, canvas)


def function_calls(call) -> int:
    """How many functions, Python's own and those in C, are called within a call."""
    events = []
    sys.setprofile(lambda frame, event, argument: events.append(event))
    try:
        call()
    finally:
        sys.setprofile(None)
    return sum(event in ("call", "c_call") for event in events)


def test_no_loop_over_rows(corpus):
    """Catches a loop over rows, which would leave a GPU waiting: a batch of any size takes the same calls."""
    sampler = SpanSampler(corpus, 32, seed=0)
    few, many = (function_calls(lambda size=size: sampler.batch(0, size)) for size in (4, 4000))
    assert few > 0 and many <= few + 10
