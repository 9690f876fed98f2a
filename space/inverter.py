"""The model and its encoder behind the Space's events: texts and vectors in, drafts and figures out."""

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel
from transformers.utils import ModelOutput

from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.settings_embinv import SearchSettings, feedback_by_name
from modeling_embinv.texts_embinv import decode_rows, text_ids

LONGEST_SECONDS = 300  # for one call of the model; others wait
HEARTBEAT_SECONDS = 1.0


class VisitorLeft(Exception):
    """Nobody waits for this text any longer."""


class Watch(threading.local):
    """When the model must stop, on this thread: after a time, or once the visitor has left."""

    deadline = float("inf")
    left: threading.Event | None = None

    def check(self, *_: Any) -> None:
        """Hook before each forward pass.

        Raises:
            VisitorLeft, ValueError: at a pass that nobody waits for, or that comes too late.
        """
        if self.left is not None and self.left.is_set():
            raise VisitorLeft
        if time.monotonic() > self.deadline:
            raise ValueError(
                f"Stopped after {LONGEST_SECONDS} seconds: choose fewer candidates, corrections, searches or lines."
            )


@dataclass
class Draft:
    """One state of the canvas: pieces of text, None where a token is masked, and how sure the model is of each.

    joined: whether a piece continues the word before it. seconds: since the model began.
    """

    pieces: list[str | None]
    confidence: list[float]
    joined: list[bool]
    seconds: float = 0.0

    @property
    def masked(self) -> int:
        """Number of masked tokens."""
        return sum(piece is None for piece in self.pieces)

    def as_json(self) -> dict[str, Any]:
        """For the page and the API."""
        return {**asdict(self), "masked": self.masked}


@dataclass
class Result:
    """A recovered text, its token ids and its figures; accuracy in [0, 1], where the original is known."""

    text: str
    ids: list[int]
    num_forward_passes: int
    milliseconds: float
    cosine: float
    accuracy: float | None = None
    encoder_calls: int = 0
    surrogate_calls: int = 0


def in_int8(model: PreTrainedModel) -> PreTrainedModel:
    """The model at about twice the speed, or as it is where its dtype or this processor has no int8."""
    try:
        return model.to_int8()
    except ValueError:
        return model


