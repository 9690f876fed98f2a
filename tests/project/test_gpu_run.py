"""A run on a rented GPU, rehearsed: what travels, what it weighs, and that training goes on and comes back."""

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gpu_run import corpus, machine, parcels
from gpu_run.back import curve, unpack
from gpu_run.batches import kind_of
from gpu_run.encoder import PackedEncoder
from gpu_run.hypotheses import changed, write, write_pool
from gpu_run.muon import BatchedMuon
from gpu_run.pack import UPLOADS, documents, pack
from gpu_run.rehearse import main as rehearse_main
from gpu_run.rehearse import rehearse
from gpu_run.run import STATE, GPURun
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from modeling_embinv.conditioning_embinv import Hypothesis
from modeling_embinv.correction_embinv import write_plainly
from modeling_embinv.data.sources import split_of
from modeling_embinv.data.spans import SpanSampler, TokenizedCorpus
from modeling_embinv.data.tokens import tokenize
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.loading import load_inverter
from modeling_embinv.training.config import TrainingConfig
from tests.tiny_models import awaken, unit_vectors

NOUNS = ("dog", "child", "king", "doctor", "bird", "teacher", "queen", "farmer", "sailor", "painter")
VERBS = ("sleeps", "sings", "waits", "reads", "runs")


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    often, once = folder / "often.txt", folder / "once.txt"
    often.write_text("".join(f"The {noun} {verb} near the old house.\n" for noun in NOUNS for verb in VERBS))
    once.write_text("".join(f"A {noun} and a bird, number {count}.\n" for noun in NOUNS for count in range(20)))
    config = TrainingConfig(
        output_dir="runs/gpu", encoder="minilm", texts=[str(often), str(once), str(often)], init_from="ignored",
        max_sequence_length=16, canvas_lengths=[8, 16], num_hidden_layers=1, num_condition_tokens=2,
        causal_share=0.4, correction_share=0.4,
        loss_weight="none", tail_share=0.5, full_mask_share=0.1,
        noise_schedule="linear", batch_size=8, warmup_steps=2, ema_decay=0.9, optimizer="muon", validation_size=4,
    )  # fmt: skip
    sizes = pack(config, folder / "out", seconds=1e9, decay_share=0.2, correction_start=0)
    return folder / "out", config, sizes


