"""The surrogate encoder: what it reads, that it learns, that the inverter does not change, its place in the search."""

import threading

import pytest
import torch
from scipy.stats import spearmanr

from modeling_embinv import surrogate_embinv
from modeling_embinv.diffusion_embinv import after_first, text_positions
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.evaluation import metrics
from modeling_embinv.search_embinv import ClosedLoop
from modeling_embinv.settings_embinv import LIKELIHOOD_WEIGHT, SURROGATE_LIKELIHOOD_WEIGHT
from tests.tiny_models import END, VOCAB, awaken, bag_of_tokens, texts, tiny_model, unit_vectors, with_surrogate


def test_what_stands_behind_the_end_does_not_count(family):
    """Padding that is attended to or averaged makes a text's vector depend on the batch it is in."""
    model, ids = with_surrogate(family), texts(6)
    vectors = model.embed(ids)
    assert vectors.shape == (6, 16) and torch.allclose(vectors.norm(dim=1), torch.ones(6), atol=1e-5)
    junk = torch.where(after_first(ids == END), torch.randint(4, VOCAB, ids.shape), ids)
    assert torch.allclose(model.embed(junk), vectors, atol=1e-5)
    alone = torch.cat([model.embed(row[None]) for row in ids])
    assert torch.allclose(alone, vectors, atol=1e-5)
    other = ids.clone()
    other[:, 0] = torch.where(ids[:, 0] == 5, 6, 5)
    assert ((model.embed(other) - vectors).norm(dim=1) > 1e-3).all()


def test_parts_keep_the_order(monkeypatch):
    """Texts are read in parts of similar length; vectors that come back in that order belong to other texts."""
    model, ids = with_surrogate(), texts(9)
    vectors = model.embed(ids)
    monkeypatch.setattr(surrogate_embinv, "EMBEDDED_ROWS_CPU", 2)
    assert torch.allclose(model.embed(ids), vectors, atol=1e-5)


def test_no_texts_have_no_vectors():
    """The widest of no texts has no width: IndexError."""
    model = with_surrogate()
    assert model.embed(texts(3)[:0]).shape == (0, 16) and model.embedder()(texts(3)[:0]).dtype == torch.float32


def test_ids_are_checked_before_they_are_embedded(family):
    """Lists, one row and a text longer than the table of positions ended in errors of Python's or of torch."""
    model, ids = with_surrogate(family), texts(3)
    vectors = model.embed(ids)
    for same in (ids.tolist(), ids.numpy(), ids.int()):
        assert torch.equal(model.embed(same), vectors)
    for wrong in (ids[0], ids[0].tolist(), ids[None], ids.float(), ids + VOCAB, "x", None):
        with pytest.raises(EmbInvError, match="ids must be"):
            model.embed(wrong)
    padded = torch.full((3, 60), END)  # 40 positions hold a start and 39 tokens; ends behind a text take none
    padded[:, :11] = ids[:, :11]
    assert torch.allclose(model.embed(padded), model.embed(padded[:, :12]), atol=1e-5)
    long = torch.full((1, 60), 5)
    if model.trunk.num_positions is None:
        assert model.embed(long).shape == (1, 16)
    else:
        with pytest.raises(EmbInvError, match=r"at most \d+ tokens with their end, got one of 60"):
            model.embed(long)
        assert model.embed(long[:, : model.trunk.num_positions - 1]).shape == (1, 16)


@pytest.mark.parametrize("rank", [8, 64], ids=["low rank", "whole matrices"])
def test_it_learns_an_encoder_and_leaves_the_inverter_alone(rank):
    """Gradients that reach the shared trunk or the token embeddings would spoil the inverter for its helper's sake."""
    model, encode = awaken(tiny_model(surrogate_rank=rank)), bag_of_tokens([])
    assert (len(model.surrogate.whole) > 0) == (rank >= model.config.hidden_size)
    before = {name: weight.clone() for name, weight in model.named_parameters() if "surrogate" not in name}
    ids = texts(256)
    target = encode(ids)
    held_out, truth = texts(512)[256:], encode(texts(512)[256:])
    started = (model.embed(held_out) * truth).sum(dim=1).mean()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for step in range(150):
        rows = torch.arange(64) + 64 * (step % 4)
        loss = 1 - (model.embed(ids[rows]) * target[rows]).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(weight.grad is not None for weight in model.surrogate.parameters())
    assert (model.embed(held_out) * truth).sum(dim=1).mean() > started + 0.3
    for name, weight in model.named_parameters():
        if "surrogate" not in name:
            assert weight.grad is None and torch.equal(weight, before[name]), name


