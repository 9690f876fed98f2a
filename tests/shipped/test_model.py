"""The network: it starts as its backbone, listens to e and t, and computes only what is asked."""

import itertools

import pytest
import torch
from transformers import AutoModel, T5Config
from transformers.models.bert.modeling_bert import BertForMaskedLM, BertModel
from transformers.models.modernbert.modeling_modernbert import ModernBertForMaskedLM

from modeling_embinv import EmbInvConfig, EmbInvError, EmbInvForMaskedDiffusion
from modeling_embinv.conditioning_embinv import condition_of_copies
from modeling_embinv.cross_entropy_embinv import chunked_cross_entropy, cross_entropies
from modeling_embinv.training.backbone import load_backbone, new_inverter
from tests.tiny_models import END, MASK, PAD, VOCAB, awaken, bag_of_tokens, tiny_config, tiny_model, unit_vectors

IDS = torch.randint(4, VOCAB, (3, 12), generator=torch.Generator().manual_seed(1))
T = torch.tensor([0.1, 0.5, 0.9])


def logits_of(model, ids=IDS, embedding=None, timestep=T, **kwargs):
    embedding = unit_vectors(len(ids)) if embedding is None else embedding
    with torch.no_grad():
        return model(ids, embedding, timestep, **kwargs).logits


def modulation_of(model, timestep, embedding):
    return model.modulation.of_timestep(model.timestep_features(timestep)) + model.condition(embedding).modulation


def test_a_condition_computed_once_serves_every_pass(family):
    """The sampler computes what e says once a text.

    A row mixed up, or a null condition that stays behind, would give texts of other vectors.
    """
    model, e = awaken(tiny_model(family, num_condition_tokens=2)), unit_vectors(3)
    order, mask = torch.tensor([2, 0]), torch.tensor([True, False, True])
    with torch.no_grad():
        kept = model.condition(e, mask).rows(order)
        for ids, timestep in ((IDS[order], T[order]), (IDS[:2], T[:2])):
            told = model(ids, None, timestep, condition=kept).logits
            expected = logits_of(model, ids, e[order], timestep, condition_mask=mask[order])
            assert torch.allclose(told, expected, atol=1e-5)


@pytest.mark.parametrize("copies", [[0, 0, 0, 1, 2, 2], [0, 1, 0, 1], [1, 1], [2, 0, 1], []])
def test_copies_of_a_vector_are_told_once(copies):
    """A search writes two dozen texts for a vector; a run's rows that are mixed up would be texts of other vectors."""
    model, e, told = awaken(tiny_model(num_condition_tokens=2)), unit_vectors(3)[copies], []
    expected = model.condition(e)
    model.projector.register_forward_hook(lambda module, args, output: told.append(len(args[0])))
    found = condition_of_copies(model, e)
    assert torch.allclose(found.modulation, expected.modulation, atol=1e-6)
    assert torch.allclose(found.prefix, expected.prefix, atol=1e-6)
    assert told == [len(list(itertools.groupby(copies)))]


