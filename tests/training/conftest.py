"""What the training tests share: one loaded encoder for all runs of this process."""

import gc
import os

import pytest

from modeling_embinv.training import assemble, distillation

_loaded = {}


@pytest.fixture(scope="module", autouse=True)
def encoders_are_loaded_once():
    """Dozens of runs would load the same weights from the disk, each anew."""
    load_encoder = assemble.load_encoder

    def load_once(config, device):
        key = repr(config), str(device)
        if key not in _loaded:
            _loaded[key] = load_encoder(config, device=device)
        return _loaded[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "load_encoder", load_once)
        yield


@pytest.fixture(scope="module", autouse=True)
def few_texts_are_ranked():
    """A surrogate's validation writes sixteen texts for each vector and embeds them, longer than a tiny run takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distillation, "RANKED_TEXTS", 4)
        yield


@pytest.fixture(scope="module", autouse=True)
def what_others_loaded_is_no_garbage(encoders_are_loaded_once):
    """The end of each run collects garbage, and would look through all that other tests have loaded."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def no_power_cut_comes():
    """Each export waits for the disk once a file, dozens of times, and no test cuts the power to see what for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