def test_it_starts_from_the_encoder(family):
    """Of full rank it must read a text as the encoder does, its first token and positions included.

    A matrix, a table, a norm or a bias that is left out is an encoder of another kind, and a long training then stops
    where no weights lead further.
    """
    model, encoder, ids = awaken(tiny_model(family)), awaken(tiny_model(family, seed=1)), texts(5)
    encoder.trunk.token_embeddings.load_state_dict(model.trunk.token_embeddings.state_dict())  # these are not changed
    for weight in encoder.trunk.parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight)
    model.add_surrogate(model.config.hidden_size, first_token_id=7, weights=dict(encoder.trunk.named_parameters()))
    framed = torch.cat([torch.full((5, 1), 7), ids], dim=1)
    read = text_positions(framed, END)
    tokens = encoder.trunk.token_embeddings(framed)
    hidden = encoder.trunk(tokens, torch.zeros(5, encoder.trunk.num_norms, 2, tokens.shape[-1]), read.long())
    mean = model.surrogate.dense((hidden * read[..., None]).sum(dim=1) / read.sum(dim=1, keepdim=True))
    assert torch.allclose(model.embed(ids), torch.nn.functional.normalize(mean, dim=-1), atol=1e-4)


@pytest.mark.parametrize("has_table", [False, True])
def test_it_may_be_shallower_than_the_trunk(family, has_table, tmp_path):
    """A surrogate as deep as a doubled trunk costs twice the encoder's time, and starts from none of its weights."""
    model, encoder, ids = awaken(tiny_model(family)), awaken(tiny_model(family, seed=1)), texts(5)
    if not has_table:
        encoder.trunk.token_embeddings.load_state_dict(model.trunk.token_embeddings.state_dict())
    depth = len(model.trunk.layers) - 1
    short = encoder.trunk.first_layers(depth)
    written = model(ids, unit_vectors(5), torch.full((5,), 0.5)).logits
    model.add_surrogate(model.config.hidden_size, 7, dict(short.named_parameters()), has_table, length=20)
    assert model.config.surrogate_layers == depth and len(model.trunk.layers) == depth + 1
    assert model.config.longest_judged == 20 > model.config.max_sequence_length  # as the encoder, whose layers it has
    framed = torch.cat([torch.full((5, 1), 7), ids], dim=1)
    read = text_positions(framed, END)
    tokens = short.token_embeddings(framed)
    hidden = short(tokens, torch.zeros(5, short.num_norms, 2, tokens.shape[-1]), read.long())
    mean = (hidden * read[..., None]).sum(dim=1) / read.sum(dim=1, keepdim=True)
    wanted = torch.nn.functional.normalize(model.surrogate.dense(mean), dim=-1)
    assert torch.allclose(model.embed(ids), wanted, atol=1e-4)
    assert torch.equal(model(ids, unit_vectors(5), torch.full((5,), 0.5)).logits, written)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert torch.allclose(loaded.embed(ids), wanted, atol=1e-4) and loaded.config.longest_judged == 20
    if "onednn" in torch.backends.quantized.supported_engines:
        with torch.no_grad():
            assert float((loaded.to_int8().embed(ids) * wanted).sum(dim=1).min()) > 0.98


