"""What came back of each row; the words themselves only where they are asked for."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .findings import found_whole
from .named_words import Words
from .tiers import TierResult
from .words import WORD, content_words, words

# for a hidden word; and for one that did not come back, where both stand side by side
BAR, LOST = "▇▇▇", "░░░"
# words of a text that a page shows at most
SHOWN = 300


class Hit(NamedTuple):
    """What came back of a row.

    Attributes:
        position: of the row in the tier's sample.
        recovered, wanted: its content words that came back, and all of them; 0 where the store holds no texts.
        exact: whether the whole text came back.
        kinds: kind → (entities that came back whole, all of them).
    """

    position: int
    recovered: int
    wanted: int
    exact: bool
    kinds: dict[str, tuple[int, int]]


def hits(result: TierResult) -> list[Hit]:
    """What came back of each row of a tier; [] where the store holds no texts."""
    found = []
    rows = zip(result.sample.texts or [], result.recovered.texts, result.entities, strict=bool(result.sample.texts))
    for index, (text, recovered, entities) in enumerate(rows):
        wanted, ours = content_words(text), words(recovered)
        kinds: dict[str, tuple[int, int]] = {}
        for one in entities:
            whole, total = kinds.get(one.kind, (0, 0))
            kinds[one.kind] = whole + found_whole([one.words], ours), total + 1
        found.append(Hit(index, len(wanted & set(ours)), len(wanted), bool(ours) and ours == words(text), kinds))
    return found


def row_name(collection: str | None, row: int, identifier: str | None) -> str:
    """A row as a reader finds it in the store: its id, or its number where it has none, after its collection."""
    name = str(row) if identifier is None else identifier
    return name if collection is None else f"{collection}: {name}"


def shortened(text: str) -> tuple[str, str]:
    """The first words of a text that a page shows, and how many more there are, in words."""
    pieces = list(WORD.finditer(text))
    if len(pieces) <= SHOWN:
        return text, ""
    return text[: pieces[SHOWN - 1].end()], f" … and {len(pieces) - SHOWN:,} more words"


def redacted(text: str) -> str:
    """A bar for each word of a text, and nothing else."""
    return " ".join([BAR] * len(WORD.findall(text)))


def hit_rows(
    result: TierResult, reveal: bool, named: Mapping[tuple[str | None, int], Words] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of hits.jsonl.

    Args:
        result: of a tier.
        reveal: whether the recovered words may stand there; else a bar for each.
        named: the words that the word head names, by the row's key.
    """
    found = {hit.position: hit for hit in hits(result)}
    cosines = result.recovered.cosine
    for index, (collection, row) in enumerate(result.sample.row_keys()):
        text = result.recovered.texts[index]
        line: dict[str, Any] = {
            "tier": result.tier.name,
            **({} if collection is None else {"collection": collection}),
            "row": row,
            "id": None if result.sample.ids is None else result.sample.ids[index],
            "cosine": None if cosines is None else cosines[index],
            "confidence": result.recovered.confidence[index],
            "text": text if reveal else redacted(text),
        }
        if named:
            line["named_words"] = [
                {"word": word if reveal else BAR, "probability": round(p, 3)} for word, p in named[collection, row]
            ]
        if hit := found.get(index):
            line["words"] = {"recovered": hit.recovered, "of": hit.wanted}
            line["exact"] = hit.exact
            line["kinds"] = {kind: {"recovered": whole, "of": total} for kind, (whole, total) in hit.kinds.items()}
        yield line
