"""Training for real, at tiny size: resume, two processes, over-fitting, damaged folders, settings."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from modeling_embinv import EmbInvConfig
from modeling_embinv.cli.main import main
from modeling_embinv.data.batches import PairBatches
from modeling_embinv.data.canvas import encode_canvas
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.noise import Noise, canvas_length, noise_batch
from modeling_embinv.data.pairs import load_pairs
from modeling_embinv.data.tokens import Vocabulary
from modeling_embinv.diffusion_embinv import NoiseSchedule
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.loading import load_inverter
from modeling_embinv.runtime import generator_for
from modeling_embinv.training import checkpoints, loop, run_model
from modeling_embinv.training.arguments import parse_training_config
from modeling_embinv.training.assemble import train
from modeling_embinv.training.backbone import new_inverter, prepare_tokenizer
from modeling_embinv.training.bag_of_words import bag_of_words_loss
from modeling_embinv.training.config import TrainingConfig
from modeling_embinv.training.optimizers import new_optimizers
from modeling_embinv.training.validation import ValidationSet, generation_scores
from tests.tiny_models import tiny_model
from tests.training.tiny_runs import ROOT, SENTENCES, TINY_TRUNK, in_two_forks, log, settings, small_tokenizer, weights


def test_resume_equals_no_interruption(pairs, tmp_path):
    """Order, noise, schedule, optimizer and EMA must all continue: any one restarted gives other weights."""
    whole = train(settings(pairs, tmp_path / "whole"))
    train(settings(pairs, tmp_path / "parts", max_steps=3))
    parts = train(settings(pairs, tmp_path / "parts", max_steps=6))
    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(parts)[name]), name
    same = ("step", "train/loss", "train/grad_norm", "train/learning_rate")
    assert [[line[key] for key in same] for line in log(tmp_path / "whole")] == [
        [line[key] for key in same] for line in log(tmp_path / "parts")
    ]


@pytest.mark.slow
def test_distillation_resumes_and_trains_the_surrogate_alone(pairs, tmp_path):
    """The last stage must not touch what those before have learned, and go on where it was killed."""
    start = train(settings(pairs, tmp_path / "start", max_steps=1))
    third = dict(init_from=str(start), backbone_config=None, surrogate_rank=4, surrogate_table=True)
    third |= dict(eval_steps=2, canvas_lengths=None)
    whole = weights(train(settings(pairs, tmp_path / "whole", **third)))
    train(settings(pairs, tmp_path / "parts", max_steps=3, **third))
    parts = weights(train(settings(pairs, tmp_path / "parts", **third)))
    for name, weight in weights(start).items():
        assert torch.equal(weight, whole[name]), name
    assert all(torch.equal(weight, parts[name]) for name, weight in whole.items())
    assert whole["surrogate.up.0"].abs().max() > 0 and whole["surrogate.table.weight"].abs().max() > 0
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    # nor what the inverter was trained on, which `generate` goes by
    assert EmbInvConfig.from_pretrained(tmp_path / "whole" / "last").canvas_lengths == [8, 16]
    scores = [line for line in lines if "validation/surrogate_cosine" in line]
    assert len(scores) == 3 and all(-1 <= line["validation/rank_correlation"] <= 1 for line in scores)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"loss_weight": "none"},
        {"surrogate_rank": 4},
        {"causal_share": 1.0, "num_condition_tokens": 1, "optimizer": "muon"},
    ],
    ids=str,
)
def test_accumulation_equals_two_processes(pairs, tmp_path, flags):
    """Two processes end where one does that accumulates the same two micro-batches.

    They do not with the same noise, a schedule stepped once per process, or gradients that are not averaged; a log of
    the main process alone shows half of the loss.
    """
    config = settings(pairs, tmp_path / "one", gradient_accumulation_steps=2, max_steps=4, **flags)
    one = train(config)
    in_two_forks(replace(config, output_dir=str(tmp_path / "two"), gradient_accumulation_steps=1))
    two = weights(tmp_path / "two" / "last")
    for name, weight in weights(one).items():
        assert torch.allclose(weight.float(), two[name].float(), atol=2e-3), name
    rates = [[line["train/learning_rate"] for line in log(tmp_path / folder)] for folder in ("one", "two")]
    assert rates[0] == rates[1]
    kind = "train/loss_causal" if flags.get("causal_share") else "train/loss"
    losses = [[line[kind] for line in log(tmp_path / folder)] for folder in ("one", "two")]
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.slow
def test_a_handful_of_sentences_is_over_fitted(encoder):
    """Conditioning, masking, loss and decoding together: if any is broken, eight sentences cannot be learned."""
    tokenizer = small_tokenizer(encoder)
    torch.manual_seed(0)
    trunk = {**TINY_TRUNK, "hidden_size": 64, "intermediate_size": 128}
    model = new_inverter(tokenizer, trunk, embedding_dim=384, max_sequence_length=12)
    canvas = encode_canvas(Vocabulary(tokenizer), SENTENCES, 12)
    embedding = encoder.encode(canvas.texts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(150):
        noise = Noise(NoiseSchedule(), model.config.mask_token_id, model.config.eos_token_id, full_mask_share=0.2)
        batch = noise_batch(canvas.input_ids, embedding, noise, generator_for(step))
        loss = model(
            batch.noised_ids, embedding, batch.timestep, positions=batch.positions, targets=batch.targets
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held = ValidationSet(canvas.input_ids, embedding, len(SENTENCES), NoiseSchedule())
    for strategy in ("confidence", "sequential", "euler"):
        scores, texts = generation_scores(model.eval(), tokenizer, encoder, held, strategy=strategy, temperature=0.0)
        assert scores["exact"] == 100 and scores["token_accuracy"] == 100, texts
        assert scores["cosine"] > 0.999


def test_bag_of_words_learns_words(encoder):
    """The warm-up must reach the head through the projector, and touch no weight of the trunk.

    Training the tied token embeddings along with it left a trunk that ignored its context.
    """
    tokenizer = prepare_tokenizer(encoder.tokenizer)
    model = new_inverter(tokenizer, TINY_TRUNK, embedding_dim=384, max_sequence_length=12)
    canvas = encode_canvas(Vocabulary(tokenizer), SENTENCES, 12)
    embedding = encoder.encode(canvas.texts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(30):
        loss = bag_of_words_loss(model, canvas.input_ids, embedding)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 2
    assert all(weight.grad is None for weight in model.trunk.parameters())


def test_checkpoints_are_pruned_and_a_torn_one_is_named(pairs, tmp_path):
    """Hundreds of checkpoints fill a disk; an unreadable one must not be skipped in silence."""
    train(settings(pairs, tmp_path, save_steps=1, keep_checkpoints=2))
    kept = checkpoints.checkpoints(tmp_path)
    assert [path.name for path in kept] == ["step-000000005", "step-000000006"]
    file = kept[-1] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(OSError, match="cannot resume from .*step-000000006.*choose another output_dir.*delete it"):
        train(settings(pairs, tmp_path, max_steps=8))


@pytest.mark.parametrize("damage", ["truncated", "pickled"])
def test_damaged_model_folders_are_named(pairs, tmp_path, damage):
    """Pickle runs code; a truncated download must say so in one line."""
    folder = train(settings(pairs, tmp_path, max_steps=1))
    file = folder / "model.safetensors"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    else:
        torch.save(load_file(file), folder / "pytorch_model.bin")
        file.unlink()
    with pytest.raises(OSError, match="is not a readable inverter") as error:
        load_inverter(folder)
    assert "\n" not in str(error.value)


def test_export_loads_with_the_average_in_half_the_bytes(pairs, tmp_path):
    """Exporting the raw weights instead of their average loses the reason to keep one.

    Half-precision arithmetic on a CPU would be slow.
    """
    folder = train(settings(pairs, tmp_path, max_steps=2, ema_decay=0.9))
    model, tokenizer = load_inverter(folder)
    assert {weight.dtype for weight in weights(folder).values()} == {torch.float16}
    assert model.dtype == torch.float32 and tokenizer.mask_token_id == model.config.mask_token_id
    raw = load_file(tmp_path / "step-000000002" / "model.safetensors")
    assert not torch.allclose(raw["modulation.weight"], model.modulation.weight, atol=1e-6)
    assert model.config.encoder_id == "sentence-transformers/all-MiniLM-L6-v2"


def test_ema_follows_its_formula():
    """Without warm-up, 0.9999 keeps the random start for ten thousand steps; in bf16 small updates vanish."""
    layer = torch.nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    layer.weight.data.fill_(0.0)
    ema = checkpoints.EMA(layer, 0.9999)
    expected = 0.0
    for step in range(5):
        layer.weight.data.fill_(1.0)
        ema.update()
        decay = min(0.9999, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay)
    assert ema.average[0].dtype == torch.float32 and float(ema.average[0]) == pytest.approx(expected, rel=1e-6)
    with ema.applied():
        assert float(layer.weight.detach()) == pytest.approx(expected, rel=1e-2)
    assert float(layer.weight.detach()) == 1.0


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_token_embeddings_have_their_own_rate(pairs, tmp_path, share):
    """One step of Adam moves a weight by its rate: a group that lost its own rate moves ten times as far."""
    start = train(settings(pairs, tmp_path / "start", max_steps=1, learning_rate=1e-9))
    flags = dict(backbone_config=None, init_from=str(start), max_steps=1, learning_rate=1e-2, warmup_steps=0)
    moved = train(settings(pairs, tmp_path / "moved", embedding_rate=share, weight_decay=0.0, ema_decay=0.0, **flags))
    name = "trunk.embeddings.word_embeddings.weight"
    step = (weights(moved)[name].float() - weights(start)[name].float()).abs().max()
    assert step == pytest.approx(1e-2 * share, rel=0.05, abs=1e-6)


def test_learning_rate_has_its_shape(tmp_path):
    """A schedule that is stepped per process or per micro-batch ends early."""
    config = TrainingConfig(
        output_dir="x",
        encoder="y",
        pairs="z",
        backbone="encoder",
        warmup_steps=10,
        max_steps=110,
        lr_scheduler="cosine",
    )
    factors = [config.rates().factor(step) for step in (0, 9, 10, 60, 110)]
    assert factors == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.0], abs=1e-9)
    constant = replace(config, lr_scheduler="constant")
    assert [constant.rates().factor(step) for step in (9, 60, 110)] == [1.0, 1.0, 1.0]
    falling = replace(constant, decay_steps=40)
    factors = [falling.rates().factor(step) for step in (0, 60, 70, 90, 109, 110)]
    assert factors == pytest.approx([0.1, 1.0, 1.0, 0.5, 1 / 40, 0.0], abs=1e-9)
    with pytest.raises(EmbInvError, match="decay_steps is for a constant rate"):
        replace(config, decay_steps=40)


def test_a_run_is_released_and_goes_on(pairs, tmp_path):
    """A decay that is baked into a run's schedule ends it; a copy of its checkpoint must fall while it goes on."""
    constant = dict(warmup_steps=1, save_steps=4)
    train(settings(pairs, tmp_path / "run", max_steps=4, **constant))
    shutil.copytree(tmp_path / "run" / "step-000000004", tmp_path / "released" / "step-000000004")
    train(settings(pairs, tmp_path / "released", max_steps=8, decay_steps=4, **constant))
    train(settings(pairs, tmp_path / "run", max_steps=8, **constant))
    rates = [[line["train/learning_rate"] for line in log(tmp_path / name)] for name in ("released", "run")]
    assert rates[0] == pytest.approx([0.75e-3, 0.5e-3, 0.25e-3, 0.0])  # of the update after each line
    assert rates[1][-4:] == pytest.approx([1e-3] * 4)