@pytest.mark.parametrize("has_table", [False, True])
def test_token_embeddings_that_moved_are_mapped_back(has_table):
    """What training did to the tokens alike is linear: left in, a surrogate of full rank is another encoder.

    Rare tokens must not outweigh those that texts consist of.
    """
    model, encoder = awaken(tiny_model()), awaken(tiny_model(seed=1)).trunk
    table = encoder.token_embeddings.weight
    own = model.get_input_embeddings().weight
    turn = torch.eye(own.shape[1]) + 0.1 * torch.randn(own.shape[1], own.shape[1])
    with torch.no_grad():
        own.copy_(table @ turn + 0.05)
        own[:9] += torch.randn(9, own.shape[1])  # these occur nowhere
    counts = torch.full((VOCAB,), 1000.0)
    counts[:9] = 0
    model.add_surrogate(model.config.hidden_size, 7, dict(encoder.named_parameters()), has_table)
    model.surrogate.fit_tokens(model.trunk, table.detach(), counts)
    mapped = model.surrogate.tokens(own)
    assert torch.allclose(mapped[9:], table[9:], atol=0.02)
    if has_table:  # keeps what is left, of the rare ones, too
        assert torch.allclose(mapped + model.surrogate.table.weight, table, atol=1e-5)
    assert (own[9:] - table[9:]).abs().mean() > 10 * (mapped[9:] - table[9:]).abs().mean()


def test_an_encoder_of_another_width_decides_nothing():
    """An encoder of fewer layers, whose names fit and whose shapes do not, would take layers from the surrogate."""
    model, wider = tiny_model(), tiny_model(seed=1).trunk.first_layers(1)
    weights = {name: weight.repeat(*(2,) * weight.ndim) for name, weight in wider.named_parameters()}
    model.add_surrogate(model.config.hidden_size, 7, weights, has_table=True)
    assert model.config.surrogate_layers is None
    assert torch.equal(model.surrogate.start, model.get_input_embeddings().weight[7])


def test_of_low_rank_it_starts_nearer_and_without_a_fitting_encoder_as_the_trunk():
    """Weights of another depth must not be mixed in halfway; directions that matter little must not come first."""
    model, encoder = tiny_model(), tiny_model(seed=1)
    weights = dict(encoder.trunk.named_parameters())
    name = next(name for name, weight in model.trunk.layers.named_parameters() if weight.ndim == 2)
    own, wanted = model.trunk.layers.get_parameter(name), encoder.trunk.layers.get_parameter(name)
    model.add_surrogate(3, weights=weights)
    found = own + model.surrogate.up[0] @ model.surrogate.down[0]
    lost = torch.linalg.svdvals(wanted - own)[3:].square().sum()
    assert torch.allclose((wanted - found).square().sum(), lost, rtol=1e-3)
    weights.pop(list(weights)[-1])
    model.add_surrogate(2, weights=weights, length=20)
    assert model.config.longest_judged == model.config.max_sequence_length - 1  # no encoder: what it learns decides
    assert all(not weight.any() for weight in (*model.surrogate.up, *model.surrogate.shifts))


def test_whole_changes_survive_saving_and_int8(tmp_path):
    """A table that the merged copy lacks, or a kind that loading does not make, is another encoder."""
    model, ids = awaken(tiny_model()), texts(9)
    encoder = awaken(tiny_model(seed=1)).trunk
    model.add_surrogate(model.config.hidden_size, 7, dict(encoder.named_parameters()))
    vectors = model.embed(ids)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert torch.allclose(loaded.embed(ids), vectors, atol=1e-6)
    if "onednn" in torch.backends.quantized.supported_engines:
        with torch.no_grad():
            assert float((loaded.to_int8().embed(ids) * vectors).sum(dim=1).min()) > 0.98
    assert torch.allclose(
        model.surrogate.merge(model.trunk).embeddings.position_embeddings.weight,
        encoder.embeddings.position_embeddings.weight,
        atol=1e-6,
    )


def test_a_surrogate_survives_saving(tmp_path):
    """A config that forgets the rank loads the inverter only, without a word; adding one anew must not reset it."""
    model, ids = with_surrogate(), texts(3)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert torch.allclose(loaded.embed(ids), model.embed(ids), atol=1e-6)
    loaded.add_surrogate(4)
    assert torch.allclose(loaded.embed(ids), model.embed(ids), atol=1e-6)
    loaded.add_surrogate(2)
    assert loaded.config.surrogate_rank == 2 and len(loaded.surrogate.down[0]) == 2


