"""EmbInv: read the text back out of a sentence embedding."""

from transformers import AutoConfig, AutoModel

from .configuration_embinv import EmbInvConfig
from .errors_embinv import EmbInvError
from .generation_config_embinv import EmbInvGenerationConfig
from .generation_embinv import EmbInvGenerationOutput
from .modeling_embinv import EmbInvForMaskedDiffusion, EmbInvOutput
from .settings_embinv import SearchSettings

# without this, loading a checkpoint's tokenizer would ask whether to run the code that is already imported
AutoConfig.register("embinv", EmbInvConfig, exist_ok=True)
AutoModel.register(EmbInvConfig, EmbInvForMaskedDiffusion, exist_ok=True)

__all__ = [
    "EmbInvConfig",
    "EmbInvError",
    "EmbInvForMaskedDiffusion",
    "EmbInvGenerationConfig",
    "EmbInvGenerationOutput",
    "EmbInvOutput",
    "SearchSettings",
]
__version__ = "0.1.0"
