"""What the vectors of a file look like, where they are not those of the encoder that is expected."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors_embinv import EmbInvError
from ..vectors_embinv import are_whole, has_unit_length, unit_rows

if TYPE_CHECKING:
    from .encoders import Encoder

# Encoders whose vectors are often met, by width.
FAMILIAR = {
    384: "all-MiniLM-L6-v2, bge-small or e5-small",
    512: "CLIP or distiluse",
    768: "all-mpnet-base-v2, bge-base or e5-base",
    1024: "bge-large, e5-large, Cohere or Voyage",
    1536: "OpenAI's text-embedding-3-small or ada-002",
    3072: "OpenAI's text-embedding-3-large",
}
# numbers of the narrowest vectors that somebody may have cut
FEWEST_KEPT = 32
# texts that the encoder embeds to see whether a file's vectors are its own
COMPARED_TEXTS = 32
# Cosine between a file's vectors and the encoder's of the same texts, the median: float16 and int8 leave 0.99 of 1,
# another prompt or a title before each text most of it. Vectors of another encoder, and rotated ones, have about 0.
_LIKE, _ALIKE = 0.95, 0.5


def sample_warnings(vectors: NDArray[np.floating[Any]], encoder: str | None) -> list[str]:
    """What a sample (N, D) of a file's vectors looks like, where it is not what `encoder` gives: a line each."""
    warned, lengths = [], unit_rows(vectors)[1]
    whose = f"those of {encoder}" if encoder else "an encoder's"
    if not has_unit_length(lengths).all():
        ends = dict.fromkeys(f"{length:.3g}" for length in (float(lengths.min()), float(lengths.max())))
        warned.append(
            f"vectors of length {' to '.join(ends)}, not 1 like {whose}; they are scaled to it "
            "(a difference or a mean of vectors is no vector of a text)"
        )
    values = np.unique(vectors) if are_whole(vectors) else None
    if values is not None and len(values) <= 2:
        warned.append(f"every number is one of two: these look like signs (binary quantisation), not like {whose}")
    elif values is not None and values[0] >= 0:
        warned.append(f"whole numbers from 0 on: these look like unsigned quantised vectors, not like {whose}")
    return warned


def width_message(width: int, embedding_dim: int, encoder: str | None = None) -> str:
    """Says that vectors of `width` numbers are not the encoder's, of `embedding_dim`, and what they look like."""
    expected = f"vectors of {width} numbers; expected {embedding_dim}" + (f", those of {encoder}" if encoder else "")
    if width * 8 == embedding_dim:
        return f"{expected}. {width} = {embedding_dim} / 8: these look like packed bits, a sign for each number"
    if width in FAMILIAR:
        return f"{expected}. These look like vectors of another encoder ({FAMILIAR[width]} give {width})"
    if FEWEST_KEPT <= width < embedding_dim:
        return f"{expected}. These look like vectors cut to their first {width} numbers; whole ones are needed"
    return f"{expected}. These look like vectors of another encoder"


def check_encoder_of(
    vectors: NDArray[np.floating[Any]], texts: list[str], encoder: "Encoder", where: str
) -> str | None:
    """Compares a file's vectors with those that the encoder gives of the same texts.

    Args:
        vectors: (N, D), as the file has them.
        texts: N texts, none so long that the encoder would cut it.
        encoder: whose vectors they should be; of one that cannot be loaded nothing is known.
        where: the file, for the message.

    Returns:
        A line where they are near the encoder's, and not its own; else None.

    Raises:
        EmbInvError: they are not near the encoder's.
    """
    if not encoder.can_encode or not texts:
        return None
    own, given = encoder.encode(texts).numpy(), unit_rows(vectors)[0]
    cosine = float(np.median((own * given).sum(axis=1)))
    whose = f"the cosine with those that {encoder.config.id} gives of the same {len(texts)} texts is {cosine:.2f}"
    if cosine < _ALIKE:
        raise EmbInvError(
            f"{where}: these are vectors of another encoder, or of other texts: {whose}, not 1. Name their encoder "
            "with --encoder; for one that cannot be loaded here, a YAML of its id, tokenizer and embedding_dim."
        )
    if cosine < _LIKE:
        return f"{where}: {whose}, not 1: was there a prompt or a title before each text, or noise added?"
    return None
