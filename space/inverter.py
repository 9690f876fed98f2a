"""The model and its encoder behind the Space's events: texts and vectors in, drafts and figures out."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from streaming import Clock, Watch, streamed
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.logging import disable_progress_bar

from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.settings_embinv import SearchSettings
from modeling_embinv.texts_embinv import decode_rows, text_ids
from modeling_embinv.verdicts_embinv import TEXT_VERDICTS, verdict_of

# of vectors that the page's own encoder made, so that none is another's
OWN_VERDICTS = TEXT_VERDICTS | {
    "unrelated": "a text that this model cannot write, such as one in another language than English"
}
ADVICE = "choose a faster preset, fewer candidates, corrections or searches"


@dataclass
class Draft:
    """One state of the text: pieces, None where a token is masked, and how sure the model is of each.

    Attributes:
        label: which one it is: a pass of the first draft, or a round of the search.
        confidence: of each piece, once it is known: a search knows it at its end.
        joined: whether a piece continues the word before it.
        cosine: of the text with the vector, by what judges the search; None in the first draft.
        seconds: since the model began.
    """

    label: str
    pieces: list[str | None]
    confidence: list[float] | None
    joined: list[bool]
    cosine: float | None = None
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
    """A recovered text, its token ids and its figures; accuracy in [0, 1], where the original is known.

    The cosine is the encoder's. seconds: of the model, without what the page does meanwhile.
    """

    text: str
    ids: list[int]
    num_forward_passes: int
    seconds: float
    cosine: float
    accuracy: float | None = None
    encoder_calls: int = 0
    surrogate_calls: int = 0

    @property
    def verdict(self) -> str:
        """What the cosine says, a key of `OWN_VERDICTS`."""
        return verdict_of(self.cosine, "encoder")

    @property
    def verdict_in_words(self) -> str:
        """What that means of a vector by the page's own encoder."""
        return OWN_VERDICTS[self.verdict]

    def as_json(self) -> dict[str, Any]:
        """For the API."""
        return asdict(self) | {"seconds": round(self.seconds, 4)}


def in_int8(model: PreTrainedModel) -> PreTrainedModel:
    """The model at about twice the speed, or as it is where its dtype or this processor has no int8."""
    try:
        return model.to_int8()
    except ValueError:
        return model


