"""The closed loop of a tiny model, shared by the tests of redrafts and moves."""

from modeling_embinv.generation_embinv import Denoiser
from modeling_embinv.judge_embinv import Judge
from modeling_embinv.search_embinv import ClosedLoop
from modeling_embinv.settings_embinv import SearchSettings
from tests.tiny_models import bag_of_tokens


def loop_of(model, **changes) -> ClosedLoop:
    """A loop on a canvas of 12 tokens; a bag of tokens stands for the surrogate that judges.

    Args:
        changes: of `SearchSettings`.
    """
    settings = SearchSettings(**changes)
    config = model.generation_config.with_changes(search=settings, max_length=12)
    return ClosedLoop(Denoiser(model, config), settings, Judge(bag_of_tokens([]), 0.0, "surrogate"))
