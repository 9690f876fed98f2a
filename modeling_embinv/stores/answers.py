"""Answers of OpenAI's embeddings API, one after another, and the output of its batches."""

from collections.abc import Iterable, Iterator
from typing import Any


def answer_rows(rows: Iterable[Any]) -> Iterator[Any]:
    """The rows, each answer among them as the rows that it holds; a batch's `custom_id` becomes their id."""
    for row in rows:
        if not isinstance(row, dict):
            yield row
        elif "custom_id" in row and "response" in row:
            yield from _named(_embeddings(_body(row["response"])), row["custom_id"])
        elif embeddings := _embeddings(row):
            yield from _named(embeddings, row.get("id"))
        else:
            yield row


def _body(response: Any) -> Any:
    return response.get("body") if isinstance(response, dict) else None


def _embeddings(answer: Any) -> list[Any]:
    """The vectors of an answer; [] if it is none."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(one, dict) and "embedding" in one for one in data):
        return []
    return [one["embedding"] for one in data]


def _named(embeddings: list[Any], name: Any) -> Iterator[dict[str, Any]]:
    """A row for each vector; one without a vector where there is none, as for a request that failed."""
    for index, embedding in enumerate(embeddings or [None]):
        shown = name if len(embeddings) < 2 or name is None else f"{name}/{index}"
        yield {"embedding": embedding} if shown is None else {"id": shown, "embedding": embedding}
