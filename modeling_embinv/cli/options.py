"""What the commands share: the flags of a model, of its sampler and of its encoder."""

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..data.flags import number
from ..errors_embinv import EmbInvError
from .checks import check_device, check_feedback_flag, check_model, check_sampler, check_seed

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "embinv-minilm"
# in a clone of the project the checkpoint lies beside the package; an installed package takes it from the Hub
MODEL = str(CHECKPOINT) if CHECKPOINT.is_dir() else "embinv/embinv-minilm"
SAMPLER = (
    "strategy", "num_steps", "guidance_scale", "temperature", "remask_ratio", "max_length", "num_candidates",
    "num_corrections", "num_hops", "num_searches",
)  # fmt: skip

# Of steps, candidates, rounds and the like; time and memory end long before.
LARGEST_COUNT = 65_536
# the type of a flag that counts texts or tokens
count = number(int, 1, 10**12)


def add_model_folder(parser: argparse.ArgumentParser):
    parser.add_argument("--model", default=MODEL, help="folder or Hub id (user/name@revision) of an inverter")
    parser.add_argument("--device", help="cpu, cuda, mps (default: this process's accelerator, else cpu)")
    parser.add_argument("--batch_size", type=number(int, 1, 65_536), default=64, help="vectors in one forward pass")
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
    """The sampler's settings that were given, feedback apart.

    Raises:
        EmbInvError: a count above `LARGEST_COUNT`.
    """
    given = {name: getattr(options, name) for name in SAMPLER if getattr(options, name) is not None}
    for name, values in given.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, int) and value > LARGEST_COUNT:
                raise EmbInvError(f"--{name} must be at most {LARGEST_COUNT:,}, got {value}")
    return given


def checked_settings(options: argparse.Namespace, sweep: bool = False) -> dict:
    """The sampler's settings that were given, after all flags of `add_model` that can be checked without the model.

    Args:
        options: with the flags of `add_model`.
        sweep: as of `add_model`; a sweep leaves out what does not fit together.

    Raises:
        EmbInvError: for the first impossible one.
    """
    check_model(options.model)
    if not sweep:
        check_feedback_flag(options)
        check_seed(options.seed)
    return sampler_settings(options)


def load_model(options: argparse.Namespace, settings: dict | None = None):
    """The model of `--model` on its device, and its tokenizer.

    Args:
        options: with the flags of `add_model_folder`.
        settings: of the sampler, which are checked first.

    Raises:
        EmbInvError: for an impossible device or setting, before anything is loaded.
        OSError: when there is no such model, or a damaged one.
    """
    from ..loading import load_inverter
    from ..runtime import prepare_process, process_state

    check_sampler(settings or {})
    device = check_device(options.device) if options.device else process_state().device
    with prepare_process():
        model, tokenizer = load_inverter(options.model)
    model = model.to(device).eval()
    return model.to_int8() if options.int8 else model, tokenizer


@contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Shows what the library says of its choices (which column it reads) on stderr."""

    class Stderr(logging.Handler):
        def emit(self, record: logging.LogRecord):
            print(f"embinv: {record.getMessage()}", file=sys.stderr)

    log, handler = logging.getLogger("modeling_embinv"), Stderr()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


def report_skipped(source: str, skipped) -> None:
    """Says on stderr which rows of a file were left out, if any were."""
    if skipped.count:
        print(f"embinv: warning: {source}: skipped {skipped}", file=sys.stderr)


def encoder_of(model, options):
    """The encoder that the model names, or `--encoder`: it embeds texts and measures cosines, and never inverts."""
    from ..data.encoders import EncoderConfig, load_encoder
    from ..runtime import prepare_process

    config = model.config
    if options.encoder is None and config.encoder_id is None:
        raise EmbInvError(f"{options.model} does not name its encoder; give it with --encoder.")
    named = (config.encoder_id, config.encoder_revision, config.encoder_prompt, config.max_sequence_length)
    with prepare_process():
        return load_encoder(options.encoder or EncoderConfig(*named), device=model.device)


def feedback_of(model, options, encoder=None):
    """`generate`'s feedback that the flag names; the encoder, if it is not there yet, is loaded only for that."""
    if options.feedback == "encoder":
        return (encoder or encoder_of(model, options)).encode
    return "surrogate" if options.feedback == "surrogate" else None


def add_encoder(parser: argparse.ArgumentParser):
    parser.add_argument("--encoder", help="YAML or folder of the encoder (default: the one that the model names)")