def on_disk(uploads, tmp_path):
    for name in UPLOADS:
        parcels.receive(uploads[0] / name, tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def tiny(uploads, tmp_path_factory):
    """The disk of a machine, with a narrow encoder."""
    return narrowed(on_disk(uploads, tmp_path_factory.mktemp("tiny")))


def narrowed(folder, **sizes):
    """The folder with an encoder of one narrow layer, which tells texts apart, in place of its own."""
    about = json.loads((folder / "encoder.json").read_text())
    about["backbone"] |= {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1}
    about["backbone"] |= sizes
    torch.manual_seed(0)
    network = BertModel(BertConfig(**about["backbone"]), add_pooling_layer=False)
    torch.nn.init.normal_(network.embeddings.word_embeddings.weight, std=0.5)
    save_file({name: weight.half() for name, weight in network.state_dict().items()}, folder / "encoder.safetensors")
    (folder / "encoder.json").write_text(json.dumps(about))
    return folder


def light(uploads, target):
    """Uploads of short texts and a narrow encoder, as held-out texts are drafted and embedded many times.

    Its table of positions makes the weights so large that they come back in two parts.
    """
    first, second = (target / name for name in UPLOADS)
    shutil.copytree(uploads, target)
    settings = json.loads((first / "run.json").read_text())
    settings["config"] |= {"max_sequence_length": 8, "canvas_lengths": [8]}
    (first / "run.json").write_text(json.dumps(settings))
    parcels.seal(narrowed(second, max_position_embeddings=300_000))
    return target


def copied(disk, target, **settings):
    """A disk for one test, with other settings of the run."""
    shutil.copytree(disk, target, dirs_exist_ok=True)
    run = json.loads((disk / "run.json").read_text())
    (target / "run.json").write_text(json.dumps(run | settings))
    return target


def test_a_corpus_comes_back_with_its_weights(uploads, encoder, tmp_path):
    """Ids that wrap at 16 bits, documents that shift by one, or a part that is no longer drawn more often."""
    _, config, _ = uploads
    disk = on_disk(uploads, tmp_path)
    found = corpus.load(disk, "train")
    often, once = (
        set(map(tuple, tokenize(encoder.tokenizer, Path(path).read_text().splitlines()))) for path in config.texts[:2]
    )
    borders = zip(found.offsets[:-1], found.offsets[1:], strict=True)
    counts = Counter(tuple(found.ids[begin:end].tolist()) for begin, end in borders)
    assert len(counts) >= 0.9 * len(often | once)  # the others are held out
    assert set(counts) <= often | once and all(count == (2 if text in often else 1) for text, count in counts.items())
    assert np.array_equal(found.vocabulary.word_starts, encoder.vocabulary.word_starts)
    assert found.vocabulary.end == encoder.vocabulary.end
    plain = TokenizedCorpus(found.ids, found.offsets, encoder.vocabulary)
    batches = [SpanSampler(one, 16, 0).batch(3, 8) for one in (found, plain)]
    assert torch.equal(*batches)
    large = SimpleNamespace(special=np.zeros(70_001, bool))
    with pytest.raises(EmbInvError, match="does not fit 16 bits"):
        corpus.save(tmp_path, "wide", [(TokenizedCorpus(np.array([5, 70_000]), np.array([0, 2]), large), 1)])


def test_a_held_out_text_is_trained_on_in_no_file(encoder, tmp_path):
    """The same text in another file and another letter case was trained on, and the scores of held-out texts rose."""
    lines = [f"The {number} ships sailed home from port {number + 7}." for number in range(300)]
    held_out = [line for line in lines if split_of(line, 0.01, 0.0) == "validation"]
    shouted = [line.upper() for line in lines if split_of(line.upper(), 0.01, 0.0) == "train"]
    assert held_out and len(shouted) > 250
    for name, texts in (("plain", lines), ("shouted", shouted)):
        (tmp_path / f"{name}.txt").write_text("\n".join(texts) + "\n")
    files = [str(tmp_path / f"{name}.txt") for name in ("plain", "shouted")]
    config = TrainingConfig(output_dir="runs/gpu", texts=files, encoder="minilm", backbone="encoder")
    pack(config, tmp_path / "packed", 10, 0.2)
    train, validation = (
        {row.tobytes() for row in documents(corpus.load(tmp_path / "packed" / "upload_1", split))}
        for split in ("train", "validation")
    )
    assert len(validation) == len(held_out) and train and not train & validation


def test_the_packed_encoder_gives_the_same_vectors(uploads, encoder, tmp_path):
    """A token in front that is missing, or padding that is averaged in, is another encoder."""
    disk = on_disk(uploads, tmp_path)
    packed, end = PackedEncoder(disk, torch.device("cpu")), encoder.vocabulary.end
    ids = SpanSampler(corpus.load(disk, "train"), 16, 0).batch(0, 32)
    cosines = (packed.encode_ids(ids, end) * encoder.encode_ids(ids)).sum(dim=1)
    assert cosines.min() > 0.99999


def test_damage_and_weight_are_seen(uploads, tmp_path):
    """An upload that was cut trains on half of the texts; one that is too large wastes a machine's start."""
    with pytest.raises(EmbInvError, match=r"holds no manifest.json: was it carried along"):
        parcels.receive(tmp_path, tmp_path / "disk")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (uploads[0] / UPLOADS[0]).iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    damaged = copy / "train.ids.xz"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(EmbInvError, match=r"train.ids.xz is missing or damaged"):
        parcels.receive(copy, tmp_path / "disk")
    assert parcels.check_upload(tmp_path / "none", copy) > 1000
    with (copy / "large").open("wb") as file:
        file.truncate(parcels.UPLOAD)
    with pytest.raises(EmbInvError, match="more than the 64 of one upload"):
        parcels.check_upload(tmp_path / "none", copy)
    parts = list(parcels.split(bytes(range(256)) * 10, 1000))
    assert b"".join(parts) == bytes(range(256)) * 10 and [len(part) for part in parts] == [1000, 1000, 560]


def test_a_run_goes_on_from_the_disk(tiny, tmp_path):
    """A second command that begins anew, or repeats the batches of the first, spends its minutes twice."""
    whole, parts = (copied(tiny, tmp_path / name) for name in ("whole", "parts"))
    reached = GPURun(whole).train(1e9, updates=6)
    assert reached["updates"] >= 6 and 0 < reached["nats_a_token_8"] < 20
    half = GPURun(parts).train(1e9, updates=2)["updates"]
    assert GPURun(parts).train(0.0)["of_this_command"] == 0  # no seconds, no update
    again = GPURun(parts)
    assert again.updates == half
    assert again.train(1e9, updates=reached["updates"] - half)["texts"] == reached["texts"] == 8 * reached["updates"]
    states = [torch.load(disk / STATE, weights_only=True) for disk in (whole, parts)]
    for name in ("model", "average"):
        assert all(torch.equal(one, other) for one, other in zip(states[0][name], states[1][name], strict=True))
    lines = [json.loads(line) for line in (parts / "log.jsonl").read_text().splitlines()]
    assert [line["updates"] for line in lines] == [half, half, reached["updates"]]


def test_a_run_ends_with_its_seconds(tiny, tmp_path):
    """A rate that falls by updates would still be high when the lease is over."""
    run, factors = GPURun(copied(tiny, tmp_path, seconds=100)), []
    for run.updates, run.spent in ((0, 0), (1, 1), (500, 79), (600, 90), (700, 99), (800, 101)):
        factors.append(run.rate_factor())
    assert factors == pytest.approx([0.5, 1, 1, 0.5, 0.05, 0])
    run.updates, run.spent = 5, 100
    assert run.train(1e9)["of_this_command"] == 0


def test_drafts_are_learned_before_corrections(tiny, tmp_path):
    """A corrector that learns from the drafts of an untrained model learns nothing that helps later."""
    disk = copied(tiny, tmp_path, correction_start=0.5)
    early, late = GPURun(disk), GPURun(disk)
    late.spent = 6e8
    early.log = late.log = lambda *_: None
    kinds = []
    for run in (early, late):
        run.update = lambda part, run=run: (kinds.append((run is late, kind_of(part))), stop(run))[1]
        run.train(1e9, updates=12)
    assert (False, "correction") not in kinds and (True, "correction") in kinds


def stop(run):
    """Counts an update without one."""
    run.updates += 1
    return torch.zeros(()), 0.0


def test_the_corrector_learns_in_a_share_of_the_updates(tiny, tmp_path):
    """A pool serves several updates: drawn as often as a batch, it would take most of the time."""
    run = GPURun(copied(tiny, tmp_path))
    run.train_texts.batch = lambda number, rows, canvas: torch.full((rows, canvas), 1000)
    counts = Counter()
    for number in range(600):
        kind, parts = run.batches.batch(number)
        counts[kind] += len(parts)
    shares = {kind: count / sum(counts.values()) for kind, count in counts.items()}
    assert shares == pytest.approx({"causal": 0.4, "correction": 0.4, "masked": 0.2}, abs=0.05)


def test_matrices_together_take_the_librarys_steps():
    """A rate that forgets a matrix's shape, or a transposed one, trains nothing or wrecks the trunk."""
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in ((8, 8), (16, 8), (8, 16), (16, 8))]
    ends = []
    for kind in (torch.optim.Muon, BatchedMuon):
        weights = [torch.nn.Parameter(weight.clone()) for weight in start]
        optimizer = kind(weights, lr=0.1, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")
        for step in range(3):
            for number, weight in enumerate(weights):
                weight.grad = torch.sin(weight.detach() * (step + number + 1))
            optimizer.step()
        ends.append(weights)
    for one, other, begin in zip(*ends, start, strict=True):
        assert (one - begin).norm() > 0.1
        assert (one - other).norm() < 0.02 * (one - begin).norm()  # products are in bf16


def test_texts_of_a_pool(tiny, tmp_path):
    """A cache that slips by a position writes other texts than the sampler does."""
    run = GPURun(copied(tiny, tmp_path))
    model, end = awaken(run.model.eval()), run.noise.end
    model.generation_config.suppress_tokens = None
    with torch.no_grad():  # so that some texts end early
        model.trunk.embeddings.word_embeddings.weight[end] *= 3
    ids = run.train_texts.batch(0, 64, 16)
    vectors = run.embed(ids)
    drafts = write(model, vectors, 16)
    assert len({row.index(end) if end in row else 16 for row in drafts.tolist()}) >= 5
    assert torch.equal(drafts, write_plainly(model, vectors, 16))
    hypothesis = Hypothesis(drafts, run.embed(drafts))
    corrected = write(model, vectors, 16, 0.0, hypothesis)
    assert torch.equal(corrected, model.correct(vectors, *hypothesis)) and not torch.equal(corrected, drafts)
    pool = write_pool(model, run.embed, ids, vectors)
    assert pool.ids.shape == ids.shape and model.training
    assert torch.equal(pool.vectors, run.embed(pool.ids))
    other = changed(model, ids, vectors)
    for mine, original in zip(other.tolist(), ids.tolist(), strict=True):
        length = mine.index(end) if end in mine else len(mine)
        assert set(mine[length:]) <= {end} and run.noise.mask not in mine
        assert 0 < length <= (original.index(end) if end in original else len(original))
    assert float((other != ids).any(dim=1).float().mean()) > 0.3


def test_a_deeper_trunk_repeats_the_encoders_layers(uploads, tmp_path):
    """Layers that start at random would have to be learned from nothing."""
    disk = on_disk(uploads, tmp_path)
    settings = json.loads((disk / "run.json").read_text())
    settings["config"]["num_hidden_layers"] = 8
    (disk / "run.json").write_text(json.dumps(settings))
    run = GPURun(disk)
    weights = run.model.trunk.state_dict()
    for layer in (0, 7):
        name = f"encoder.layer.{layer}.output.dense.weight"
        theirs = run.encoder.network.state_dict()[f"encoder.layer.{layer % 6}.output.dense.weight"]
        assert torch.equal(weights[name], theirs)


def test_weights_of_an_unfinished_run_are_told(tmp_path, monkeypatch):
    """The page's own commands sent the weights at half of the training, and no line said so."""
    monkeypatch.setattr(machine, "DISK", tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"seconds": 1465.0}))
    assert "0 of 1,465 seconds" in machine.unfinished()
    (tmp_path / "log.jsonl").write_text('{"spent": 560.1}\n{"spent": 680.2}\n{"updates": 9}\n')
    assert machine.unfinished().startswith("warning: 680 of 1,465 seconds are trained")
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"spent": 1465.3, "of": 1465.0}\n')
    assert not machine.unfinished()


