"""Checkpoints in 8 bits: smaller files, the same model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from modeling_embinv import EmbInvForMaskedDiffusion
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.storage_embinv import matrix_names
from tests.tiny_models import awaken, tiny_config, unit_vectors

WEIGHTS = "model.safetensors"


@pytest.fixture(params=[(2, False), (16, False), (16, True)], ids=["low rank", "whole", "table"])
def model(request) -> EmbInvForMaskedDiffusion:
    """An inverter with a surrogate, condition tokens and a word head, none of whose weights is 0."""
    torch.manual_seed(0)
    rank, has_table = request.param
    sizes = {"surrogate_rank": rank, "surrogate_table": has_table}
    config = tiny_config(num_condition_tokens=2, word_head_size=8, **sizes)
    model = awaken(EmbInvForMaskedDiffusion(config)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return model


@pytest.fixture
def folder(model, tmp_path) -> Path:
    model.save_pretrained(tmp_path / "small", weight_bits=8)
    return tmp_path / "small"


def test_a_row_is_off_by_half_a_step_at_most(model, folder):
    """A scale for a whole matrix would drown the rows with small weights; a wrong order of rows would mix them up."""
    loaded = dict(EmbInvForMaskedDiffusion.from_pretrained(folder).named_parameters())
    for name, weight in model.named_parameters():
        change = (loaded[name] - weight).abs()
        if name in matrix_names(model):
            peak = weight.abs().amax(dim=1, keepdim=True)
            steps = 7 if name == "surrogate.table.weight" else 127
            assert (change <= peak * (0.5 / steps + 2**-10)).all(), name  # and the peak's own rounding to 16 bits
        else:
            assert (change <= weight.abs() * 2**-10 + 1e-7).all(), name


def test_8_bits_come_back_through_16(folder, tmp_path):
    """A last stage that starts from 8 bits exports 16: what it did not train must be the checkpoint's again in 8."""
    EmbInvForMaskedDiffusion.from_pretrained(folder).half().save_pretrained(tmp_path / "half")
    EmbInvForMaskedDiffusion.from_pretrained(tmp_path / "half").save_pretrained(tmp_path / "again", weight_bits=8)
    before, again = load_file(folder / WEIGHTS), load_file(tmp_path / "again" / WEIGHTS)
    assert before.keys() == again.keys() and all(torch.equal(one, again[name]) for name, one in before.items())


