"""`embinv demo`: embed a few sentences and invert their vectors."""

import argparse
import re
import sys
from typing import Any

from ..data.flags import Commands
from ..errors_embinv import EmbInvError
from .options import add_encoder, add_model, checked_settings, chosen_settings, encoder_of, feedback_of, load_model

DEMO_SENTENCES = (
    "The dog slept in front of the fire.",
    "She bought a red car in Paris last summer.",
    "My password is hidden under the keyboard.",
    "The patient was given two pills every morning.",
    "We will meet at the station on Friday evening.",
    "He sold his company to a bank for five million dollars.",
)
# what hides a word, and a text of fewer words has nothing to hide
BARS, SHORTEST = "▇▇▇", 5


def add_demo(commands: Commands) -> None:
    """Adds the command `demo` and its flags."""
    parser = commands.add_parser("demo", help="embed a few sentences and invert their vectors")
    parser.add_argument(
        "sentences",
        nargs="*",
        type=_text,
        default=DEMO_SENTENCES,
        help="your own sentences; without them six examples",
    )
    add_model(parser)
    add_encoder(parser)
    parser.set_defaults(run=_demo)


def _text(argument: str) -> str:
    """The argument; what is no UTF-8 in it, and no tokenizer takes, becomes "?"."""
    return argument.encode("utf-8", "replace").decode("utf-8")


def _demo(options: argparse.Namespace) -> None:
    settings = checked_settings(options)
    if not any(map(str.strip, options.sentences)):
        raise EmbInvError("there is nothing to invert: every sentence is empty.")
    import torch
    from rich.console import Console

    from ..data.canvas import encode_canvas
    from ..evaluation import metrics
    from ..inversion.terminal import legend, tinted
    from ..texts_embinv import written_texts

    model, tokenizer = load_model(options)
    encoder = encoder_of(model, options)
    canvas = encode_canvas(encoder.vocabulary, list(options.sentences), model.config.max_sequence_length)
    _report_left_out(options.sentences, canvas.kept)
    embeddings = encoder.encode(canvas.texts)
    settings, judge = chosen_settings(options, model, settings)
    feedback = feedback_of(judge, model, options, encoder)
    generator = torch.Generator().manual_seed(options.seed)
    output = model.generate(embeddings, generator=generator, feedback=feedback, tokenizer=tokenizer, **settings)
    sequences, end = output.sequences.cpu(), model.config.eos_token_id
    recovered = written_texts(tokenizer, sequences, output.confidence, end)
    cosines = metrics.cosine(encoder.encode([text.text for text in recovered]), embeddings)
    accuracies = metrics.token_accuracy(sequences, canvas.input_ids, end)
    console = Console(highlight=False, soft_wrap=True)
    for row, index in enumerate(canvas.kept):
        console.print(f"original   {options.sentences[index]}", markup=False)
        console.print("recovered ", tinted(tokenizer, recovered[row].ids, recovered[row].token_confidence))
        console.print(f"           cosine {cosines[row]:.3f}   token accuracy {100 * accuracies[row]:.0f} %\n")
    _fill(console, model, tokenizer, [options.sentences[index] for index in canvas.kept], encoder, feedback)
    calls = f", {output.num_feedback_calls} encoder calls" if output.num_feedback_calls else ""
    calls += f", {output.num_surrogate_calls} surrogate calls" if output.num_surrogate_calls else ""
    vectors = f"{len(canvas.kept)} {'vector' if len(canvas.kept) == 1 else 'vectors'}"
    console.print(
        f"{vectors} in {output.num_forward_passes} forward passes{calls}.", *[legend()] * console.is_terminal
    )


def _fill(console: Any, model: Any, tokenizer: Any, sentences: list[str], encoder: Any, feedback: Any) -> None:
    """Hides the two longest words of the longest sentence that the model holds, and fills the gaps by its vector."""
    from ..data.tokens import tokenize
    from ..inversion.terminal import filled

    lengths = map(len, tokenize(tokenizer, sentences))
    most = model.config.max_sequence_length - 1
    text = max((one for one, length in zip(sentences, lengths, strict=True) if length <= most), key=len, default="")
    words = re.findall(r"\w+", text)
    if len(words) < SHORTEST:
        return
    own = encoder.encode if model.surrogate is None else "surrogate"
    redacted = text
    for word in sorted(words, key=len)[-2:]:
        redacted = re.sub(rf"\b{word}\b", BARS, redacted, count=1)
    output = model.fill(encoder.encode([text]), [redacted], tokenizer, feedback or own)
    row = output.texts[0].as_dict()
    calls = f"{output.num_feedback_calls} encoder calls" if output.num_feedback_calls else "no encoder call"
    console.print(f"redacted   {redacted}", markup=False)
    console.print("filled    ", filled(row))
    console.print(f"           cosine {row['cosine']:.3f}   {row['verdict']}: {row['verdict_in_words']}, {calls}\n")


def _report_left_out(sentences: list[str], kept: list[int]) -> None:
    """Says on stderr which sentences the tokenizer cannot write.

    Raises:
        EmbInvError: it can write none of them.
    """
    left_out = [repr(text[:40]) for index, text in enumerate(sentences) if index not in set(kept)]
    if left_out and not kept:
        raise EmbInvError(f"there is nothing to invert: the tokenizer cannot write {', '.join(left_out)}.")
    if left_out:
        print(f"embinv: warning: left out, as the tokenizer cannot write it: {', '.join(left_out)}", file=sys.stderr)
