"""The attackers that an audit tries, by name."""

from ..errors_embinv import EmbInvError

# vectors: a copy of them; encoder: and the encoder; guesses: a list of texts; context: redacted texts; pairs: known
# texts with their vectors; subject: texts on the store's subject
TIERS = ("vectors", "encoder", "guesses", "context", "pairs", "subject")
# the flag of what an attacker holds, and those who cannot do without it
FLAGS = {"guesses": "candidates", "context": "template", "pairs": "pairs", "subject": "train_texts"}
NEEDY = ("guesses", "pairs", "subject")
# updates by which "subject" fine-tunes the checkpoint: those of configs/fine_tune.yaml, which were measured
SUBJECT_STEPS = 150


def parse_tiers(given: str) -> tuple[str, ...]:
    """The attackers of `--tiers`, in the order of `TIERS`.

    Args:
        given: names with commas between them.

    Raises:
        EmbInvError: an unknown name, or none.
    """
    names = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in names if name not in TIERS]
    if unknown or not names:
        what = f"unknown: {unknown[0][:40]}" if unknown else "got none"
        raise EmbInvError(f"--tiers must be some of {', '.join(TIERS)}, with commas between them; {what}.")
    return tuple(name for name in TIERS if name in names)
