"""A training run's parts: the model, the data, and which loop they go into."""

import dataclasses
import json
import logging
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from .allocator import keep_large_blocks
from .backbone import adopt_encoder, load_inverter, new_inverter, prepare_tokenizer
from .bag_of_words import warm_up_on_words
from .batches import PairBatches, SpanBatches, held_out_pairs
from .causal_embinv import check_prefix
from .data import load_pairs, read_manifest
from .distillation import Distillation
from .encoders import EncoderConfig, SentenceEncoder, load_encoder, packaged_folder
from .modeling_embinv import EmbInvForMaskedDiffusion
from .sources import read_texts
from .spans import SpanSampler, TokenizedCorpus
from .training_config import TrainingConfig
from .training_run import JSONLinesTracker, Run, learning_rate_factor, new_optimizer
from .validation import ValidationSet


def train(config: TrainingConfig) -> Path:
    """Train, validate, save and export; returns the folder of the last exported model.

    Raises:
        ValueError: for settings or data that do not fit together.
        OSError: for a checkpoint that cannot be read.
    """
    keep_large_blocks()
    # a sharp softmax is full of numbers below 1e-38, on which a CPU's multiplications take many times as long
    torch.set_flush_denormal(True)
    # tied weights are saved once, which accelerate would report at every checkpoint
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
    set_seed(config.seed)
    output_dir = Path(config.output_dir)
    trackers = [JSONLinesTracker(output_dir / "log.jsonl") if name == "jsonl" else name for name in config.trackers]
    accelerator = Accelerator(
        gradient_accumulation_steps=config.gradient_accumulation_steps, log_with=trackers, project_dir=str(output_dir)
    )
    accelerator.init_trackers("embinv", config=_plain(config))

    encoder = load_encoder(EncoderConfig.from_yaml(config.encoder), device=accelerator.device)
    model, tokenizer = build_model(config, encoder)
    batches, held_out = build_data(config, encoder, model)
    if config.bag_of_words_steps and not (config.resume and list(output_dir.glob("step-*"))):
        warm_up_on_words(model, batches, config, accelerator)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if config.compile:
        model.trunk.compile(dynamic=False)

    model, optimizer = accelerator.prepare(model, new_optimizer(model, config))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(config, step))
    stage = Distillation if config.surrogate_rank else Run
    run = stage(config, accelerator, model, tokenizer, encoder, optimizer, scheduler, batches, held_out)
    return run.loop()


def build_model(config: TrainingConfig, encoder: SentenceEncoder):
    """The inverter that a run starts from, and its tokenizer."""
    if config.max_sequence_length > encoder.config.max_length:
        raise ValueError(
            f"{encoder.config.id} is set to read {encoder.config.max_length} tokens (max_length in its YAML), "
            f"the canvas has {config.max_sequence_length}."
        )
    if config.init_from is not None:
        model, tokenizer = load_inverter(config.init_from, attn_implementation=config.attn_implementation)
        adopt_encoder(model, tokenizer, encoder)
        model.config.max_sequence_length = config.max_sequence_length
        if not config.surrogate_rank:  # that stage leaves the inverter as it is
            model.config.canvas_lengths = config.canvas_lengths
            model.config.causal_share = config.causal_share
        # noise of another kind than it knows would be a change that nobody asked for
        config.noise_schedule, config.noise_lambda = model.config.noise_schedule, model.config.noise_lambda
    else:
        tokenizer = prepare_tokenizer(encoder.tokenizer)
        backbone = json.loads(config.backbone_config) if config.backbone_config else config.backbone
        model = new_inverter(
            tokenizer,
            encoder.path if backbone == "encoder" else packaged_folder(backbone) or backbone,
            config.num_hidden_layers,
            embedding_dim=encoder.embedding_dim,
            max_sequence_length=config.max_sequence_length,
            canvas_lengths=config.canvas_lengths,
            num_condition_tokens=config.num_condition_tokens,
            causal_share=config.causal_share,
            noise_schedule=config.noise_schedule,
            noise_lambda=config.noise_lambda,
            encoder_id=encoder.config.id,
            encoder_revision=encoder.config.revision,
            encoder_prompt=encoder.config.prompt,
            attn_implementation=config.attn_implementation,
        )
    if config.causal_share:
        check_prefix(model.config)
    if config.surrogate_rank:
        model.add_surrogate(config.surrogate_rank, tokenizer.cls_token_id, encoder.weights)
        model.requires_grad_(False)
        model.surrogate.requires_grad_(True)
    if config.freeze_backbone:
        model.freeze_backbone()
    if config.embedding_rate == 0:
        model.get_input_embeddings().requires_grad_(False)
    return model.train(), tokenizer


def build_data(config: TrainingConfig, encoder: SentenceEncoder, model: EmbInvForMaskedDiffusion):
    """Training batches and the validation set: from prepared pairs, or spans that are embedded as training goes."""
    end = model.config.eos_token_id
    if config.pairs is not None:
        _check_manifest(read_manifest(config.pairs), config, encoder)
        batches = PairBatches(load_pairs(config.pairs, "train"), end, config.seed)
        ids, embedding = held_out_pairs(config.pairs, end, config.max_sequence_length, config.validation_size)
    else:
        cache = config.token_cache
        samplers = []
        for split in ("train", "validation"):
            documents = read_texts(config.texts, column=config.text_column)
            corpus = TokenizedCorpus.build(documents, encoder.tokenizer, cache, split)
            samplers.append(
                SpanSampler(corpus, config.max_sequence_length, config.seed, whole_share=config.whole_share)
            )
        batches = SpanBatches(samplers[0], encoder, end)
        ids, embedding = SpanBatches(samplers[1], encoder, end).batch(0, config.validation_size)
    return batches, ValidationSet(ids, embedding, config.generation_size, config.schedule)


def _check_manifest(manifest: dict, config: TrainingConfig, encoder: SentenceEncoder):
    if manifest["length"] < config.max_sequence_length:
        found, wanted = manifest["length"], config.max_sequence_length
        raise ValueError(f"{config.pairs} was prepared with length {found}, this run wants {wanted}.")
    wanted = {f"encoder_{key}": getattr(encoder.config, key) for key in ("id", "revision", "prompt", "task")}
    for name, value in wanted.items():
        if manifest[name] != value:
            raise ValueError(f"{config.pairs} was prepared with {name} {manifest[name]}, this run wants {value}.")


def _plain(config: TrainingConfig) -> dict:
    """Settings as values that every tracker takes."""
    values = dataclasses.asdict(config)
    values = {key: json.dumps(value) if isinstance(value, list) else value for key, value in values.items()}
    return {key: value for key, value in values.items() if value is not None}