def test_starts_as_its_backbone(family):
    """Gates that start at zero switched every pretrained block off in the paper's code.

    A lost rotary position code makes a bag of words; a norm that is not the pretrained one changes everything.
    """
    config = tiny_config(family)
    torch.manual_seed(3)
    source = AutoModel.from_config(config.backbone_config).eval()
    for parameter in source.parameters():  # norms away from (1, 0), as pretrained ones are
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    model = tiny_model(family, seed=9)
    load_backbone(model, source)
    with torch.no_grad():
        expected = source(IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state
        embeds = model.get_input_embeddings()(IDS)
        zero = torch.zeros(3, model.trunk.num_norms, 2, 32)
        assert torch.allclose(model.trunk(embeds, zero), expected, atol=1e-5)
        modulation = modulation_of(model, T, unit_vectors(3))
        assert not modulation.any()  # for every t and c


@pytest.mark.parametrize("masked_lm, name", [(BertForMaskedLM, "bert"), (ModernBertForMaskedLM, "modernbert")])
def test_starts_as_a_masked_language_model(masked_lm, name):
    """Head weights under another name would be left at random and cost thousands of steps."""
    config = tiny_config(name)
    torch.manual_seed(5)
    backbone = config.backbone_config
    if name == "modernbert":
        backbone.classifier_bias = True
    source = masked_lm(backbone).eval()
    for parameter in source.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    model = tiny_model(name, seed=9)
    load_backbone(model, source)
    with torch.no_grad():
        expected = source(IDS, attention_mask=torch.ones_like(IDS)).logits
    assert torch.allclose(logits_of(model), expected, atol=1e-4)


@pytest.mark.parametrize(
    "config, message",
    [
        (T5Config(), "of the family t5; known: bert, roberta, xlm-roberta, modernbert"),
        (tiny_config("bert"), "is an inverter: give it as init_from"),
    ],
)
def test_a_network_that_is_no_trunk_is_named(encoder, tmp_path, config, message):
    """sentence-t5's folder, and that of an inverter, ended in a traceback about max_position_embeddings."""
    config.save_pretrained(tmp_path)
    with pytest.raises(EmbInvError, match=message):
        new_inverter(encoder.tokenizer, tmp_path, embedding_dim=8, max_sequence_length=8)


def test_backbone_that_does_not_fit_is_named():
    """A silently skipped weight trains from noise."""
    config = tiny_config("bert")
    config.backbone_config.num_hidden_layers = 1
    shallow = BertModel(config.backbone_config)
    with pytest.raises(ValueError, match="encoder.layer.1"):
        load_backbone(tiny_model("bert"), shallow)


def test_one_step_makes_the_embedding_matter(family):
    """Zero weights in both factors of the condition path would never get a gradient."""
    model = tiny_model(family).train()
    target = torch.zeros(3 * 12, dtype=torch.long)
    before = (logits_of(model) - logits_of(model, embedding=unit_vectors(3, seed=7))).abs().max()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(IDS, unit_vectors(3), T, targets=target).loss.backward()
    optimizer.step()
    after = (logits_of(model) - logits_of(model, embedding=unit_vectors(3, seed=7))).abs().max()
    assert before == 0 and after > 1e-4


def test_one_optimizer_step_leaves_the_norms_near_the_pretrained_ones():
    """Adam moves each of the F + H weights behind a γ by the learning rate.

    On unscaled features γ moved by 0.2 a step at a rate of 5e-4, and within a hundred steps every pretrained norm was
    noise.
    """
    model = tiny_model("bert").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    ids, embedding, timestep = torch.randint(4, VOCAB, (8, 12)), unit_vectors(8), torch.rand(8)
    targets = torch.randint(4, VOCAB, (96,))
    model(ids, embedding, timestep, targets=targets).loss.backward()
    optimizer.step()
    with torch.no_grad():
        moved = modulation_of(model, timestep, embedding)
    assert 0 < moved.abs().max() < 10 * 5e-4


def test_timestep_and_null_condition_matter(family):
    """The paper's code drops t before the network; a null branch that still sees e guides nothing."""
    model = awaken(tiny_model(family))
    assert not torch.allclose(logits_of(model), logits_of(model, timestep=T.flip(0)), atol=1e-3)
    null = torch.zeros(3, dtype=torch.bool)
    first = logits_of(model, condition_mask=null)
    assert torch.equal(first, logits_of(model, embedding=unit_vectors(3, seed=8), condition_mask=null))
    assert not torch.allclose(first, logits_of(model), atol=1e-3)
    assert torch.allclose(logits_of(model, condition_mask=~null), logits_of(model))


def test_not_causal(family):
    """SDPA is causal unless told otherwise: the first position must see the last."""
    model = awaken(tiny_model(family))
    changed = IDS.clone()
    changed[:, -1] = (changed[:, -1] + 1) % VOCAB
    assert (logits_of(model)[:, 0] - logits_of(model, changed)[:, 0]).abs().max() > 1e-6


def test_positions_are_seen(family):
    """Without its position code the network is a bag of words."""
    model = awaken(tiny_model(family))
    assert not torch.allclose(logits_of(model).flip(1), logits_of(model, IDS.flip(1)), atol=1e-3)


def test_padding_and_batch_change_nothing(family):
    """A leak of padding into attention makes a text's result depend on its neighbours in the batch."""
    model = awaken(tiny_model(family))
    alone = torch.cat([logits_of(model, IDS[i : i + 1], unit_vectors(3)[i : i + 1], T[i : i + 1]) for i in range(3)])
    assert torch.allclose(alone, logits_of(model), atol=1e-5)
    padded = torch.cat([IDS, torch.full((3, 5), 9)], dim=1)
    attention_mask = torch.cat([torch.ones(3, 12), torch.zeros(3, 5)], dim=1).long()
    assert torch.allclose(logits_of(model, padded, attention_mask=attention_mask)[:, :12], alone, atol=1e-5)


def test_eager_equals_sdpa(family):
    """The two kernels take scale and mask in different forms."""
    model = awaken(tiny_model(family))
    assert model.config.backbone_config._attn_implementation == "sdpa"
    mask = torch.ones(3, 12).long()
    mask[0, 8:] = 0
    fused = logits_of(model, attention_mask=mask)
    model.set_attn_implementation("eager")
    assert model.config.backbone_config._attn_implementation == "eager"
    assert torch.allclose(fused, logits_of(model, attention_mask=mask), atol=1e-5)


def test_logits_only_where_asked(family):
    """Off-by-one flat positions would train every token on its neighbour's context."""
    model = awaken(tiny_model(family, num_condition_tokens=2))
    everywhere = logits_of(model).flatten(0, 1)
    positions = torch.tensor([0, 11, 12, 30])
    assert torch.allclose(logits_of(model, positions=positions), everywhere[positions], atol=1e-5)


def test_condition_tokens_reach_the_text():
    """Prefix positions that are cut before attention, or left in the output, do nothing or shift everything."""
    model = tiny_model(num_condition_tokens=2)
    assert logits_of(model).shape == (3, 12, VOCAB)
    assert not torch.allclose(logits_of(model), logits_of(model, embedding=unit_vectors(3, seed=7)), atol=1e-4)


def test_chunked_cross_entropy_and_its_gradients_are_exact():
    """The gradient is written by hand, chunk by chunk."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(37, 8, generator=generator).double(), torch.randn(50, 8, generator=generator).double()
    bias, weights = torch.randn(50, generator=generator).double(), torch.rand(37, generator=generator).double()
    targets = torch.randint(50, (37,), generator=generator)
    ours = [tensor.clone().requires_grad_() for tensor in (hidden, weight, bias)]
    theirs = [tensor.clone().requires_grad_() for tensor in (hidden, weight, bias)]
    loss, losses = chunked_cross_entropy(*ours, targets, weights, chunk_size=10)
    expected = torch.nn.functional.cross_entropy(theirs[0] @ theirs[1].T + theirs[2], targets, reduction="none")
    (3 * loss).backward()
    (3 * (expected * weights).sum()).backward()
    assert torch.allclose(losses.double(), expected, atol=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-5)
    frozen = hidden.clone().requires_grad_()
    (3 * chunked_cross_entropy(frozen, weight, bias, targets, weights, chunk_size=10)[0]).backward()
    assert torch.allclose(frozen.grad, theirs[0].grad, atol=1e-5) and weight.grad is None


def test_no_masked_position_costs_nothing():
    """A batch in which chance masked nothing ended in an IndexError; its loss is 0, and so is every gradient."""
    model, none = tiny_model().train(), torch.empty(0, dtype=torch.long)
    output = model(IDS, unit_vectors(3), T, positions=none, targets=none)
    output.loss.backward()
    assert output.loss == 0 and output.losses.shape == (0,)
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())
    assert model(IDS, unit_vectors(3), T, positions=none).logits.shape == (0, VOCAB)
    with torch.no_grad():
        output = model(IDS, unit_vectors(3), T, positions=none, targets=none)
    assert output.loss == 0 and output.losses.shape == (0,)


def test_loss_equals_cross_entropy_of_the_logits(family):
    """The training path must score the very distribution that generation samples from."""
    model = awaken(tiny_model(family))
    positions, targets = torch.tensor([1, 5, 20]), torch.tensor([7, 8, 9])
    expected = torch.nn.functional.cross_entropy(logits_of(model, positions=positions), targets, reduction="none")
    for wants_gradient in (True, False):  # one path each
        with torch.set_grad_enabled(wants_gradient):
            output = model(IDS, unit_vectors(3), T, positions=positions, targets=targets)
        assert float(output.loss.detach()) == pytest.approx(float(expected.mean()), rel=1e-5)
        assert torch.allclose(output.losses, expected, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [1, 10, 37, 100])
def test_losses_without_a_gradient_are_those_of_the_whole(chunk_size):
    """A chunk that is left out, or whose targets are another's."""
    hidden, decoder = torch.randn(37, 8, generator=torch.Generator().manual_seed(0)), torch.nn.Linear(8, 50)
    targets = torch.arange(37)
    losses = cross_entropies(decoder, hidden, targets, chunk_size)
    expected = torch.nn.functional.cross_entropy(decoder(hidden), targets, reduction="none")
    assert torch.allclose(losses, expected, atol=1e-5)


def test_frozen_backbone_trains_the_rest():
    """Frozen must mean the trunk's layers, not the tied output layer or the condition path."""
    model = tiny_model()
    model.freeze_backbone()
    trainable = {name.split(".")[0] for name, weight in model.named_parameters() if weight.requires_grad}
    assert trainable == {"projector", "modulation", "head", "trunk", "decoder"}
    assert {name for name, weight in model.trunk.named_parameters() if weight.requires_grad} == {
        "embeddings.word_embeddings.weight"
    }


def test_output_layer_is_tied(family):
    """Untied, a checkpoint doubles in size and the two copies drift apart."""
    model = tiny_model(family)
    assert model.decoder.weight is model.get_input_embeddings().weight
    model.resize_token_embeddings(VOCAB + 5)
    assert model.decoder.weight is model.get_input_embeddings().weight and len(model.decoder.bias) == VOCAB + 5


def test_another_vocabulary_is_whole_or_refused(family, tmp_path):
    """Half of a resized model kept the old vocabulary: it was not saved, and its surrogate and word head broke."""
    model = tiny_model(family)
    model.resize_token_embeddings(VOCAB + 5)
    model.save_pretrained(tmp_path)
    loaded = EmbInvForMaskedDiffusion.from_pretrained(tmp_path)
    assert loaded.config.vocab_size == loaded.config.backbone_config.vocab_size == VOCAB + 5
    assert logits_of(loaded.eval()).shape == (3, 12, VOCAB + 5)
    for part in (dict(word_head_size=8), dict(surrogate_rank=2, surrogate_table=True)):
        model = tiny_model(family, **part)
        for arguments in (dict(new_num_tokens=VOCAB + 5), dict(pad_to_multiple_of=64)):
            with pytest.raises(EmbInvError, match="has the vocabulary of its encoder, 60 tokens"):
                model.resize_token_embeddings(**arguments)
        assert model.resize_token_embeddings() is model.get_input_embeddings()
        model.save_pretrained(tmp_path / "kept")


def test_gradient_checkpointing_changes_no_gradient(family):
    """A layer that drops its modulation when recomputed gives other gradients."""
    gradients = []
    for checkpointing in (False, True):
        model = awaken(tiny_model(family)).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert all(layer.gradient_checkpointing for layer in model.trunk.layers)
        model(IDS, unit_vectors(3), T, targets=IDS.flatten()).loss.backward()
        gradients.append(model.modulation.weight.grad)
    assert torch.allclose(*gradients, atol=1e-6)


def test_compiles_without_graph_breaks(family):
    """A data-dependent branch in forward would split the graph and lose the speed."""
    model = awaken(tiny_model(family))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    positions = torch.tensor([0, 13])
    with torch.no_grad():
        found = compiled(IDS, unit_vectors(3), T, positions=positions).logits
    assert torch.allclose(found, logits_of(model, positions=positions), atol=1e-5)


def test_runs_in_bfloat16(family):
    """Float32 constants (timestep features, rotary tables) promote or crash a bf16 network."""
    model = awaken(tiny_model(family, num_condition_tokens=1))
    exact = logits_of(model)
    half = logits_of(model.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).norm() / exact.norm() < 0.03


def test_autocast_trains(family):
    """The hand-written cross entropy sits behind autocast and must pick its dtype itself."""
    model = awaken(tiny_model(family)).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(IDS, unit_vectors(3), T, targets=IDS.flatten()).loss
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(model.modulation.weight.grad).all()


@pytest.mark.parametrize("depth", [22, 8, 2])
def test_paper_depths_are_configurations(depth):
    """The paper's 22-, 8- and 2-layer models are one class."""
    config = tiny_config("modernbert")
    backbone = {**config.backbone_config.to_dict(), "num_hidden_layers": depth, "layer_types": None}
    model = EmbInvForMaskedDiffusion(tiny_config("modernbert", backbone_config=backbone))
    assert len(model.trunk.layers) == depth == model.config.num_hidden_layers


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(embedding_dim=0), "embedding_dim must be at least 1"),
        (dict(canvas_lengths=[0, 12]), "canvas_lengths must be at least 1"),
        (dict(mask_token_id=VOCAB), "outside the vocabulary"),
        (dict(noise_schedule="quadratic"), "noise_schedule"),
        (dict(vocab_size=VOCAB + 1), "differs from vocab_size"),
        (dict(timestep_features=3), "timestep_features must be an even number"),
        (dict(embedding_dim="16"), "embedding_dim"),
        (dict(mask_token_id=END), "mask_token_id must be no end token"),
        (dict(mask_token_id=PAD), "mask_token_id must be no end token and no padding"),
        (dict(surrogate_table=True), "surrogate_table .*set surrogate_rank above 0"),
        (dict(num_condition_token=3), "no setting num_condition_token; did you mean num_condition_tokens"),
        (dict(zzz=3), "no setting zzz; its docstring"),
    ],
)
def test_bad_configurations_raise(settings, message):
    """Sizes that do not fit must fail before the first batch, in one line, and not as another library's exception.

    A mistyped setting was kept beside its default, and the saved model could not be loaded.
    """
    with pytest.raises(EmbInvError, match=message) as error:
        tiny_config(**settings)
    assert "\n" not in str(error.value)


