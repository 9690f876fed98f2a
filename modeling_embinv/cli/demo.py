"""`embinv demo`: embed a few sentences and invert their vectors."""

from .options import add_encoder, add_model, encoder_of, feedback_of, load_model, sampler_settings

DEMO_SENTENCES = (
    "The dog slept in front of the fire.",
    "She bought a red car in Paris last summer.",
    "My password is hidden under the keyboard.",
    "The patient was given two pills every morning.",
    "We will meet at the station on Friday evening.",
    "He sold his company to a bank for five million dollars.",
)


def add_demo(commands):
    parser = commands.add_parser("demo", help="embed a few sentences and invert their vectors")
    parser.add_argument("sentences", nargs="*", default=DEMO_SENTENCES, help="your own sentences")
    add_model(parser)
    add_encoder(parser)
    parser.set_defaults(run=_demo)


def _demo(options):
    import torch
    from rich.console import Console

    from ..data.canvas import encode_canvas
    from ..evaluation import metrics
    from ..inversion.terminal import legend, tinted
    from ..texts_embinv import written_texts

    model, tokenizer = load_model(options)
    encoder = encoder_of(model, options)
    canvas = encode_canvas(encoder.vocabulary, list(options.sentences), model.config.max_sequence_length)
    embeddings = encoder.encode(canvas.texts)
    settings = sampler_settings(options)
    feedback = feedback_of(options.feedback, model, options, encoder)
    generator = torch.Generator().manual_seed(options.seed)
    output = model.generate(embeddings, generator=generator, feedback=feedback, tokenizer=tokenizer, **settings)
    sequences, end = output.sequences.cpu(), model.config.eos_token_id
    recovered = written_texts(tokenizer, sequences, output.confidence, end)
    cosines = metrics.cosine(encoder.encode([text.text for text in recovered]), embeddings)
    accuracies = metrics.token_accuracy(sequences, canvas.input_ids, end)
    console = Console(highlight=False)
    for row, index in enumerate(canvas.kept):
        console.print(f"original   {options.sentences[index]}", markup=False)
        console.print("recovered ", tinted(tokenizer, recovered[row].ids, recovered[row].token_confidence))
        console.print(f"           cosine {cosines[row]:.3f}   token accuracy {100 * accuracies[row]:.0f} %\n")
    calls = f", {output.num_feedback_calls} encoder calls" if output.num_feedback_calls else ""
    calls += f", {output.num_surrogate_calls} surrogate calls" if output.num_surrogate_calls else ""
    console.print(f"{len(canvas.kept)} vectors in {output.num_forward_passes} forward passes{calls}.", legend())
