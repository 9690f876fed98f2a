"""EmbInv: read the text back out of a sentence embedding."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors_embinv import EmbInvError

if TYPE_CHECKING:
    from .configuration_embinv import EmbInvConfig
    from .generation_config_embinv import EmbInvGenerationConfig
    from .generation_embinv import EmbInvGenerationOutput
    from .modeling_embinv import EmbInvForMaskedDiffusion, EmbInvOutput
    from .settings_embinv import SearchSettings

_MODULES = {
    "EmbInvConfig": "configuration_embinv",
    "EmbInvForMaskedDiffusion": "modeling_embinv",
    "EmbInvGenerationConfig": "generation_config_embinv",
    "EmbInvGenerationOutput": "generation_embinv",
    "EmbInvOutput": "modeling_embinv",
    "SearchSettings": "settings_embinv",
}
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


def __getattr__(name: str) -> Any:
    """Imports torch and transformers with the first name that needs them: a command's help comes without."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(f"{__name__}.loading")  # AutoConfig and AutoModel know EmbInv from then on
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "transformers" in sys.modules:  # somebody may be about to load a checkpoint through AutoModel
    import_module(f"{__name__}.loading")