@pytest.mark.parametrize("grad", [False, True])
def test_threads_may_read_and_write_at_once(family, grad):
    """The surrogate's weights stood in the inverter's own layers while it read: whoever wrote meanwhile wrote wrongly.

    Two that read put them back in the wrong order, and the weights were lost for good.
    """
    model, ids, vectors = with_surrogate(family), texts(4), {}
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    inside, leave = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]

    def write() -> torch.Tensor:
        return model(ids, unit_vectors(4), torch.full((4,), 0.5)).logits

    def read(number: int):
        with torch.set_grad_enabled(grad):
            vectors[number] = model.embed(ids)

    def pause(*_):
        if (name := threading.current_thread().name).isdigit():
            inside[int(name)].set()
            leave[int(name)].wait(60)

    expected, wanted = write(), model.embed(ids)
    model.trunk.layers[0].register_forward_pre_hook(pause)
    readers = [threading.Thread(target=read, args=(number,), name=str(number)) for number in range(2)]
    for reader, entered in zip(readers, inside, strict=True):
        reader.start()
        assert entered.wait(60)
    written = write()
    for reader, go_on in zip(readers, leave, strict=True):  # the first comes out first
        go_on.set()
        reader.join()
    assert torch.equal(written, expected) and torch.equal(write(), expected)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(torch.allclose(vectors[number], wanted, atol=1e-6) for number in range(2))


