"""The second order: the same weights from left to right, as a network, a likelihood and a strategy."""

import pytest
import torch
from transformers import DynamicCache, TextDiffusionStreamer

from modeling_embinv import EmbInvConfig
from modeling_embinv.errors_embinv import EmbInvError
from tests.tiny_models import END, MASK, PAD, VOCAB, causal_model, tiny_config, tiny_model, unit_vectors

L = 12
IDS = torch.randint(4, VOCAB, (3, L), generator=torch.Generator().manual_seed(1))


def causal_logits(model, ids=IDS, **kwargs):
    with torch.no_grad():
        return model(ids, unit_vectors(len(ids)), None, causal=True, **kwargs).logits


def test_a_position_sees_the_vector_and_what_stands_to_its_left(family):
    """A token that sees itself or what follows learns to copy, and drafts of it are noise.

    One step further to the left, and the token before is never seen.
    """
    model = causal_model(family)
    before = causal_logits(model)
    for place in (0, 5, 10):
        changed = IDS.clone()
        changed[:, place:] = (changed[:, place:] + 1) % VOCAB
        after = causal_logits(model, changed)
        assert torch.allclose(after[:, : place + 1], before[:, : place + 1], atol=1e-6)
        assert ((after - before)[:, place + 1].abs().amax(dim=1) > 1e-3).all()
    with torch.no_grad():
        other = model(IDS, unit_vectors(3, seed=7), None, causal=True).logits
    assert ((other - before).abs().amax(dim=2) > 1e-3).all()


def test_eager_equals_sdpa(family):
    """One kernel is told by a mask, the other by a flag, that it is causal."""
    model = causal_model(family)
    padding = torch.ones(3, L).long()
    padding[0, 8:] = 0  # behind the text, so it changes nothing before
    fused = causal_logits(model), causal_logits(model, attention_mask=padding)
    model.set_attn_implementation("eager")
    assert torch.allclose(fused[0], causal_logits(model), atol=1e-5)
    assert torch.allclose(fused[1], causal_logits(model, attention_mask=padding), atol=1e-5)
    assert torch.allclose(fused[1][0, :8], fused[0][0, :8], atol=1e-5)


def test_a_causal_pass_leaves_the_masked_order_alone(family):
    """A flag that stays set on the attention layers would make every later masked pass blind to the right."""
    model, t = causal_model(family), torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        before = model(IDS, unit_vectors(3), t).logits
        causal_logits(model)
        assert torch.equal(model(IDS, unit_vectors(3), t).logits, before)


def test_sliding_windows_stay():
    """ModernBERT's local layers see so many tokens to the left as they do in the masked order, no more and no less."""
    backbone = dict(tiny_config("modernbert").backbone_config.to_dict(), num_hidden_layers=1)
    backbone["layer_types"] = ["sliding_attention"]
    model = causal_model("modernbert", backbone_config=backbone)
    window, before = model.config.backbone_config.sliding_window, causal_logits(model)
    for distance, seen in ((window, True), (window + 1, False)):
        changed = IDS.clone()
        place = 9 - distance  # the state at token 9 predicts position 10
        changed[:, place] = (changed[:, place] + 1) % VOCAB
        moved = (causal_logits(model, changed) - before)[:, 10].abs().amax(dim=1)
        assert (moved > 1e-6).all() if seen else (moved == 0).all()


def test_loss_is_the_cross_entropy_of_those_logits_and_trains_the_condition(family):
    """Targets one position off would teach each token to repeat the one before."""
    model = causal_model(family).train()
    positions = torch.tensor([0, 1, 5, 12, 20])
    targets = IDS.flatten()[positions]
    output = model(IDS, unit_vectors(3), None, positions=positions, targets=targets, causal=True)
    expected = torch.nn.functional.cross_entropy(causal_logits(model).flatten(0, 1)[positions], targets)
    assert torch.allclose(output.loss.detach(), expected, rtol=1e-5)
    whole, flat = (model(IDS, unit_vectors(3), None, targets=ids, causal=True).loss for ids in (IDS, IDS.flatten()))
    assert torch.equal(whole, flat)  # targets of all positions in the shape of the texts were an error of PyTorch
    output.loss.backward()
    for weight in (model.condition_tokens.weight, model.modulation.weight, model.get_input_embeddings().weight):
        assert weight.grad.abs().max() > 0


