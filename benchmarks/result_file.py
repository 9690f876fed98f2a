"""Where a benchmark writes its results."""

from pathlib import Path


def result_file(path: str) -> Path:
    """The path of a flag, with its folder made: a folder that is missing would be found out when all is measured."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    return file
