"""The attacker who knows what the texts of a store are about, and has others on the same subject."""

from collections.abc import Sequence

from ..data.tokens import tokenize
from ..errors_embinv import EmbInvError
from ..progress.rates import counted
from .attack import Attacker, Tier
from .kinds import KindFinder
from .known_pairs import FEWEST
from .sample import Sample
from .tiers import TierResult, beside_known, run_tier
from .words import without


def learnable(attacker: Attacker, sample: Sample, texts: Sequence[str]) -> list[str]:
    """The texts that the checkpoint can write, without those that are attacked.

    Raises:
        EmbInvError: fewer than `FEWEST` are left.
    """
    others, longest = without(texts, sample.texts or []), attacker.model.config.max_sequence_length - 1
    sizes = map(len, tokenize(attacker.tokenizer, others))
    kept = [text for text, size in zip(others, sizes, strict=True) if 0 < size <= longest]
    if len(kept) < FEWEST:
        raise EmbInvError(
            f"--train-texts: {len(kept)} of {counted(len(texts), 'text')} can be learned, those of at most {longest} "
            f"tokens that are not attacked; at least {FEWEST} are needed."
        )
    return kept


def run_subject_tier(
    attacker: Attacker, sample: Sample, texts: Sequence[str], steps: int, limit: int, finder: KindFinder | None
) -> TierResult:
    """Fine-tunes the checkpoint on texts with the encoder's vectors, and attacks with the encoder as judge.

    Args:
        attacker: with the encoder, and able to train.
        sample: the rows.
        texts: on the subject of the store, see `learnable`.
        steps: updates of the training.
        limit: rows that are attacked.
        finder: of entities.
    """
    vectors = attacker.embedded(texts)
    trained = attacker.trained_on(texts, vectors, "subject", steps)
    holds = f"a copy of the vectors, the encoder, and {counted(len(texts), 'text')} on their subject"
    result = run_tier(trained, sample, Tier("subject", holds, "encoder", limit=limit), finder)
    return beside_known(result, texts, vectors, attacker.seed)