def test_a_likelihood_takes_what_generate_takes():
    """Vectors of another length had another likelihood, and arrays, lists and a row too few were tracebacks."""
    model, vectors = causal_model("bert"), unit_vectors(3)
    expected = model.log_likelihood(IDS, vectors)
    with pytest.warns(UserWarning, match="not of length 1"):
        assert torch.allclose(model.log_likelihood(IDS, 2 * vectors), expected)
    assert torch.allclose(model.log_likelihood(IDS.numpy(), vectors.numpy()), expected)
    for ids, given, message in (
        (IDS, vectors * torch.nan, "embedding 0"),
        (IDS, vectors[:2], r"a row for each of 2 vectors, got \(3, 12\) int64"),
        (IDS[0], vectors[:1], r"got \(12,\) int64"),
        (IDS[:, :0], vectors, r"got \(3, 0\) int64"),
        (IDS.float(), vectors, "float32"),
        (IDS + VOCAB, vectors, f"below this model's vocabulary of {VOCAB}"),
    ):
        with pytest.raises(EmbInvError, match=message):
            model.log_likelihood(ids, given)


def test_gradient_checkpointing_changes_no_text(family):
    """In training the library's checkpointing drops the cache: every token was written from the last one alone."""
    model, vectors = causal_model(family).eval(), unit_vectors(3)
    expected = model.generate(vectors, strategy="autoregressive").sequences
    model.gradient_checkpointing_enable()
    model.train()
    assert torch.equal(model.generate(vectors, strategy="autoregressive").sequences, expected)
    assert model.training and all(layer.gradient_checkpointing for layer in model.trunk.layers)


def test_gradient_checkpointing_changes_no_gradient(family):
    """A layer that forgets when recomputed that it is causal gives other gradients."""
    gradients = []
    for checkpointing in (False, True):
        model = causal_model(family).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(IDS, unit_vectors(3), None, targets=IDS.flatten(), causal=True).loss.backward()
        gradients.append(model.modulation.weight.grad)
    assert torch.allclose(*gradients, atol=1e-6)


def test_compiles_without_graph_breaks(family):
    """A mask that is made outside the graph would split it and lose the speed."""
    model = causal_model(family)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        found = compiled(IDS, unit_vectors(3), None, causal=True).logits
    assert torch.allclose(found, causal_logits(model), atol=1e-5)


def test_likelihoods_are_probabilities():
    """The chain rule by hand: every text of at most two tokens, and the probabilities of all of them sum to 1.

    An end that is not counted, counted twice, or a tail of ends that is, breaks the sum.
    """
    model, e = causal_model(), unit_vectors(1)
    tokens = torch.tensor([token for token in range(VOCAB) if token != END])
    rows = torch.cat([
        torch.tensor([[END, END]]),
        torch.stack([tokens, torch.full_like(tokens, END)], dim=1),
        torch.cartesian_prod(tokens, tokens),
    ])  # fmt: skip
    found = model.log_likelihood(rows, e.expand(len(rows), -1))
    assert float(found.exp().sum()) == pytest.approx(1, abs=1e-4)
    first = causal_logits(model, torch.zeros(1, 1, dtype=torch.long))[0, 0].log_softmax(0)
    assert torch.allclose(found[0], first[END], atol=1e-4)
    with torch.no_grad():
        second = model(rows, e.expand(len(rows), -1), None, causal=True).logits[:, 1].log_softmax(-1)
    by_hand = first[rows[1:, 0]] + second[1:].gather(1, rows[1:, 1:]).squeeze(1)
    assert torch.allclose(found[1:], by_hand, atol=1e-4)
    wide = torch.nn.functional.pad(rows, (0, 4), value=END)  # a longer canvas: now a text of two tokens has an end
    longer = model.log_likelihood(wide, e.expand(len(rows), -1))
    assert torch.allclose(longer[:60], found[:60], atol=1e-4) and (longer[60:] < found[60:]).all()
    assert model.log_likelihood(rows[:0], e[:0]).shape == (0,)


def test_cache_equals_no_cache(family):
    """Positions that start anew at each step, or keys rotated twice, change every token but the first."""
    model, cache, steps = causal_model(family), DynamicCache(), []
    with torch.no_grad():
        condition = model.causal_condition(model.condition(unit_vectors(3)))
        for place in range(L):
            before = IDS[:, place - 1 : place] if place else None
            steps.append(model.decoder(model.next_states(before, condition, cache)))
    assert torch.allclose(torch.stack(steps, dim=1), causal_logits(model), atol=1e-5)


