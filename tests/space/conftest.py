"""The Space's module, loaded once: it loads the checkpoint and the encoder."""

import pytest


@pytest.fixture(scope="session")
def app():
    import app

    app.FRAME_SECONDS = 0.0
    return app
