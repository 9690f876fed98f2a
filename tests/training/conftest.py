"""What the training tests share: one loaded encoder for all runs of this process."""

import pytest

from modeling_embinv.training import assemble

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