class Inverter:
    """An inverter, its tokenizer and its encoder, which embeds inputs and measures cosines only."""

    def __init__(self, path: str, device: str = "cpu") -> None:
        name, _, revision = path.partition("@") if not Path(path).exists() else (path, "", "")
        hub = {"trust_remote_code": True, "revision": revision or "main"}
        model = AutoModel.from_pretrained(name, **hub).to(device).eval()
        self.model = in_int8(model) if device == "cpu" else model
        self.tokenizer = AutoTokenizer.from_pretrained(name, **hub)
        self.encoder = load_encoder(EncoderConfig.of_inverter(self.model.config), device)
        self.end, self.mask = self.model.config.eos_token_id, self.model.config.mask_token_id
        self.max_tokens = self.model.config.max_sequence_length - 1
        self.embedding_dim = self.model.config.embedding_dim
        self.watch = Watch()
        self.model.register_forward_pre_hook(self.watch.check)

    def cut(self, text: str) -> tuple[str, list[int], bool]:
        """The text as the model can write it: cut to the canvas, its token ids, and whether something was cut."""
        ids = self.tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]
        kept = ids[: self.max_tokens]
        return self.tokenizer.decode(kept), kept, len(ids) > len(kept)

    def embed(self, texts: list[str]) -> Tensor:
        """(N, D) unit vectors."""
        return self.encoder.encode(texts)

    def drafts(
        self, vector: Tensor, seed: int = 0, feedback: str = "encoder", **settings: Any
    ) -> Iterator[Draft | Result | None]:
        """Every draft of a text as it is made, then, where asked for, the text that the closed loop found; its result.

        Args:
            feedback: what judges candidates and corrections, "encoder" or "surrogate".
            settings: of `generate`, those of the search among them.

        Yields:
            `Draft` after `Draft`, None each second without one, and one `Result`. Once the generator is closed, the
            model stops at its next forward pass.
        """
        queue: Queue[Any] = Queue()
        left = threading.Event()
        start = time.perf_counter()
        search = {name: settings.pop(name) for name in SearchSettings.table() if name in settings}

        class Streamer:
            def put_draft(self, ids: Tensor, confidence: Tensor) -> None:
                queue.put((ids[0], confidence[0], time.perf_counter() - start))

            def put(self, ids: Tensor) -> None: ...

            def end(self) -> None: ...

        def run() -> None:
            self.watch.left = left
            try:
                output = self.generate(vector[None], seed, streamer=Streamer(), **settings)
                if SearchSettings.of(search).is_search:
                    passes = output.num_forward_passes
                    output = self.generate(vector[None], seed, feedback=feedback, **search, **settings)
                    output.num_forward_passes += passes
                    queue.put((output.sequences[0], output.confidence[0], time.perf_counter() - start))
                queue.put(self._result(output, vector, time.perf_counter() - start))
            except Exception as error:  # handed on to whoever reads the drafts
                queue.put(error)

        threading.Thread(target=run, daemon=True).start()
        length = settings.get("max_length") or self.model.config.max_sequence_length
        try:
            yield self.draft(torch.full((length,), self.mask), torch.zeros(length), 0.0)
            while not isinstance(item := _next(queue), Result):
                if isinstance(item, Exception):
                    raise item
                yield None if item is None else self.draft(*item)
            yield item
        finally:
            left.set()

    def _result(self, output: ModelOutput, vector: Tensor, seconds: float) -> Result:
        """The text of that output (B = 1) and its figures."""
        text = self.decode(output.sequences)[0]
        cosine = float(self.embed([text])[0] @ torch.nn.functional.normalize(vector, dim=-1))
        calls = dict(encoder_calls=output.num_feedback_calls, surrogate_calls=output.num_surrogate_calls)
        ids = output.sequences[0].tolist()
        return Result(text, ids, output.num_forward_passes, 1000 * seconds, cosine, **calls)

    def generate(self, vectors: Tensor, seed: int = 0, **settings: Any) -> ModelOutput:
        """`generate` of the model; settings of None are the model's own, `feedback` is "encoder" or "surrogate"."""
        settings = {name: value for name, value in settings.items() if value is not None}
        feedback = feedback_by_name(settings.pop("feedback", None), lambda: self.embed)
        settings |= {"feedback": feedback, "tokenizer": self.tokenizer}
        self.watch.deadline = time.monotonic() + LONGEST_SECONDS
        return self.model.generate(vectors, generator=torch.Generator().manual_seed(seed), **settings)

    def decode(self, sequences: Tensor) -> list[str]:
        """The texts of the ids (B, L) before their end token, what is masked left out."""
        return decode_rows(self.tokenizer, sequences, self.end)

    def draft(self, ids: Tensor, confidence: Tensor, seconds: float = 0.0) -> Draft:
        """A row of ids (L) with their confidence (L) as pieces of text."""
        (ids,) = text_ids(ids[None], self.end)
        pieces, joined = [], []
        for token, name in zip(ids, self.tokenizer.convert_ids_to_tokens(ids), strict=True):
            continues = name.startswith("##") or (self._marks_beginnings and not name.startswith(("▁", "Ġ")))
            pieces.append(None if token == self.mask else self.tokenizer.decode([token]).strip().removeprefix("##"))
            joined.append(continues and token != self.mask)
        return Draft(pieces, [round(float(value), 4) for value in confidence[: len(ids)]], joined, round(seconds, 4))

    def accuracy(self, ids: list[int], sequence: list[int]) -> float:
        """Share of the original's tokens, its end included, that stand at their own position."""
        target = [*ids, self.end]
        return sum(ours == theirs for ours, theirs in zip(target, sequence, strict=False)) / len(target)

    @property
    def _marks_beginnings(self) -> bool:
        """Whether this vocabulary marks where words begin (SentencePiece, byte-level BPE), not where they go on."""
        return not getattr(self.tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None)


def _next(queue: Queue[Any]) -> Any:
    """The next item, or None where a second brings none: whoever reads may notice that the visitor has left."""
    try:
        return queue.get(timeout=HEARTBEAT_SECONDS)
    except Empty:
        return None