def test_a_bad_value_is_told_when_it_is_saved(tmp_path):
    """A value that was set later ended in the library's exception of two lines, when the configuration was saved."""
    config = tiny_config()
    config.embedding_dim = 0
    with pytest.raises(EmbInvError, match="embedding_dim must be at least 1, got 0"):
        config.save_pretrained(tmp_path)


def test_arguments_of_transformers_are_settings(tmp_path):
    """A check for mistyped settings would refuse what transformers hands on: these load, and are saved and loaded."""
    config = tiny_config(attn_implementation="eager", num_labels=3, torch_dtype="float32", return_dict=False)
    config.save_pretrained(tmp_path)
    loaded = EmbInvConfig.from_pretrained(tmp_path, attn_implementation="sdpa", output_attentions=False)
    assert loaded._attn_implementation == "sdpa" and loaded.num_labels == 3 and not loaded.return_dict


def test_the_longest_canvas_of_a_trunk(family):
    """A bound that is one too low refuses a model that runs, and without it there is an IndexError.

    Rotary positions have none.
    """
    longest = {"bert": 38, "xlm-roberta": 36, "modernbert": 60}[family]
    model = awaken(tiny_model(family, max_sequence_length=longest, num_condition_tokens=2))
    assert model.generate(unit_vectors(1), num_steps=1).sequences.shape == (1, longest)
    if family != "modernbert":
        with pytest.raises(EmbInvError, match=f"{longest + 1} and 2 positions before the text do not fit the trunk's"):
            tiny_model(family, max_sequence_length=longest + 1, num_condition_tokens=2)


