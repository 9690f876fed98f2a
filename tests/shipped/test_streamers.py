"""The library's streamers, with a real tokenizer: what is printed of a text."""

import pytest
import torch
from transformers import TextDiffusionStreamer, TextIteratorStreamer, TextStreamer

from modeling_embinv import EmbInvOutput
from tests.tiny_models import tiny_model, unit_vectors, with_vocabulary

WORDS, LENGTH = "the dog sleeps", 12


@pytest.fixture(scope="module")
def tokenizer(encoder):
    return encoder.tokenizer


@pytest.fixture(scope="module")
def model(tokenizer):
    """An inverter that writes one text."""
    end = tokenizer.sep_token_id
    vocabulary = with_vocabulary(len(tokenizer))
    model = tiny_model(**vocabulary, mask_token_id=tokenizer.mask_token_id, eos_token_id=end)
    ids = tokenizer(WORDS, add_special_tokens=False)["input_ids"]
    text = torch.tensor([ids + [end] * (LENGTH - len(ids))])

    def forward(noised_ids, embedding, timestep, positions, **_):
        logits = torch.nn.functional.one_hot(text, len(tokenizer)).float() * 40
        return EmbInvOutput(logits=logits.flatten(0, 1)[positions])

    model.forward = forward
    return model


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("kind", [TextStreamer, TextDiffusionStreamer])
def test_the_text_is_printed_without_padding(model, tokenizer, capsys, kind, skips):
    """[PAD] was printed 24 times behind a text of 7 tokens."""
    streamer = kind(tokenizer, skip_special_tokens=skips)
    for _ in range(2):  # a streamer may be used again
        model.generate(unit_vectors(1), streamer=streamer)
        printed = capsys.readouterr().out.rpartition("\033[J")[2]  # drafts end with this
        assert printed == (f"{WORDS}\n" if skips else f"{WORDS} [SEP]\n")


@pytest.mark.parametrize("kind", [TextStreamer, TextDiffusionStreamer])
def test_a_streamer_that_skips_prompts_prints_the_text(model, tokenizer, capsys, kind):
    """It took the text, the only `put`, for the prompt, and printed an empty line."""
    streamer = kind(tokenizer, skip_prompt=True, skip_special_tokens=True)
    for _ in range(2):
        model.generate(unit_vectors(1), streamer=streamer)
        assert capsys.readouterr().out.rpartition("\033[J")[2] == f"{WORDS}\n"


def test_an_iterator_of_words_that_skips_prompts_has_them(model, tokenizer):
    """The streamer of chat servers gave nothing at all."""
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    model.generate(unit_vectors(1), streamer=streamer)
    assert "".join(streamer) == WORDS
