"""Calls of a model, each on the CPU and then on a pretended accelerator, with vectors on either.

`main` says what went wrong: call → message, empty where all is well. It needs a process of its own.
"""

import torch

from modeling_embinv.filled_embinv import FillingOutput
from modeling_embinv.settings_embinv import SETTINGS
from tests.shipped.word_encoder import encode_texts
from tests.shipped.word_tokenizer import SPECIAL, TOKENIZER, WORDS
from tests.tiny_models import MASK, causal_model, texts, unit_vectors, with_vocabulary

SEARCH = {"num_candidates": 3, "num_corrections": 1, "num_beams": 1, "num_proposals": 4, "tokenizer": TOKENIZER}
FILLED = {"tokenizer": TOKENIZER, "max_gap_tokens": 1, "num_sweeps": 2, "num_proposals": 8}
REDACTED = ["dear <NAME> , you owe us ▇▇▇ dollars", "*** , you owe us 350"]
CALLS = {
    **{
        strategy: lambda model, vectors, ids, strategy=strategy: model.generate(
            vectors, strategy=strategy, num_steps=3, temperature=0.5, guidance_scale=1.5
        )
        for strategy in SETTINGS["strategy"].choices
    },
    "beams": lambda model, vectors, ids: model.generate(vectors, strategy="autoregressive", num_draft_beams=3),
    "seed": lambda model, vectors, ids: model.generate(
        vectors, strategy="autoregressive", temperature=1.0, generator=torch.Generator().manual_seed(1)
    ),
    "remask": lambda model, vectors, ids: model.generate(
        vectors, strategy="euler_remask", num_steps=4, remask_ratio=0.3, restart_ratio=0.3
    ),
    "search": lambda model, vectors, ids: model.generate(vectors, feedback="surrogate", **SEARCH),
    "encoder": lambda model, vectors, ids: model.generate(vectors, feedback=encode_texts, num_hops=1, **SEARCH),
    "rewrites": lambda model, vectors, ids: model.generate(
        vectors, feedback="surrogate", **SEARCH, num_rewrites=1, num_moves=1, num_redrafts=1
    ),
    "drafts": lambda model, vectors, ids: model.generate(
        vectors, draft_ids=ids.index_fill(1, ids.new_tensor([2]), MASK), feedback="surrogate", **SEARCH
    ),
    "fill": lambda model, vectors, ids: model.fill(vectors, REDACTED, **FILLED),
    "fill by the encoder": lambda model, vectors, ids: model.fill(vectors, REDACTED, feedback=encode_texts, **FILLED),
    "fill from a list": lambda model, vectors, ids: model.fill(
        vectors, REDACTED[:1] * 2, choices={"NAME": ["anna", "li"]}, **FILLED
    ),
    "embed": lambda model, vectors, ids: model.embed(ids),
    "likelihood": lambda model, vectors, ids: model.log_likelihood(ids, vectors),
    "words": lambda model, vectors, ids: model.word_probabilities(vectors),
}
# those that take vectors as they come from a file, each in its own way
GIVEN_ON_THE_CPU = ("beams", "drafts", "fill", "likelihood", "words")


def tiny() -> torch.nn.Module:
    """A model with a surrogate, a corrector and a word head."""
    parts = {"surrogate_rank": 4, "correction_share": 0.25, "word_head_size": 8}
    model = causal_model(**parts, **with_vocabulary(len(SPECIAL + WORDS)))
    torch.nn.init.normal_(model.word_head.dense_out.weight, std=3.0)
    weights = {"probability": 0.5, "length": -0.1, "nearness": 0.5, "bias": 0.2}
    kinds = ("open_loop", "surrogate", "encoder", "words")
    model.generation_config.calibration = dict.fromkeys(kinds, weights)
    return model


@torch.no_grad()
def result(call, *arguments):
    """What a call returns, as lists of words and numbers."""
    torch.manual_seed(0)
    output = call(*arguments)
    if isinstance(output, FillingOutput):
        return [[one.text, one.cosine] for one in output.texts]
    if isinstance(output, torch.Tensor):
        return output.tolist()
    return [output.sequences.tolist(), output.confidence.tolist()]


def are_alike(found, expected) -> bool:
    """Whether they are the same but for the rounding of other kernels."""
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(are_alike, found, expected))
    return abs(found - expected) < 1e-3 if isinstance(expected, float) else found == expected


def main() -> dict[str, str]:
    """What went wrong, by call."""
    model, vectors = tiny(), unit_vectors(2)
    ids = texts(2, model.config.max_sequence_length).clamp(max=model.config.vocab_size - 1)
    expected = {name: result(call, model, vectors, ids) for name, call in CALLS.items()}
    from tests.accelerator import Accelerator, Far, moved

    moved(model)
    wrong = dict.fromkeys(CALLS, "")
    with Accelerator():
        for given, names in ((Far(vectors), CALLS), (vectors, GIVEN_ON_THE_CPU)):
            for name in names:
                try:
                    found = result(CALLS[name], model, given, Far(ids))
                except (RuntimeError, TypeError) as error:
                    wrong[name] = f"vectors on {given.device}: {error}"
                else:
                    same = are_alike(found, expected[name])
                    wrong[name] = wrong[name] or ("" if same else f"{found}, not {expected[name]}")
    return wrong
