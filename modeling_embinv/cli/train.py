"""`embinv train`, which is train.py, too."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .outcome import epilog, on_interrupt, outcome

if TYPE_CHECKING:
    from ..training.config import TrainingConfig

_EXAMPLES = """
PROG configs/minilm_32.yaml
PROG configs/minilm_cpu.yaml --pairs data/mine_16 --output-dir runs/small
PROG --init-from checkpoints/embinv-minilm --pairs data/mine_32 --encoder minilm --output-dir runs/mine \\
--max-steps 300 --batch-size 64 --learning-rate 1e-4 --embedding-rate 0.1 --warmup-steps 20 --loss-weight none \\
--full-mask-share 0.15 --ema-decay 0.98 --eval-steps 100 --save-steps 50
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
    of_before = set() if config.resume else _checkpoints(config)
    with on_interrupt(lambda: _newest_checkpoint(config, of_before)):
        from ..training.assemble import train

        train(config)


def _checkpoints(config: "TrainingConfig") -> set[tuple[str, int]]:
    """Names and inodes of the checkpoints that lie there; a `.partial` is none."""
    folders = [path for path in Path(config.output_dir).glob("step-*") if not path.suffix]
    return {(path.name, path.stat().st_ino) for path in folders}


def _newest_checkpoint(config: "TrainingConfig", of_before: set[tuple[str, int]]) -> str:
    """What a run has kept; checkpoints `of_before` are those of a run that it was to replace."""
    folder, found = Path(config.output_dir), _checkpoints(config)
    own = max(found - of_before, default=None)
    if own is not None:
        how = "run the same command" if config.resume else "leave out --no-resume"
        return f"{folder / own[0]} is the newest checkpoint; {how} to resume from it."
    if found:
        newest = folder / max(found)[0]
        return f"The run has no checkpoint yet; {newest} is of the run before: leave out --no-resume to go on with it."
    return f"{folder} holds no checkpoint yet."
