"""The labelled retrieval set of `embinv audit --defences`: a sentence, and the rest of its paragraph.

    python experiments/retrieval_set.py ../shared/corpus 18f.gsa.gov.git handbook.git the-wealth-of-nations.git …

The documents are Markdown files of 18F and chapters of Standard Ebooks that hold a sentence of the corpus' held-out
parts; their paragraphs hold none of its training parts. From each passage of a
paragraph the sentence in the middle is taken out: it
is the query, and what is left is its passage. Writes `modeling_embinv/audit/retrieval_set.txt`; the repositories are
clones, bare or not.
"""

import argparse
import html
import lzma
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from modeling_embinv.data.files import write_text

OUT = Path(__file__).parents[1] / "modeling_embinv" / "audit" / "retrieval_set.txt"
PARTS = ("gov-18f", "books-nonfiction")
COUNT = 300
# characters of a passage and its query, of a passage alone, and of a query
LONGEST, SHORTEST, QUERY = 480, 100, (40, 200)
HEAD = """\
# Sentences and the rest of their passages, with a tab between them, made by experiments/retrieval_set.py. No sentence
# of them was trained on. Sources: 18F's blog, guides and handbook (github.com/18F: 18f.gsa.gov, handbook), public
# domain in the USA, CC0 1.0 elsewhere; non-fiction of Standard Ebooks (github.com/standardebooks: Adam Smith, Charles
# Darwin, W. E. B. Du Bois, Mark Twain), public domain, edition CC0 1.0.
"""
LINK, MARKUP = re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), re.compile(r"[*_`]+|<[^>]*>|\{[%{#].*?[%}#]\}|\[\^\w+\]")
PARAGRAPH = re.compile(r"<p\b[^>]*>(.*?)</p>", flags=re.S)
UNFIT = re.compile(r"https?:|[{}|\\@]|TODO")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z“\"])")


def key(sentence: str) -> str:
    """A sentence without capitals and punctuation."""
    return "".join(character for character in sentence.casefold() if character.isalnum())


def keys(lines: list[str]) -> set[str]:
    """The sentences of a part of the corpus; a line may hold several."""
    return {key(one) for line in lines for one in (line, *SENTENCE.split(line))}


def documents(repository: str) -> Iterator[list[list[str]]]:
    """The plain paragraphs of each Markdown file and each chapter, each as its sentences."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", repository, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout

    for path in git("ls-tree", "-r", "--name-only", "HEAD").splitlines():
        if path.endswith(".md"):
            blocks = [block for block in git("show", f"HEAD:{path}").split("\n\n") if block[:1].isalpha()]
        elif path.endswith(".xhtml"):
            blocks = PARAGRAPH.findall(git("show", f"HEAD:{path}"))
        else:
            continue
        texts = (MARKUP.sub("", LINK.sub(r"\1", html.unescape(block))) for block in blocks)
        yield [SENTENCE.split(" ".join(text.split())) for text in texts if not UNFIT.search(text)]


def pairs(paragraphs: list[list[str]], held_out: set[str], training: set[str]) -> Iterator[tuple[str, str]]:
    """(query, passage) of the paragraphs that fit; none of a document that is not held out."""
    if not held_out.intersection(key(one) for sentences in paragraphs for one in sentences):
        return
    for sentences in (part for paragraph in paragraphs for part in passages(paragraph)):
        if len(sentences) < 3 or training.intersection(map(key, sentences)):
            continue
        middle = len(sentences) // 2
        query, passage = sentences[middle], " ".join(sentences[:middle] + sentences[middle + 1 :])
        if QUERY[0] <= len(query) <= QUERY[1] and len(passage) >= SHORTEST:
            yield query, passage


def passages(sentences: list[str]) -> Iterator[list[str]]:
    """Consecutive sentences of a paragraph, of about `LONGEST` characters at most."""
    part: list[str] = []
    for sentence in sentences:
        if len(part) >= 3 and len(" ".join([*part, sentence])) > LONGEST:
            yield part
            part = []
        part.append(sentence)
    yield part


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("repositories", nargs="+")
    options = parser.parse_args(arguments)
    held_out, training = set(), set()
    for part in PARTS:
        held_out |= keys((options.corpus / f"heldout/en/{part}.txt").read_text(encoding="utf-8").splitlines())
        with lzma.open(options.corpus / f"en/{part}.txt.xz", "rt", encoding="utf-8") as file:
            training |= keys(list(file))
    found = (document for repository in options.repositories for document in documents(repository))
    unique = {query: passage for document in found for query, passage in pairs(document, held_out, training)}
    lines = [f"{query}\t{passage}\n" for query, passage in sorted(unique.items())]
    step = max(len(lines) / COUNT, 1)
    kept = [lines[int(index * step)] for index in range(min(COUNT, len(lines)))]
    write_text(OUT, HEAD + "".join(kept))
    print(f"{OUT}: {len(kept)} of {len(lines)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