def test_a_rehearsal_of_nothing_is_one_line(tmp_path, capsys):
    """A misspelt folder was a traceback of shutil."""
    assert rehearse_main([str(tmp_path)]) == 2
    assert "holds no upload_1: pack the uploads first" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_way(uploads, tmp_path):
    """Two uploads, two commands of training, the weights in parts, in a clean folder without the absent packages."""
    back = rehearse(light(uploads[0], tmp_path / "packed"), tmp_path, budget=1e6, updates=2)
    assert max(path.stat().st_size for path in back.iterdir()) <= parcels.PART
    folder = unpack([back], tmp_path / "model")
    later = shutil.copytree(back, tmp_path / "later")  # one part, frozen when training had gone on
    for path in sorted(later.glob("weights-*"))[1:]:
        path.unlink()
    (later / parcels.WHOLE).write_text(hashlib.sha256(b"trained for longer").hexdigest())
    with pytest.raises(EmbInvError, match="several --freeze, or damaged"):
        unpack([back, later], tmp_path / "mixed")
    log = (back / "log.jsonl").read_text().splitlines()
    lines = [json.dumps(json.loads(line) | {"nats_a_token_32": 3, "nats_a_token_16": 2.5}) for line in log]
    tables = curve(lines)
    assert tables["32 tokens"]["rows"].popitem()[1]["−log p a token"] == 3 and "16 tokens" in tables
    model, tokenizer = load_inverter(folder)
    state = torch.load(tmp_path / "disk" / STATE, weights_only=True)
    assert state["updates"] == 4
    live = [weight for weight in model.parameters() if weight.requires_grad]
    assert all(
        torch.equal(weight, average.half().float()) for weight, average in zip(live, state["average"], strict=True)
    )
    assert model.config.encoder_fingerprint
    model.config.encoder_fingerprint = None  # of so few texts it says little
    output = model.generate(unit_vectors(2, 32), strategy="autoregressive")
    assert tokenizer.batch_decode(output.sequences) and model.config.encoder_id.endswith("all-MiniLM-L6-v2")
    (back / sorted(path.name for path in back.glob("weights-*"))[1]).unlink()
    with pytest.raises(EmbInvError, match="missing: weights-01-of"):
        unpack([back], tmp_path / "model")