def test_muon_has_the_matrices_of_the_layers_and_resumes(pairs, tmp_path):
    """A weight in both optimizers is moved twice, one in none never; a resume must restore both."""
    run = dict(optimizer="muon", max_steps=4, save_steps=2)
    whole = train(settings(pairs, tmp_path / "whole", **run))
    train(settings(pairs, tmp_path / "parts", **{**run, "max_steps": 2}))
    parts = train(settings(pairs, tmp_path / "parts", **run))
    assert all(torch.equal(weight, weights(parts)[name]) for name, weight in weights(whole).items())
    model, _ = load_inverter(whole)
    adamw, muon = new_optimizers(model, settings(pairs, tmp_path, **run).rates())
    owners = Counter(id(weight) for part in (adamw, muon) for group in part.param_groups for weight in group["params"])
    assert owners == Counter(id(weight) for weight in model.parameters())
    matrices = {id(weight) for weight in model.trunk.layers.parameters() if weight.ndim == 2}
    assert {id(weight) for group in muon.param_groups for weight in group["params"]} == matrices


def test_a_tracker_that_is_not_installed_is_named(pairs, tmp_path):
    """accelerate left it out in silence: a run of days without the log that was asked for."""
    with pytest.raises(EmbInvError, match="comet_ml not installed"):
        train(settings(pairs, tmp_path, trackers=["jsonl", "comet_ml"], max_steps=1))


