"""A vector that was typed on the command line."""

import numpy as np

from ..errors_embinv import EmbInvError
from .files import parse_json
from .vector_checks import width_message


def is_typed_vector(source: str) -> bool:
    """Whether a command's argument is meant as a vector, and not as the name of a file."""
    return source.lstrip().startswith("[")


def parse_vector(text: str, embedding_dim: int | None) -> np.ndarray:
    """A vector typed as JSON, `"[0.1, -0.2, …]"`, as (1, D) float64.

    Args:
        text: the argument.
        embedding_dim: D; None = any width.

    Raises:
        EmbInvError: no JSON list of `embedding_dim` numbers.
    """
    if "…" in text or "..." in text:
        raise EmbInvError("the vector is cut: give all of its numbers in place of the ellipsis (… or ...).")
    try:
        values = parse_json(text, parse_int=float)
    except ValueError as error:
        raise EmbInvError(f"the vector is not JSON like [0.1, -0.2]: {error}") from error
    if not isinstance(values, list) or any(type(value) is not float for value in values):
        raise EmbInvError("the vector must be a JSON list of numbers, like [0.1, -0.2]")
    if embedding_dim is not None and len(values) != embedding_dim:
        raise EmbInvError(width_message(len(values), embedding_dim))
    return np.array([values])
