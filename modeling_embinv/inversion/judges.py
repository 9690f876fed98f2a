"""Which encoder judges the texts of a long run, so that the run and its resume have the same."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..data.encoder_config import EncoderConfig, full_id
from ..inputs_embinv import check_feedback, checked_feedback

# What a function makes of this text tells it apart: the first numbers, whose cosine a GPU's rounding moves less.
_PROBE, _NUMBERS, _SAME = "The quick brown fox jumps over the lazy dog.", 8, 0.999
_VECTOR = "begin_of_a_vector"


def judge_identity(feedback: Callable[..., Any] | str | None, embedding_dim: int) -> Any:
    """JSON that tells judges apart: of a `SentenceEncoder` its configuration, of another function a vector it gives.

    Raises:
        EmbInvError: `feedback` is none, or gives no vectors of `embedding_dim` numbers.
    """
    if feedback is None or isinstance(feedback, str):
        return feedback or False
    check_feedback(feedback, None)
    config = getattr(getattr(feedback, "__self__", None), "config", None)
    if isinstance(config, EncoderConfig):
        names = ("revision", "prompt", "task", "max_length")
        return {"id": full_id(config.id)} | {name: getattr(config, name) for name in names}
    vector = checked_feedback(feedback, [_PROBE], 1, embedding_dim)[0, :_NUMBERS].tolist()
    name = getattr(feedback, "__qualname__", type(feedback).__qualname__)
    return {"function": name, _VECTOR: [round(number, 4) for number in vector]}


def unchanged(name: str, before: Any, now: Any) -> bool:
    """Whether a run's setting is as it was; "feedback" as `judge_identity` gives it."""
    if name != "feedback" or not isinstance(now, dict):
        return bool(before == now)
    if before is True:  # an older version noted only that an encoder judged: its parts go on with any
        return True
    if not isinstance(before, dict) or _VECTOR not in before or _VECTOR not in now:
        if isinstance(before, dict) and "id" in before:  # an older version noted a folder as it was given
            before = before | {"id": full_id(before["id"])}
        return bool(before == now)
    left, right = np.array(before[_VECTOR]), np.array(now[_VECTOR])
    return left.shape == right.shape and left @ right >= _SAME * np.linalg.norm(left) * np.linalg.norm(right)
