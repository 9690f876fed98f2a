"""What the commands share: the flags of a model, of its sampler and of its encoder."""

import argparse
from pathlib import Path

CHECKPOINT = Path(__file__).parent.parent / "checkpoints" / "embinv-minilm"
SAMPLER = (
    "strategy", "num_steps", "guidance_scale", "temperature", "remask_ratio", "max_length", "num_candidates",
    "num_corrections", "num_hops", "num_searches",
)  # fmt: skip


def add_model_folder(parser: argparse.ArgumentParser):
    parser.add_argument(
        "--model", default=str(CHECKPOINT), help="folder or Hub id (user/name@revision) of an inverter"
    )
    parser.add_argument("--device", help="cpu, cuda, mps; this process's accelerator by default")
    parser.add_argument("--batch_size", type=int, default=64, help="vectors at a time")
    parser.add_argument("--int8", action="store_true", help="matrix products in int8, about twice as fast on a CPU")


def add_model(parser: argparse.ArgumentParser, sweep: bool = False):
    """Flags of the model and its sampler; with `sweep`, each takes several values, to run every combination."""
    add_model_folder(parser)
    group = parser.add_argument_group("generation", "several values: every combination is tried" if sweep else None)
    several = {"nargs": "+"} if sweep else {}
    group.add_argument(
        "--strategy", help="sequential, euler, euler_remask, confidence, two_stage or autoregressive", **several
    )
    group.add_argument("--num_steps", type=int, help="forward passes at most", **several)
    group.add_argument("--guidance_scale", type=float, help="1 is none", **several)
    group.add_argument("--temperature", type=float, help="0 takes the most likely token", **several)
    group.add_argument("--remask_ratio", type=float, help="share that euler_remask opens again", **several)
    group.add_argument("--max_length", type=int, help="tokens at most", **several)
    group.add_argument("--num_candidates", type=int, help="texts a vector, of which the best is kept", **several)
    group.add_argument("--num_corrections", type=int, help="rounds of corrections; they need --feedback", **several)
    group.add_argument("--num_hops", type=int, help="edits of edits, before the encoder is asked", **several)
    group.add_argument("--num_searches", type=int, help="searches of vectors that no text has reached", **several)
    feedback = "what checks them: the encoder that made the vectors, or the model's own stand-in for it"
    group.add_argument("--feedback", choices=("none", "surrogate", "encoder"), help=feedback, **several)
    if not sweep:
        group.add_argument("--seed", type=int, default=0, help="of sampling")


def sampler_settings(options) -> dict:
    """The sampler's settings that were given, feedback apart."""
    return {name: getattr(options, name) for name in SAMPLER if getattr(options, name) is not None}


def load_model(options):
    from transformers.utils import logging

    from .allocator import keep_large_blocks
    from .backbone import load_inverter
    from .inversion import process_state

    keep_large_blocks()
    logging.disable_progress_bar()
    model, tokenizer = load_inverter(options.model)
    model = model.to(options.device or process_state().device).eval()
    return model.to_int8() if options.int8 else model, tokenizer


def encoder_of(model, options):
    """The encoder that the model names, or `--encoder`: it embeds texts and measures cosines, and never inverts."""
    from .encoders import EncoderConfig, load_encoder

    config = model.config
    if options.encoder is None and config.encoder_id is None:
        raise ValueError(f"{options.model} names no encoder; give its YAML with --encoder.")
    named = (config.encoder_id, config.encoder_revision, config.encoder_prompt, config.max_sequence_length)
    return load_encoder(options.encoder or EncoderConfig(*named), device=model.device)


def feedback_of(model, options, encoder=None):
    """`generate`'s feedback that the flag names; the encoder, if it is not there yet, is loaded only for that."""
    if options.feedback == "encoder":
        return (encoder or encoder_of(model, options)).encode
    return "surrogate" if options.feedback == "surrogate" else None


def add_encoder(parser: argparse.ArgumentParser):
    parser.add_argument("--encoder", help="YAML or folder of the encoder, when not the one that the model names")