def written_by_hand(model, vectors, scale: float = 1.0) -> torch.Tensor:
    """Greedy texts by whole causal passes; with guidance, of both branches."""
    ids = torch.full((len(vectors), L), END)
    for place in range(L):
        with torch.no_grad():
            logits = model(ids, vectors, None, causal=True).logits[:, place].log_softmax(-1)
            if scale != 1:
                null = torch.zeros(len(vectors), dtype=torch.bool)
                blind = model(ids, vectors, None, condition_mask=null, causal=True).logits[:, place].log_softmax(-1)
                logits = blind + scale * (logits - blind)
        logits[:, [MASK] + [END] * (place == 0)] = -torch.inf
        ids[:, place] = logits.argmax(dim=1)
    ended = ((ids == END).cumsum(dim=1) - (ids == END).long()) > 0
    return ids.masked_fill(ended, PAD)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_autoregressive_takes_the_most_likely_token_each_time(family, scale):
    """A row of the cache that stays when its text is done hands its keys to the next text."""
    model, vectors = causal_model(family), unit_vectors(9)
    model.decoder.bias.data[END] = 3.0
    output = model.generate(vectors, strategy="autoregressive", guidance_scale=scale, return_history=True)
    expected = written_by_hand(model, vectors, scale)
    assert torch.equal(output.sequences, expected)
    lengths = (expected != PAD).sum(dim=1)
    assert len(set(lengths.tolist())) > 1 and output.num_forward_passes == len(output.history) == int(lengths.max())
    for place, draft in enumerate(output.history):  # one token a pass
        assert ((draft == MASK).sum(dim=1) == (L - 1 - place) * (lengths > place + 1)).all()


def test_confidence_is_the_probability_of_the_token():
    """Probabilities after a temperature, or of the position before, would be calibrated to nonsense."""
    model, vectors = causal_model(), unit_vectors(4)
    output = model.generate(
        vectors,
        strategy="autoregressive",
        temperature=0.7,
        suppress_tokens=[PAD],
        generator=torch.Generator().manual_seed(0),
    )
    ids = output.sequences.masked_fill(output.sequences == PAD, END)
    with torch.no_grad():
        logits = model(ids, vectors, None, causal=True).logits
    logits[..., [MASK, PAD]], logits[:, 0, END] = -torch.inf, -torch.inf
    expected = logits.softmax(-1).gather(2, ids[..., None]).squeeze(2)
    filled = output.confidence > 0
    assert filled[:, 0].all() and torch.allclose(output.confidence[filled], expected[filled], atol=1e-5)


def test_samples_depend_on_the_generator_alone():
    """Noise drawn for a whole batch, or by the pass, changes a text with its neighbours."""
    model, vectors = causal_model(), unit_vectors(7)
    model.decoder.bias.data[END] = 3.0
    call = dict(strategy="autoregressive", temperature=1.0)
    whole = model.generate(vectors, generator=torch.Generator().manual_seed(3), **call).sequences
    generator = torch.Generator().manual_seed(3)
    parts = torch.cat([model.generate(part, generator=generator, **call).sequences for part in vectors.split(3)])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, model.generate(vectors, generator=generator, **call).sequences)
    assert not (whole == MASK).any() and len(set((whole != PAD).sum(dim=1).tolist())) > 1


def test_samples_follow_the_model():
    """Frequencies of first tokens over many samples are the softmax' own."""
    model, vector = causal_model(max_sequence_length=1), unit_vectors(1).expand(20_000, -1)
    drawn = model.generate(
        vector, strategy="autoregressive", temperature=1.0, generator=torch.Generator().manual_seed(0)
    ).sequences[:, 0]
    expected = causal_logits(model, torch.zeros(1, 1, dtype=torch.long))[0, 0]
    expected[[MASK, END]] = -torch.inf
    found = torch.bincount(drawn, minlength=VOCAB) / len(drawn)
    assert (found - expected.softmax(0)).abs().max() < 0.01


def test_many_texts_get_their_logits_in_parts(monkeypatch):
    """Thousands of texts would ask for gigabytes of logits at once; a part that is off by one moves every text."""
    from modeling_embinv import drafting_embinv

    model, vectors = causal_model(), unit_vectors(7)
    call = dict(strategy="autoregressive", temperature=1.0, guidance_scale=1.5)
    whole = model.generate(vectors, generator=torch.Generator().manual_seed(3), **call).sequences
    monkeypatch.setattr(drafting_embinv, "LOGITS_ROWS", 2)
    assert torch.equal(whole, model.generate(vectors, generator=torch.Generator().manual_seed(3), **call).sequences)


