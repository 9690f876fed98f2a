"""EmbInv: read the text back out of a sentence embedding."""

from .configuration_embinv import EmbInvConfig
from .generation_embinv import EmbInvGenerationConfig, EmbInvGenerationOutput
from .modeling_embinv import EmbInvForMaskedDiffusion, EmbInvOutput

__all__ = [
    "EmbInvConfig",
    "EmbInvForMaskedDiffusion",
    "EmbInvGenerationConfig",
    "EmbInvGenerationOutput",
    "EmbInvOutput",
]
__version__ = "0.1.0"