@pytest.mark.parametrize("source", ["texts", "pairs"])
def test_canvases_that_no_batch_fits_are_told_at_once(pairs, tmp_path, source):
    """A run ended at the first update that drew the short canvas, perhaps after hours."""
    (tmp_path / "texts.txt").write_text(
        "\n".join(f"{sentence} It was day {day}." for day in range(40) for sentence in SENTENCES)
    )
    given = {"pairs": None, "texts": [str(tmp_path / "texts.txt")]} if source == "texts" else {}
    config = settings(pairs, tmp_path / "out", canvas_lengths=[2, 16], **given)
    with pytest.raises(EmbInvError, match="canvas (of 2 tokens|must be between 3 and 16)"):
        train(config)
    assert not (tmp_path / "out" / "log.jsonl").exists()


@pytest.mark.parametrize("kind", ["causal", "surrogate", "one canvas"])
def test_canvases_must_fit_the_largest_batch(pairs, tmp_path, kind):
    """Complementary masks halve the texts of masked batches alone: one of another kind ended the run later."""
    lengths = PairBatches(load_pairs(pairs, "train"), end=102, seed=0).needed
    canvas = 16 if kind == "one canvas" else int(np.median(lengths))
    fitting, canvases = int((lengths <= canvas).sum()), None if kind == "one canvas" else [canvas, 16]
    given = {"surrogate_rank": 4} if kind == "surrogate" else {"causal_share": 0.01, "num_condition_tokens": 1}
    flags = dict(complementary_masks=True, loss_weight="none", canvas_lengths=canvases, **given)
    with pytest.raises(EmbInvError, match=f"{fitting} texts fit a canvas of {canvas} tokens"):
        train(settings(pairs, tmp_path / "out", batch_size=2 * (fitting // 2 + 1), **flags))
    assert not (tmp_path / "out" / "log.jsonl").exists()


def test_a_warm_up_of_too_large_batches_is_told_at_once(pairs, tmp_path):
    """The message advised a lower batch_size, which is another setting, and came after the trunk was loaded."""
    config = settings(pairs, tmp_path / "out", bag_of_words_steps=2, bag_of_words_batch_size=4096)
    with pytest.raises(EmbInvError, match="fewer than a batch of 4096.*bag_of_words_batch_size"):
        train(config)
    assert not (tmp_path / "out" / "log.jsonl").exists()


def test_a_folder_of_an_encoders_name_is_not_its_yaml(tmp_path, monkeypatch):
    """A folder `minilm`, of results perhaps, beside the YAML or where the run starts: no encoder was found."""
    (tmp_path / "minilm").mkdir()
    (tmp_path / "run.yaml").write_text("encoder: minilm\noutput_dir: out\npairs: p\nbackbone: encoder\n")
    config = parse_training_config([str(tmp_path / "run.yaml")])
    assert config.encoder == "minilm"
    monkeypatch.chdir(tmp_path)
    assert EncoderConfig.from_yaml(config.encoder).id.endswith("all-MiniLM-L6-v2")


def test_canvas_lengths_are_drawn_without_looking_at_texts(pairs):
    """Batches padded to their longest text teach the model to read the length off the canvas: then it never stops."""
    picks = [canvas_length([8, 16], 0, update) for update in range(600)]
    assert picks == [canvas_length([8, 16], 0, update) for update in range(600)]
    assert picks.count(8) / 600 == pytest.approx(2 / 3, abs=0.06)
    batches = PairBatches(load_pairs(pairs, "train"), 102, seed=0)
    longest, short = batches.batch(0, 8, 16)[0], batches.batch(0, 8, 8)[0]
    assert longest.shape == (8, 16) and short.shape == (8, 8)
    needed = torch.as_tensor(batches.needed)
    assert needed.min() < 8 < needed.max()
    epoch = torch.cat([batches.batch(i, 4, 16)[0] for i in range(len(needed) // 4)])
    assert len(epoch.unique(dim=0)) == len(epoch)  # no text twice in an epoch
    drawn = (epoch != 102).sum(dim=1).float().mean()
    everything = (torch.as_tensor(batches.pairs[:]["input_ids"]) != 102).sum(dim=1).float().mean()
    assert float(drawn) == pytest.approx(float(everything), rel=0.1)  # the long canvas holds all lengths


def test_spans_are_embedded_on_the_fly(pairs, tmp_path):
    """A text file alone must do, and resume as exactly as prepared pairs; trackers get every setting."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"Ship number {i} sailed to the harbour with {i * 3} crates.\n" for i in range(300)))
    source = dict(pairs=None, texts=[str(text)], token_cache=str(tmp_path / "cache"), save_steps=2, validation_size=2)
    whole = train(settings(pairs, tmp_path / "whole", **source, max_steps=4, trackers=["jsonl", "tensorboard"]))
    train(settings(pairs, tmp_path / "parts", **source, max_steps=2))
    parts = train(settings(pairs, tmp_path / "parts", **source, max_steps=4))
    assert all(torch.equal(weight, weights(parts)[name]) for name, weight in weights(whole).items())
    assert list((tmp_path / "whole").rglob("events.out.tfevents*"))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    # a cache that does not look at the texts would train on those of before; nothing generated is nothing scored
    text.write_text("".join(f"Cart {i} rolled down the hill to farm {i * 5}.\n" for i in range(300)))
    train(settings(pairs, tmp_path / "others", **source, max_steps=1, generation_size=0))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_fine_tuning_starts_from_a_folder(pairs, tmp_path):
    """Starting from random weights in spite of --init_from would pass every other test."""
    first = train(settings(pairs, tmp_path / "first", max_steps=2))
    tuned = settings(
        pairs, tmp_path / "tuned", init_from=str(first), backbone_config=None, max_steps=1, learning_rate=0.0,
        weight_decay=0.0, freeze_backbone=True,
    )  # fmt: skip
    for name, weight in weights(train(tuned)).items():
        assert torch.equal(weight, weights(first)[name]), name


def test_fine_tuning_for_another_encoder_renews_the_projector_alone(pairs, tmp_path):
    """A new width must not throw the trunk away, and what is saved must name the encoder that it now inverts."""
    first = train(settings(pairs, tmp_path / "first", max_steps=2, noise_schedule="cosine"))
    vectors = torch.nn.functional.normalize(torch.randn(120, 24, generator=generator_for(0)), dim=1)
    table = pa.table({"text": [f"A text of number {i}." for i in range(120)], "embedding": vectors.tolist()})
    pq.write_table(table, tmp_path / "api.parquet")
    yaml = tmp_path / "api.yaml"
    yaml.write_text(f"# an API\nid: some/api\ntokenizer: {first}\nembedding_dim: 24\n")
    other = tmp_path / "pairs"
    command = ["prepare", "--vectors", str(tmp_path / "api.parquet"), "--encoder", str(yaml), "--out", str(other)]
    assert main([*command, "--length", "16", "--validation_share", "0.2"]) == 0
    tuned = train(
        settings(
            other, tmp_path / "tuned", encoder=str(yaml), init_from=str(first), backbone_config=None, max_steps=1,
            learning_rate=0.0, weight_decay=0.0, batch_size=4,
        )
    )  # fmt: skip
    before, after = weights(first), weights(tuned)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if name.startswith("projector.")}
    model, _ = load_inverter(tuned)
    assert (model.config.embedding_dim, model.config.encoder_id) == (24, "some/api")
    assert model.config.noise_schedule == "cosine"
    corrector = dict(causal_share=0.5, correction_share=0.5, num_condition_tokens=2)
    with pytest.raises(ValueError, match="correction_share needs an encoder that embeds hypotheses"):
        train(settings(other, tmp_path / "no", encoder=str(yaml), **corrector))
    yaml.write_text(f"# an API\nid: some/api\ntokenizer: {foreign_tokenizer(tmp_path)}\nembedding_dim: 24\n")
    with pytest.raises(ValueError, match="another tokenizer than the inverter writes with"):
        train(settings(other, tmp_path / "no", encoder=str(yaml), init_from=str(first), backbone_config=None))


def foreign_tokenizer(folder) -> str:
    words = Tokenizer(models.WordLevel({"[EOS]": 0, "[UNK]": 1, "a": 2}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="[EOS]").save_pretrained(folder / "foreign")
    return str(folder / "foreign")


def test_scoring_part_of_the_tail_is_unbiased():
    """Fewer end tokens without their weight would teach the model that texts go on."""
    ids = torch.full((64, 12), 102)
    ids[:, :5] = 7
    masked, counted, scored = 0, torch.zeros(12), 0
    for seed in range(60):
        noise = Noise(NoiseSchedule(), 103, 102, tail_share=0.25)
        batch = noise_batch(ids, torch.zeros(64, 4), noise, generator_for(seed))
        masked, scored = masked + batch.masked.sum(dim=0), scored + len(batch.positions)
        counted.index_add_(0, batch.positions % 12, batch.position_weights)
    assert torch.allclose(counted, masked.float(), rtol=0.1)
    assert torch.equal(counted[:6], masked[:6].float())  # the text and its end are always scored
    assert scored < 0.7 * masked.sum()


def test_small_corpus_is_refused(pairs, tmp_path):
    """An endless wait or an empty epoch is no answer to a corpus smaller than a batch."""
    with pytest.raises(ValueError, match="fewer than a batch of 4000"):
        train(settings(pairs, tmp_path, batch_size=4000))


@pytest.mark.parametrize(
    "text, flags, message",
    [
        ("learning_rat: 1e-4", [], "unknown key 'learning_rat'"),
        ("max_steps: 5", ["--learning_rat", "1"], "unknown argument '--learning-rat'; did you mean --learning-rate"),
        ("max_steps: 0", [], "max_steps must be at least 1"),
        ("- 3", [], "must hold `key: value` lines"),
        ("canvas_lengths: [8, 16]", [], "max_sequence_length, 32, for the longest"),
        ("texts: [a.txt]", [], r"give either pairs .*, got pairs z and texts \['a.txt'\]"),
        ("mask_ratio: 0.4\nloss_weight: elbo", [], "no ELBO weight"),
    ],
)
def test_bad_training_settings_raise(tmp_path, text, flags, message):
    """A misspelt key that is ignored costs a day of training with defaults."""
    path = tmp_path / "run.yaml"
    base = "" if text.startswith("-") else "output_dir: x\nencoder: y\npairs: z\nbackbone: encoder\n"
    path.write_text(base + text + "\n")
    with pytest.raises(ValueError, match=message):
        parse_training_config([str(path), *flags])


def test_flags_override_the_yaml():
    """YAML 1.1 reads 1e-4 as text; flags come last."""
    config = parse_training_config(
        [str(ROOT / "configs/minilm_cpu.yaml"), "--max_steps", "7", "--learning_rate", "1e-4"]
    )
    assert config.max_steps == 7 and config.learning_rate == 1e-4 and config.trackers == ["jsonl"]
    assert EncoderConfig.from_yaml(config.encoder).id == "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_published_configs_parse(path):
    """A published experiment that does not start is no experiment."""
    config = parse_training_config([str(path)])
    assert config.max_steps > 0 and EncoderConfig.from_yaml(config.encoder).id


@pytest.mark.parametrize("rank", [4, 32])
def test_a_surrogate_of_the_encoders_own_layers_judges_what_the_encoder_reads(rank):
    """It was held to the canvas; one of low rank is right where it was trained alone, and must stay there."""
    model, other = tiny_model(), tiny_model(seed=1)
    encoder = SimpleNamespace(weights=dict(other.trunk.named_parameters()), longest=20)
    config = SimpleNamespace(surrogate_rank=rank, surrogate_table=True, word_head_size=0)
    run_model._only_part(model, config, SimpleNamespace(cls_token_id=7), encoder)
    assert model.config.longest_judged == (20 if rank == model.config.hidden_size else 11)


def test_the_speed_is_of_updates_alone(pairs, tmp_path, monkeypatch):
    """After a save between two log lines the time began anew, not the texts: four times the speed."""
    clock = SimpleNamespace(now=0.0)

    def taking(function, seconds):
        def timed(*args):
            clock.now += seconds
            return function(*args)

        return timed

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(loop, "kind_of_update", taking(loop.kind_of_update, 1))  # once an update
    monkeypatch.setattr(loop, "save_checkpoint", taking(loop.save_checkpoint, 100))
    train(settings(pairs, tmp_path, max_steps=12, log_steps=4, save_steps=3))
    assert [line["train/texts_per_second"] for line in log(tmp_path)] == [4, 4, 4]  # of batches of four
