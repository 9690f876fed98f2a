"""Whether a launcher started this process, told by the environment: a command knows it before PyTorch is loaded."""

import os


def is_launched() -> bool:
    """Whether `accelerate launch` or torchrun started this process, with others or alone."""
    return "LOCAL_RANK" in os.environ


def speaks_for_all() -> bool:
    """Whether this process tells the user what all processes of a launcher would say."""
    return os.environ.get("RANK", "0") == "0"
