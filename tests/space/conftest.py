"""The Space's module, loaded once, as it loads the checkpoint and the encoder; and its server, on a free port."""

import socket

import pytest


@pytest.fixture(scope="session")
def app():
    import app

    app.FRAME_SECONDS = 0.0
    return app


@pytest.fixture(scope="session")
def launch(app):
    """Starts a server of the page; gives what gradio's `launch` gives, of which the second is the address."""

    def on_a_free_port():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return app.launch(prevent_thread_lock=True, quiet=True, server_port=port)

    return on_a_free_port