def test_known_tokens_of_a_draft_stay_and_are_seen():
    """A draft's tokens that are written over, or that the following ones do not see, make infilling a lie."""
    model, vectors = causal_model(), unit_vectors(3)
    free = model.generate(vectors, strategy="autoregressive").sequences
    draft = torch.full((3, L), MASK)
    draft[:, 2] = (free[:, 2] + 1) % VOCAB
    draft[:, 2] = torch.where(draft[:, 2] < 4, 9, draft[:, 2])
    output = model.generate(vectors, strategy="autoregressive", draft_ids=draft)
    assert torch.equal(output.sequences[:, 2], draft[:, 2]) and (output.confidence[:, 2] == 1).all()
    assert torch.equal(output.sequences[:, :2], free[:, :2])
    with torch.no_grad():
        logits = model(output.sequences, vectors, None, causal=True).logits[:, 3]
    logits[:, MASK] = -torch.inf
    assert torch.equal(output.sequences[:, 3], logits.argmax(dim=1))


def test_candidates_and_corrections_begin_with_drafts():
    """The closed loop samples its candidates by the strategy of the call, and fills its edits in by masked passes."""
    model, vectors = causal_model(), unit_vectors(2)
    end = model.config.eos_token_id
    embed = lambda ids: torch.nn.functional.one_hot((ids * (ids != end)).sum(dim=1) % 16, 16).float()  # noqa: E731
    output = model.generate(
        vectors, strategy="autoregressive", num_candidates=4, num_corrections=2, num_beams=2, num_proposals=4,
        num_checked=4, feedback=embed, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert not (output.sequences == MASK).any() and output.num_feedback_calls > 8


def test_int8_writes_drafts():
    """The layers in int8 are called by the drafts, too, one token at a time."""
    model, vectors = causal_model(), unit_vectors(3)
    before = model.generate(vectors, strategy="autoregressive")
    after = model.to_int8().generate(vectors, strategy="autoregressive")
    assert after.num_forward_passes <= L and not (after.sequences == MASK).any()
    assert torch.allclose(after.confidence[:, 0], before.confidence[:, 0], atol=0.1)


def test_a_draft_is_streamed_token_by_token():
    """The Space shows a text as it is written."""

    class Streamer(TextDiffusionStreamer):
        def __init__(self):
            self.drafts, self.texts = [], []

        def put_draft(self, value, **_):
            self.drafts.append(value.clone())

        def put(self, value):
            self.texts.append(value)

        def end(self):
            pass

    model, streamer = causal_model(), Streamer()
    output = model.generate(unit_vectors(1), strategy="autoregressive", streamer=streamer, max_length=5)
    assert [int((draft == MASK).sum()) for draft in streamer.drafts] == [4, 3, 2, 1, 0]
    assert torch.equal(streamer.texts[0], output.sequences)
    assert model.generate(torch.empty(0, 16), strategy="autoregressive").sequences.shape == (0, L)


def test_models_that_never_learned_it_say_so():
    """Drafts of a masked model, from left to right, are noise that looks like a bad checkpoint."""
    masked = tiny_model(num_condition_tokens=2)
    for call in (
        lambda: masked.generate(unit_vectors(2), strategy="autoregressive"),
        lambda: masked.log_likelihood(IDS, unit_vectors(3)),
    ):
        with pytest.raises(ValueError, match="not trained from left to right") as error:
            call()
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="num_condition_tokens of at least 1"):
        tiny_model(causal_share=0.5)(IDS, unit_vectors(3), None, causal=True)


def test_old_checkpoints_load():
    """Configurations from before know nothing of the order; they are of masked models."""
    old = tiny_config().to_dict()
    del old["causal_share"]
    assert EmbInvConfig.from_dict(old).causal_share == 0
    with pytest.raises(EmbInvError, match="causal_share must be in"):
        tiny_config(causal_share=1.5)


def test_a_text_longer_than_the_table_of_positions_is_told(family):
    """Its likelihood ended in an IndexError of the table; the longest one that fits has a likelihood."""
    model, most = causal_model(family), 39  # of 40 positions two are the condition's; the last token takes none
    most -= 2 if family == "xlm-roberta" else 0  # whose positions begin behind its padding id
    assert model.log_likelihood(torch.full((2, most), 5), unit_vectors(2)).isfinite().all()
    ends = torch.full((2, 60), END).index_fill(1, torch.arange(5), 5)  # what follows an end does not count
    assert model.log_likelihood(ends, unit_vectors(2)).isfinite().all()
    if family == "modernbert":  # which has no table
        assert model.log_likelihood(torch.full((2, 60), 5), unit_vectors(2)).isfinite().all()
        return
    with pytest.raises(EmbInvError, match=f"texts of 60 tokens are too long: this model reads {most}"):
        model.log_likelihood(torch.full((2, 60), 5), unit_vectors(2))