class Inverter:
    """An inverter, its tokenizer and its encoder, which embeds inputs and measures cosines."""

    def __init__(self, path: str, device: str = "cpu") -> None:
        name, _, revision = path.partition("@") if not Path(path).exists() else (path, "", "")
        disable_progress_bar()  # "Loading weights" says nothing of use in a log
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

    @property
    def judges(self) -> tuple[str, ...]:
        """What may judge texts, the default first: the surrogate needs no encoder."""
        return ("surrogate", "encoder") if self.model.config.surrogate_rank else ("encoder",)

    def cut(self, text: str) -> tuple[str, list[int], bool]:
        """The text as far as the model can write it, its token ids, and whether something was cut."""
        coded = self.tokenizer(text, add_special_tokens=False, truncation=False, return_offsets_mapping=True)
        ids, kept = coded["input_ids"], coded["input_ids"][: self.max_tokens]
        is_cut = len(ids) > len(kept)
        return (text[: coded["offset_mapping"][len(kept) - 1][1]] if is_cut else text), kept, is_cut

    def unknown(self, text: str) -> list[str]:
        """The parts of a text that the tokenizer has no token for, each once."""
        return self._parts(text, {self.tokenizer.unk_token_id})

    def special(self, text: str) -> list[str]:
        """The parts of a text that are special tokens, such as [SEP], each once."""
        return self._parts(text, {*self.tokenizer.all_special_ids} - {self.tokenizer.unk_token_id})

    def _parts(self, text: str, tokens: set[int]) -> list[str]:
        """The parts of a text that have one of these tokens, each once."""
        coded = self.tokenizer(text, add_special_tokens=False, truncation=False, return_offsets_mapping=True)
        pairs = zip(coded["input_ids"], coded["offset_mapping"], strict=True)
        return list(dict.fromkeys(text[slice(*span)] for token, span in pairs if token in tokens))

    def embed(self, texts: list[str]) -> Tensor:
        """(N, D) unit vectors."""
        return self.encoder.encode(texts)

    def drafts(
        self, vector: Tensor, seed: int = 0, feedback: str | None = "encoder", **settings: Any
    ) -> Iterator[Draft | Result | None]:
        """Every state of a text as it is made, then its result.

        First comes a draft, pass by pass, without a search; then, where the settings ask for one, the best text of
        each round of the search.

        Args:
            feedback: what judges candidates and corrections, "encoder" or "surrogate".
            settings: of `generate`, those of the search among them.

        Yields:
            `Draft` after `Draft`, None each second without one, and one `Result`. Once the generator is closed, the
            model stops at its next forward pass.
        """
        search = {name: settings.pop(name) for name in SearchSettings.table() if name in settings}
        search_settings = SearchSettings.of({**self.model.generation_config.search.changed(), **search})
        one = {"num_candidates": 1, "num_corrections": 0}

        def work(put: Callable[[Draft], None]) -> Result:
            clock = Clock()
            streamer = _Streamer(self, put, clock)
            output = self.generate(vector[None], seed, streamer=streamer, **one, **settings)
            if search_settings.is_search:
                passes = output.num_forward_passes
                output = self.generate(
                    vector[None], seed, feedback=feedback, on_round=streamer.put_round, **search, **settings
                )
                output.num_forward_passes += passes
                last = self.draft(output.sequences[0], "result", output.confidence[0], clock())
                put(replace(last, cosine=None if output.cosine is None else float(output.cosine[0])))
            return self._result(output, vector, clock())

        for _, item in streamed(self.watch, work, ADVICE):
            yield item

    def _result(self, output: ModelOutput, vector: Tensor, seconds: float) -> Result:
        """The text of that output (B = 1) and its figures."""
        text = self.decode(output.sequences)[0]
        cosine = float(self.embed([text])[0] @ torch.nn.functional.normalize(vector, dim=-1))
        calls = dict(encoder_calls=output.num_feedback_calls or 0, surrogate_calls=output.num_surrogate_calls or 0)
        ids = output.sequences[0].tolist()
        return Result(text, ids, output.num_forward_passes, seconds, cosine, **calls)

    def generate(self, vectors: Tensor, seed: int = 0, feedback: Any = None, **settings: Any) -> ModelOutput:
        """`generate` of the model.

        Args:
            feedback: "encoder", "surrogate", a function of texts, or None.
            settings: those of None are the model's own.
        """
        settings = {name: value for name, value in settings.items() if value is not None}
        settings |= {"feedback": self.embed if feedback == "encoder" else feedback, "tokenizer": self.tokenizer}
        return self.model.generate(vectors, generator=torch.Generator().manual_seed(seed), **settings)

    def decode(self, sequences: Tensor) -> list[str]:
        """The texts of the ids (B, L) before their end token, what is masked left out."""
        return decode_rows(self.tokenizer, sequences, self.end)

    def draft(self, ids: Tensor, label: str, confidence: Tensor | None = None, seconds: float = 0.0) -> Draft:
        """A row of ids (L), with their confidence (L), as pieces of text."""
        (text,) = text_ids(ids[None], self.end)
        pieces, joined = [], []
        for token, name in zip(text, self.tokenizer.convert_ids_to_tokens(text), strict=True):
            continues = name.startswith("##") or (self._marks_beginnings and not name.startswith(("▁", "Ġ")))
            pieces.append(None if token == self.mask else self.tokenizer.decode([token]).strip().removeprefix("##"))
            joined.append(continues and token != self.mask)
        values = None if confidence is None else [round(float(value), 4) for value in confidence[: len(text)]]
        return Draft(label, pieces, values, joined, seconds=round(seconds, 4))

    def accuracy(self, ids: list[int], sequence: list[int]) -> float:
        """Share of the original's tokens, its end included, that stand at their own position."""
        target = [*ids, self.end]
        return sum(ours == theirs for ours, theirs in zip(target, sequence, strict=False)) / len(target)

    @property
    def _marks_beginnings(self) -> bool:
        """Whether this vocabulary marks where words begin (SentencePiece, byte-level BPE), not where they go on."""
        return not getattr(self.tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None)


class _Streamer:
    """What `generate` hands its drafts and rounds to; it puts them as `Draft`."""

    def __init__(self, inverter: Inverter, put: Callable[[Draft], None], clock: Clock) -> None:
        self.inverter, self.put_one, self.clock = inverter, put, clock
        length = inverter.model.config.max_sequence_length
        self.passes = 0
        put(inverter.draft(torch.full((length,), inverter.mask), "draft, nothing written"))

    def put_draft(self, ids: Tensor, confidence: Tensor) -> None:
        """The canvas (1, L) after a pass."""
        self.passes += 1
        self.put_one(self.inverter.draft(ids[0], f"draft, pass {self.passes}", confidence[0], self.clock()))

    def put_round(self, one: Any) -> None:
        """The best text after a round, a `SearchRound`; round 0 are the candidates."""
        label = f"round {one.number} of {one.total}" if one.number else "best candidate"
        draft = self.inverter.draft(one.sequences[0], label, seconds=self.clock())
        self.put_one(replace(draft, cosine=None if one.judge is None else float(one.cosine[0])))

    def put(self, ids: Tensor) -> None:
        """The text, which the result has as well."""

    def end(self) -> None:
        """Nothing comes after it."""