def test_without_a_padding_id_the_end_pads(tmp_path):
    """A configuration of a tokenizer without padding was taken, and `generate` ended in a TypeError."""
    ids, model = IDS.clone(), awaken(tiny_model(pad_token_id=None))
    ids[:, 4:] = END
    output = model.generate(unit_vectors(3), draft_ids=ids)
    assert torch.equal(output.sequences, ids) and model.fill(
        unit_vectors(3), [[5, MASK]] * 3, feedback=bag_of_tokens([])
    )
    model.config.save_pretrained(tmp_path)
    assert EmbInvConfig.from_pretrained(tmp_path).pad_token_id == END


def test_a_pass_without_a_timestep_is_one_line():
    """Without `causal` it ended in an AttributeError of None."""
    with pytest.raises(EmbInvError, match="forward needs a timestep"):
        tiny_model()(IDS, unit_vectors(3), None)


def test_unsupported_trunks_raise():
    """A causal or unknown trunk would load and quietly be something else."""
    with pytest.raises(ValueError, match="not supported"):
        EmbInvForMaskedDiffusion(
            EmbInvConfig(
                backbone_config=dict(model_type="gpt2", vocab_size=VOCAB),
                vocab_size=VOCAB,
                mask_token_id=MASK,
                eos_token_id=2,
            )
        )
    with pytest.raises(ValueError, match="bidirectional"):
        tiny_model(backbone_config=dict(model_type="bert", vocab_size=VOCAB, is_decoder=True))