def test_a_table_takes_half_a_byte_a_number(model, folder):
    """Stored in 8 bits, a table of 30,522 tokens would take as much as all layers of the surrogate."""
    stored = load_file(folder / WEIGHTS)
    if model.surrogate.table is not None:
        rows, width = model.surrogate.table.weight.shape
        assert stored["surrogate.table.weight"].shape == (rows, width // 2)
        assert stored["surrogate.table.weight"].dtype == torch.int8


def test_a_loaded_model_is_like_any_other(model, folder, tmp_path):
    """What was 8 bits must not be saved as 8 bits again unasked, nor keep the peaks, nor lose the tied table."""
    loaded = EmbInvForMaskedDiffusion.from_pretrained(folder)
    assert loaded.config.weight_bits is None and loaded.dtype == torch.float32
    assert set(loaded.state_dict()) == set(model.state_dict())
    assert loaded.decoder.weight is loaded.get_input_embeddings().weight
    loaded.save_pretrained(tmp_path / "again")
    assert {str(weight.dtype) for weight in load_file(tmp_path / "again" / WEIGHTS).values()} == {"torch.float32"}
    again = EmbInvForMaskedDiffusion.from_pretrained(tmp_path / "again")
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_saving_changes_nothing_in_the_model(model, tmp_path):
    """The configuration or a buffer could stay behind, and the next ordinary save would say 8 bits of floats."""
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.save_pretrained(tmp_path / "small", weight_bits=8)
    assert model.config.weight_bits is None
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert set(before) == set(model.state_dict())


def test_a_new_model_of_a_small_checkpoint_s_settings_holds_floats(model, folder, tmp_path):
    """It was laid out for steps of 8 bits: it could not search, and was loaded 127 times too small once saved."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    for new in (AutoModel.from_config(config, trust_remote_code=True), EmbInvForMaskedDiffusion(config)):
        assert new.config.weight_bits is None
        shapes = {name: weight.shape for name, weight in new.state_dict().items()}
        assert shapes == {name: weight.shape for name, weight in model.state_dict().items()}
        new.eval().generate(unit_vectors(2), feedback="surrogate", num_candidates=2)
        new.save_pretrained(tmp_path / "new")
        loaded = EmbInvForMaskedDiffusion.from_pretrained(tmp_path / "new").state_dict()
        assert all(torch.equal(loaded[name], weight) for name, weight in new.state_dict().items())
    again = EmbInvForMaskedDiffusion.from_pretrained(folder, config=config)  # which still says what the folder holds
    assert set(again.state_dict()) == set(model.state_dict())


def test_floats_are_not_saved_as_8_bits(model, tmp_path):
    """A configuration that says 8 bits beside floats: loading divided them by 127."""
    model.config.weight_bits = 8
    with pytest.raises(EmbInvError, match=r"save_pretrained\(folder, weight_bits=8\)"):
        model.save_pretrained(tmp_path / "floats")
    assert not (tmp_path / "floats").exists()
    model.save_pretrained(tmp_path / "small", weight_bits=8)
    assert EmbInvForMaskedDiffusion.from_pretrained(tmp_path / "small").config.weight_bits is None


def test_matrices_take_a_byte_a_weight(model, folder):
    """A file of floats beside the integers would not be smaller."""
    stored = load_file(folder / WEIGHTS)
    assert all(stored[name].dtype == torch.int8 for name in matrix_names(model))
    assert (folder / WEIGHTS).stat().st_size < sum(weight.numel() for weight in model.parameters()) * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_loads_in_half_precision(model, folder, dtype):
    """Steps of up to 127 times a peak must not overflow or stay integers."""
    loaded = EmbInvForMaskedDiffusion.from_pretrained(folder, dtype=dtype)
    own = model.get_input_embeddings().weight
    torch.testing.assert_close(loaded.get_input_embeddings().weight.float(), own, atol=0.02, rtol=0.02)
    assert loaded.dtype == dtype


def test_the_hub_s_way_of_loading(model, folder):
    """AutoModel with the checkpoint's own code; its texts are those of the same weights in floating point."""
    loaded = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    vectors = unit_vectors(3)
    expected = EmbInvForMaskedDiffusion.from_pretrained(folder).eval().generate(vectors).sequences
    assert torch.equal(loaded.generate(vectors).sequences, expected)


def test_a_changed_peak_is_refused(folder):
    """The peaks are weights, too: the checksum covers them."""
    stored = load_file(folder / WEIGHTS)
    stored["row_peaks"][3] *= 2
    save_file(stored, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="checksum differs"):
        EmbInvForMaskedDiffusion.from_pretrained(folder)


def test_integers_without_their_peaks_are_refused(folder):
    """Weights of up to 127 would write noise."""
    path = folder / "config.json"
    settings = {**json.loads(path.read_text()), "weight_bits": None, "checksums": None}
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="unexpected row_peaks|floating point"):
        EmbInvForMaskedDiffusion.from_pretrained(folder)


def test_other_numbers_of_bits_are_refused(model, tmp_path):
    """Four bits would be written as eight."""
    with pytest.raises(ValueError, match="weight_bits must be 8"):
        model.save_pretrained(tmp_path, weight_bits=4)


def test_parts_that_were_added_are_stored_with_their_own_peaks(tmp_path):
    """A part that is added later stands behind all others, and loading puts it before them: rows get others' peaks."""
    torch.manual_seed(0)
    model = EmbInvForMaskedDiffusion(tiny_config(num_condition_tokens=2)).eval()
    model.add_word_head(8)
    model.add_surrogate(model.config.hidden_size, has_table=True)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * torch.rand(()))
    model.save_pretrained(tmp_path, weight_bits=8)
    loaded = dict(EmbInvForMaskedDiffusion.from_pretrained(tmp_path).named_parameters())
    for name, weight in model.named_parameters():
        assert (loaded[name] - weight).norm() <= 0.1 * weight.norm() + 1e-6, name
