"""`embinv train`, which is train.py, too."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .outcome import epilog, on_interrupt, outcome

if TYPE_CHECKING:
    from ..training.config import TrainingConfig

_EXAMPLES = """
PROG configs/minilm_32.yaml
PROG configs/minilm_32.yaml --max-steps 20000 --output-dir runs/longer
PROG --init-from checkpoints/embinv-minilm --pairs data/mine --encoder minilm --output-dir runs/mine
"""


def main() -> int:
    """train.py: its exit status is that of `outcome`."""
    arguments = sys.argv[1:]
    return outcome("train.py", arguments, lambda: run_train(arguments, "train.py"))


def run_train(arguments: list[str], prog: str) -> None:
    """Parses the settings and trains.

    Args:
        arguments: `[config.yaml] [--flag value …]`.
        prog: the name of the program, for its help.

    Raises:
        EmbInvError: for impossible settings or data.
        OSError: for a checkpoint that cannot be read or written.
    """
    from ..training.arguments import parse_training_config

    try:
        config = parse_training_config(arguments, prog, epilog(_EXAMPLES.replace("PROG", prog)))
    except SystemExit:  # after --help
        return
    with on_interrupt(lambda: _newest_checkpoint(config)):
        from ..training.assemble import train

        train(config)


def _newest_checkpoint(config: "TrainingConfig") -> str:
    folder = Path(config.output_dir)
    names = sorted(path.name for path in folder.glob("step-*") if not path.suffix)  # .partial is no checkpoint
    if not names:
        return f"{folder} holds no checkpoint yet."
    how = "run the same command" if config.resume else "leave out --no-resume"
    return f"{folder / names[-1]} is the newest checkpoint; {how} to resume from it."
