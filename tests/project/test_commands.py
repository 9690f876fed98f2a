"""Commands that the docs print: each has the flags that the program has."""

import re
import shlex
from itertools import groupby
from pathlib import Path

import pytest

from modeling_embinv.cli.main import _parsers
from modeling_embinv.training.arguments import parse_training_config

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "experiments/README.md", "benchmarks/README.md", "examples/README.md"]
PAGES += ["space/README.md", "checkpoints/embinv-minilm/README.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))


def printed(page: str) -> list[list[str]]:
    """The arguments of each `embinv` in a page's blocks for the shell; `train.py` is `embinv train`."""
    text = re.sub(r"\\\n\s*", "", (ROOT / page).read_text(encoding="utf-8"))
    lines = "\n".join(re.findall(r"```(?:console|bash|sh)\n(.*?)```", text, flags=re.S)).splitlines()
    found = []
    for line in (line for line in lines if re.search(r"\bembinv |\btrain\.py ", line)):
        words = shlex.shlex(line, posix=True, punctuation_chars="|>&;")
        words.whitespace_split = True
        for is_operator, group in groupby(words, lambda word: set(word) <= set("|>&;")):
            command = list(group)
            if not is_operator and "train.py" in command:
                found.append(["train", *command[command.index("train.py") + 1 :]])
            elif not is_operator and "embinv" in command[:-1]:
                found.append(command[command.index("embinv") + 1 :])
    return found


@pytest.mark.parametrize("page", PAGES)
def test_printed_commands_have_the_flags_of_the_program(page, monkeypatch):
    """A flag or setting that was renamed would stand in a page for good."""
    monkeypatch.chdir(ROOT)
    for command, *arguments in printed(page):
        if command == "train":
            assert parse_training_config(arguments)
        else:
            assert _parsers()[0].parse_args([command, *arguments]).run


def test_commands_are_found():
    """A pattern that finds none passes every page."""
    assert sum(len(printed(page)) for page in PAGES) > 40
    assert ["demo", "--preset", "standard"] in printed("docs/closing_the_loop.md")
    assert ["invert", "-", "--out", "-", "--limit", "10"] in printed("docs/inverting_vectors.md")
