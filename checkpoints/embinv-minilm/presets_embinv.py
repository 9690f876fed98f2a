"""The presets of `generate`: a name each for the settings of little, some or much search.

They import no torch, so that `embinv --help` need not wait for it.
"""

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from .errors_embinv import EmbInvError
from .errors_embinv import shown
from .settings_embinv import SearchSettings


@dataclass(frozen=True)
class Preset:
    """Settings of `generate` under a name.

    Attributes:
        help: one line, for a flag or a control.
        settings: by name; they win over the checkpoint's own.
        feedback: the judge, "surrogate" or None.
    """

    name: str
    help: str
    settings: Mapping[str, int] = field(default_factory=dict)
    feedback: str | None = None


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("quick", "one text for each vector, without a search", {"num_candidates": 1, "num_corrections": 0}),
        Preset(
            "standard",
            "a narrow search with the checkpoint's surrogate, which needs no encoder",
            {"num_candidates": 24, "num_corrections": 4, "num_beams": 1, "num_proposals": 24, "num_hops": 2},
            "surrogate",
        ),
        Preset(
            "thorough",
            "a wider and longer search with the surrogate",
            {"num_candidates": 32, "num_corrections": 10, "num_beams": 4, "num_proposals": 32},
            "surrogate",
        ),
    )
}
# a search of single edits: what an audit runs, and one of those that the calibration is fitted on; chains recover more
# of short texts, and no more of long ones and of noised vectors (experiments/results/tried.json)
NARROW: Mapping[str, int] = {"num_candidates": 24, "num_corrections": 5, "num_beams": 2, "num_proposals": 32}
# of the commands `invert` and `demo`, the pipeline and the Space
DEFAULT_PRESET = "standard"


@dataclass(frozen=True)
class Chosen:
    """What `choose` makes of a preset and of single settings.

    Attributes:
        preset: the name of the one that was taken; None where single settings stand alone.
        settings: arguments of `generate`, without its `feedback`.
        note: one line on a preset that could not be taken, or "".
    """

    preset: str | None
    settings: dict[str, Any]
    feedback: Callable[..., Any] | str | None
    note: str = ""


def choose(model: Any, name: str | None, given: Mapping[str, Any]) -> Chosen:
    """The settings of a preset, where one is named or nothing else is given, and of what is given beside it.

    1. A named preset is taken; what is given beside it wins. A whole `search` replaces the preset's.
    2. Without a name, single settings override the model's own, and no preset is taken. Nor is one for a model
       whose own settings search. A search without a judge is ranked by likelihood.
    3. Without both, the preset is "standard". `feedback` alone names its judge, and None leaves "quick".
    4. A model without a surrogate falls back from "standard" to "quick", and `note` says so.
    5. Where there is no search and no judge is named, a surrogate measures the one draft, and changes nothing.

    Args:
        model: an inverter.
        name: of a preset, or None.
        given: arguments of `generate` that somebody set, `feedback` among them if they did.

    Raises:
        EmbInvError: for an unknown preset, for a named one that needs a surrogate which the model lacks, and for
            settings of a search beside "quick", which has none.
    """
    check_preset(name)
    settings = dict(given)
    has_judge, feedback = "feedback" in settings, settings.pop("feedback", None)
    if name is None and (settings or model.generation_config.search.is_search):
        is_measured = not has_judge and model.surrogate is not None and not _search_of(model, settings).is_search
        return Chosen(None, settings, "surrogate" if is_measured else feedback)
    is_draft = has_judge and feedback is None
    preset = PRESETS[name or ("quick" if is_draft else DEFAULT_PRESET)]
    feedback = feedback if has_judge else preset.feedback
    note = ""
    if not has_judge and feedback == "surrogate" and model.surrogate is None:
        if name is not None:
            raise EmbInvError(without_surrogate(name))
        preset, feedback = PRESETS["quick"], None
        note = f"this checkpoint has no surrogate, so the preset is quick in place of {DEFAULT_PRESET}"
    own = {} if "search" in settings else preset.settings
    chosen = {**own, **settings}
    is_one_draft = chosen.get("num_candidates") == 1 and chosen.get("num_corrections") == 0
    if is_one_draft:
        SearchSettings().check_alone(settings)
    if is_one_draft and not has_judge and model.surrogate is not None:
        feedback = "surrogate"
    return Chosen(preset.name, chosen, feedback, note)


def _search_of(model: Any, settings: Mapping[str, Any]) -> SearchSettings:
    """The search of a call: the model's own, or that of a configuration that is given, with what is set beside it."""
    own = settings.get("generation_config") or model.generation_config
    single = {name: settings[name] for name in SearchSettings.table() if name in settings}
    return SearchSettings.of(settings.get("search", getattr(own, "search", None)), **single)


def check_preset(name: Any) -> None:
    """Raises EmbInvError for what is no name of a preset and not None."""
    if name is not None and not (isinstance(name, str) and name in PRESETS):
        raise EmbInvError(f"preset must be one of {', '.join(PRESETS)}, got {shown(name)}.")


def without_surrogate(name: str) -> str:
    """The line on a preset that a checkpoint without a surrogate cannot serve."""
    return (
        f"the preset {name} needs a surrogate, and this checkpoint has none: take quick, or the encoder as feedback."
    )