def test_the_search_can_be_judged_by_it():
    """Surrogate calls booked as the encoder's would hide what the search costs; the cosine must be the surrogate's."""
    model, vectors = with_surrogate(), unit_vectors(4)
    output = model.generate(
        vectors, feedback="surrogate", num_candidates=4, num_corrections=3, num_beams=2, num_proposals=4,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert output.num_feedback_calls == 0 and 4 * 4 < output.num_surrogate_calls <= 4 * (4 + 3 * 8)
    kept = output.sequences.masked_fill(after_first(output.sequences == END), END)
    assert torch.allclose((model.embed(kept) * vectors).sum(dim=1), output.cosine, atol=1e-5)
    first = model.generate(
        vectors, feedback="surrogate", num_candidates=4, likelihood_weight=0.0,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert (output.cosine.mean() > first.cosine.mean() - 0.05) and 4 < first.num_surrogate_calls <= 16


def test_it_spares_the_encoder():
    """More proposals must not cost more calls of an encoder that somebody pays for; the surrogate's count apart."""
    model, vectors, calls = with_surrogate(), unit_vectors(4), []
    settings = dict(num_candidates=4, num_corrections=3, num_beams=2, num_proposals=12, num_checked=3, num_scouted=0)
    output = model.generate(vectors, feedback=bag_of_tokens(calls), **settings)
    assert sum(calls) == output.num_feedback_calls <= 4 * (4 + 3 * 2 * 3) < output.num_surrogate_calls
    plain = awaken(tiny_model()).generate(vectors, feedback=bag_of_tokens(calls), **settings)
    assert plain.num_feedback_calls <= 4 * (4 + 3 * 2 * 3) and plain.num_surrogate_calls == 0


def test_a_search_ends_at_its_own_cosine():
    """A surrogate gives the text itself less than the encoder does, so texts that were found were searched on.

    The bound of a surrogate must not end a search that the encoder judges.
    """
    model, vectors = with_surrogate(), unit_vectors(6)
    settings = dict(num_candidates=4, num_corrections=4, num_beams=2, num_proposals=4)

    def rounds_of(feedback, **changes):
        seen = []
        generator = torch.Generator().manual_seed(0)
        output = model.generate(
            vectors, feedback=feedback, generator=generator, on_round=seen.append, **{**settings, **changes}
        )
        return [one.number for one in seen], output

    every, _ = rounds_of("surrogate")
    first, drafts = rounds_of("surrogate", num_corrections=0)
    low, high = float(drafts.cosine.min()), float(drafts.cosine.max())
    assert every == [0, 1, 2, 3, 4] and first == [0] and low < high
    ended, output = rounds_of("surrogate", stop_cosine=low)
    _, single = rounds_of("surrogate", num_candidates=1, num_corrections=0)
    is_found = (single.cosine >= low)[:, None]  # these get no other candidates
    assert ended == [0] and is_found.any() and not is_found.all()
    assert torch.equal(output.sequences, torch.where(is_found, single.sequences, drafts.sequences))
    some, output = rounds_of("surrogate", stop_cosine=high)
    stays = drafts.cosine >= high
    assert some[-1] > 0 and torch.equal(output.sequences[stays], drafts.sequences[stays])
    assert (output.cosine[~stays] > drafts.cosine[~stays]).any()
    by_encoder, _ = rounds_of(bag_of_tokens([]), stop_cosine=-1.0, num_scouted=0)
    assert by_encoder == every


def test_rounds_before_the_first_call():
    """Scouted rounds that ask the encoder, or whose texts and cosines are passed off as the encoder's."""
    model, vectors, calls = with_surrogate(), unit_vectors(4), []
    encode = bag_of_tokens(calls)
    settings = dict(feedback=encode, num_candidates=4, num_corrections=6, num_beams=2, num_proposals=12, num_checked=3)

    def spent(**changes) -> int:
        calls.clear()
        output = model.generate(vectors, generator=torch.Generator().manual_seed(0), **settings | changes)
        assert sum(calls) == output.num_feedback_calls
        kept = output.sequences.masked_fill(after_first(output.sequences == END), END)
        assert torch.allclose(torch.cosine_similarity(encode(kept), vectors), output.cosine, atol=1e-5)
        return output.num_feedback_calls

    every = [spent(num_scouted=count) for count in (0, 3, 6)]
    assert every[0] > every[1] > every[2] and 4 < every[2] <= 4 * 2  # in the end, the beams alone
    assert spent() == every[1]


def test_its_cosine_weighs_less(monkeypatch):
    """Trusted like the encoder, it picks texts that deceive it; a weight that is given counts for both."""
    model, vectors, weights = with_surrogate(), unit_vectors(2), []
    rounds = ClosedLoop.rounds
    monkeypatch.setattr(
        ClosedLoop, "rounds",
        lambda self, targets, texts, judge, *counts: (
            weights.append(judge.likelihood_weight) or rounds(self, targets, texts, judge, *counts)
        ),
    )  # fmt: skip
    for feedback, given in (("surrogate", {}), (model.embed, {}), ("surrogate", {"likelihood_weight": 0.2})):
        model.generate(vectors, feedback=feedback, num_candidates=2, **given)
    assert weights == [SURROGATE_LIKELIHOOD_WEIGHT, LIKELIHOOD_WEIGHT, 0.2]


def test_what_is_not_there_is_said():
    """A silent fall-back to no feedback would return the first text and call it checked."""
    vectors = unit_vectors(1)
    with pytest.raises(ValueError, match="no surrogate encoder"):
        tiny_model().generate(vectors, feedback="surrogate", num_candidates=2)
    with pytest.raises(ValueError, match="feedback must be"):
        tiny_model(surrogate_rank=2).generate(vectors, feedback="encoder", num_candidates=2)


def test_rank_correlation_is_spearmans():
    """Pearson's, or ranks that are not centred."""
    left, right = torch.rand(5, 9).double(), torch.rand(5, 9).double() ** 6
    found = metrics.rank_correlation(left, right)
    expected = [spearmanr(*rows).statistic for rows in zip(left.numpy(), right.numpy(), strict=True)]
    assert torch.allclose(found, torch.tensor(expected), atol=1e-6)


def test_ties_share_their_rank():
    """Texts of one cosine were ranked by their index: two rows of equal values then agree or not by chance."""
    left = torch.tensor([[1.0, 1, 1, 2], [3, 3, 1, 1], [5, 5, 5, 5]]).double()
    right = torch.tensor([[4.0, 3, 2, 5], [1, 2, 3, 4], [1, 2, 3, 4]]).double()
    found = metrics.rank_correlation(left, right)
    expected = [spearmanr(*rows).statistic for rows in zip(left[:2].numpy(), right[:2].numpy(), strict=True)]
    assert torch.allclose(found[:2], torch.tensor(expected), atol=1e-6)
    assert found[2].isnan()  # no order, so no correlation: neither 0 nor 1
