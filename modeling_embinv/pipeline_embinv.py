"""`pipeline("embedding-inversion")`: vectors in, texts with confidences out."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel
from transformers import Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from .errors_embinv import EmbInvError
from .errors_embinv import is_whole
from .errors_embinv import shown
from .errors_embinv import warn
from .gap_marks_embinv import MARKS
from .gap_marks_embinv import GapReader
from .generation_config_embinv import INSTEAD
from .generation_config_embinv import EmbInvGenerationConfig
from .hypotheses_embinv import SearchRound
from .inputs_embinv import as_rows
from .inputs_embinv import check_embeddings
from .inputs_embinv import check_generator
from .inputs_embinv import check_texts
from .integrity_embinv import check_tokenizer
from .presets_embinv import choose
from .settings_embinv import FillSettings
from .texts_embinv import written_texts
from .verdicts_embinv import TEXT_VERDICTS
from .verdicts_embinv import verdict_of

TASK = "embedding-inversion"
# vectors at a time, by default and at most
BATCH_SIZE, MAX_BATCH = 64, 2**20


class EmbeddingInversionPipeline(Pipeline):
    """`pipeline("embedding-inversion", model=folder_or_repo, trust_remote_code=True)(vectors)`.

    With a model that is loaded already: `pipeline("embedding-inversion", model=model, tokenizer=tokenizer)`.
    """

    # True, False or None, as the library's comment says; its types know None alone
    _load_processor = False  # type: ignore[assignment]
    _load_image_processor = False  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]
    _load_tokenizer = True  # type: ignore[assignment]
    model: Any  # a model with `generate`: this package's class, or the one of a checkpoint's own code

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # the library would hand all of them to `_forward`, those of `fill` as well
        self._own, self._forward_params = self._forward_params, {}
        if self.tokenizer is None:
            raise EmbInvError("the pipeline needs the model's tokenizer: give it as tokenizer.")
        check_tokenizer(self.model.config, self.tokenizer)

    def __call__(  # type: ignore[override]  # the library's first argument has another name, and no default
        self, embeddings: Any = None, batch_size: int | None = None, **kwargs: Any
    ) -> dict[str, Any] | list[dict[str, Any]] | Iterator[dict[str, Any]]:
        """Read texts out of vectors.

        Args:
            embeddings: (N, D) or (D,): tensor, array, or lists of numbers; or an iterator of vectors (D,), one at a
                time, of which `batch_size` are read together.
            batch_size: vectors at a time, 64 by default. It changes no text.
            kwargs: `preset`, "quick", "standard" or "thorough", see `choose`: without single settings it is
                "standard", a search that takes seconds a vector on a CPU; `seed` of sampling, 0 by default, or a
                `generator`; `feedback`, "surrogate" or an encoder (N texts → (N, D)), which checks candidates and
                corrections; and the settings of `generate`. With `texts`, a redacted text for each vector, its gaps
                are filled, for which nothing is drawn; the others are then arguments of `fill`. Those that the
                pipeline was made with stand where the call does not replace them.

        Returns:
            For each vector, or the one: text, confidence (the mean of its tokens'), tokens, token_confidence; with
            feedback, which `choose` may add, also cosine, verdict and verdict_in_words, see `TEXT_VERDICTS`. For an
            iterator of vectors, an iterator. With `texts`: text, cosine, verdict and gaps, see `FilledText`.

        Examples:
            >>> pipe(vectors, texts=["Dear <NAME>, you owe us ▇▇▇."], feedback=encoder.encode)

        Raises:
            EmbInvError: for vectors of another width, NaN, infinite or all-zero ones, for texts that cannot be filled,
                and for unknown settings.
        """
        if batch_size is None:
            batch_size = BATCH_SIZE if self._batch_size is None else self._batch_size
        if not is_whole(batch_size, 1, MAX_BATCH):
            raise EmbInvError(f"batch_size must be a whole number from 1 to {MAX_BATCH:,}, got {shown(batch_size)}.")
        kwargs = self._with_own(kwargs)
        for name in ("draft_ids", "return_history", "tokenizer"):
            if name in kwargs:
                raise EmbInvError(f"the pipeline takes no {name}: use generate of the model.")
        if "inputs" in kwargs:
            raise EmbInvError(f"unknown argument inputs: {INSTEAD['inputs']}.")
        preset = kwargs.pop("preset", None)
        generator = self._generator(kwargs.pop("seed", None), kwargs.pop("generator", None))
        if kwargs.get("texts") is not None:
            if preset is not None:
                raise EmbInvError("a preset is of inverted vectors: leave it out where texts are filled.")
            return self._fill(embeddings, batch_size=batch_size, **kwargs)
        kwargs = self._arguments(preset, **kwargs) | {"generator": generator}
        run: Callable[..., Any] = super().__call__  # the library's method has no types
        if isinstance(embeddings, Iterable) and not hasattr(embeddings, "__len__"):
            batches = run(self._batches(iter(embeddings), batch_size), batch_size=1, **kwargs)
            return (row for batch in batches for row in batch)
        vectors = None if embeddings is None else as_rows(embeddings, "embeddings")
        unit = check_embeddings(vectors, self.model.config.embedding_dim)
        assert vectors is not None  # `check_embeddings` refuses None
        self._warn_of_lengths(vectors, unit)
        batches = [(index * batch_size, part) for index, part in enumerate(unit.split(batch_size))]
        rows = [row for batch in run(batches, batch_size=1, **kwargs) for row in batch]
        return rows[0] if vectors.ndim == 1 and rows else rows

    def _with_own(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call with those that the pipeline was made with, but for what the call replaces."""
        fills = (self._own | given).get("texts") is not None  # nothing is drawn then, and no preset is taken
        draws = any(given.get(name) is not None for name in ("seed", "generator"))
        replaced = {"preset": fills, "seed": draws, "generator": draws}
        own = {name: value for name, value in self._own.items() if not replaced.get(name)}
        others = _drawing() - _filling() if fills else _filling() - _drawing()  # settings of the other task stand by
        return {name: value for name, value in own.items() if name not in others} | given

    def _fill(
        self, embeddings: Any, texts: Any, batch_size: int, first_row: int = 0,
        marks: Sequence[str] = tuple(MARKS), choices: Mapping[str, Sequence[str]] | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """The dictionaries of filled texts, or the one of a single vector; nothing is drawn."""
        kwargs.pop("num_workers", None)  # the library's, of the batches that `generate` gets
        if isinstance(embeddings, Iterator):
            embeddings = list(embeddings)  # their texts are in memory, too
        vectors = check_embeddings(embeddings, self.model.config.embedding_dim, first_row)
        texts = check_texts(texts, len(vectors))
        self._warn_of_lengths(embeddings, vectors)
        filled: list[dict[str, Any]] = []
        reader = GapReader(self.tokenizer, self.model.config.mask_token_id, marks, choices or {})
        asked = reader.choices_for(texts)
        unasked = {tag: words for tag, words in reader.choices.items() if tag not in asked}
        for start in range(0, len(texts), batch_size):
            part = slice(start, start + batch_size)
            # a list that marks of other batches ask for is no mistake; one that none asks for is told once
            known = reader.choices_for(texts[part]) | (unasked if start == 0 else {})
            of_batch = {"first_row": first_row + start, "marks": marks, "choices": known, **kwargs}
            output = self.model.fill(vectors[part], texts[part], self.tokenizer, **of_batch)
            filled += [text.as_dict() for text in output.texts]
        return filled[0] if filled and as_rows(embeddings, "embeddings").ndim == 1 else filled

    def _arguments(self, preset: str | None, on_round: Any = None, **kwargs: Any) -> dict[str, Any]:
        """The arguments of `generate`: those of a preset, and those that were given."""
        chosen = choose(self.model, preset, kwargs)
        if chosen.note:
            warn(chosen.note)
        return {**chosen.settings, "feedback": chosen.feedback, "on_round": on_round}

    @staticmethod
    def _generator(seed: int | None = None, generator: torch.Generator | None = None) -> torch.Generator:
        """One source of noise for all batches of a call: one for each would give all of them the same noise."""
        if seed is not None and generator is not None:
            raise EmbInvError("give a seed or a generator, not both.")
        if not is_whole(0 if seed is None else seed, 0, 2**63 - 1):
            raise EmbInvError(f"seed must be a whole number from 0 to 2**63 - 1, got {shown(seed)}.")
        check_generator(generator)
        return torch.Generator().manual_seed(int(seed or 0)) if generator is None else generator

    def _batches(self, vectors: Iterator[Any], size: int) -> Iterator[tuple[int, Tensor]]:
        """Checked batches of an iterator of vectors, each with the number of its first one."""
        first, has_warned = 0, False
        while batch := list(islice(vectors, size)):
            _check_single(batch)
            unit = check_embeddings(batch, self.model.config.embedding_dim, first)
            has_warned = has_warned or self._warn_of_lengths(batch, unit)
            yield first, unit
            first += len(batch)

    def _warn_of_lengths(self, embeddings: Any, unit: Tensor) -> bool:
        """Warns where lengths of vectors, which are gone in `unit` (N, D), are not the encoder's; whether it did."""
        mismatch = self.model._mismatch_by_length(embeddings, unit)
        if mismatch:
            warn(mismatch)
        return mismatch is not None

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return {}, kwargs, {}

    # the library's own pipelines take and return other types than their base class says, too
    def preprocess(self, batch: tuple[int, Tensor]) -> dict[str, Any]:  # type: ignore[override]
        """The number of the first vector and a batch of checked ones (B, D) as what `_forward` takes."""
        return {"first": batch[0], "embeddings": batch[1]}

    def _forward(  # type: ignore[override]
        self, model_inputs: dict[str, Any], on_round: Callable[[SearchRound], None] | None = None, **settings: Any
    ) -> dict[str, Any]:
        def numbered(one: SearchRound) -> None:
            assert on_round is not None  # else nobody calls this
            on_round(replace(one, rows=one.rows + model_inputs["first"]))

        settings["on_round"] = numbered if callable(on_round) else on_round  # `generate` says what is wrong
        output = self.model.generate(model_inputs["embeddings"], tokenizer=self.tokenizer, **settings)
        judge = "surrogate" if isinstance(settings.get("feedback"), str) else "encoder"
        known = {} if output.cosine is None else {"cosine": output.cosine, "judge": judge}
        return {"sequences": output.sequences, "confidence": output.confidence, **known}

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict[str, Any]]:  # type: ignore[override]
        """What `__call__` returns of a batch, one dictionary for each vector."""
        ids, confidence = model_outputs["sequences"], model_outputs["confidence"]
        texts = written_texts(self.tokenizer, ids, confidence, self.model.config.eos_token_id)
        cosines = model_outputs["cosine"].tolist() if "cosine" in model_outputs else [None] * len(texts)
        return [
            {
                "text": text.text,
                "confidence": text.confidence,
                "tokens": text.tokens,
                "token_confidence": text.token_confidence,
                **({} if cosine is None else _judged(cosine, model_outputs["judge"])),
            }
            for text, cosine in zip(texts, cosines, strict=True)
        ]


def _drawing() -> set[str]:
    """The settings that `generate` and presets take."""
    others = {"preset", "seed", "generator", "generation_config", "on_round", "streamer", "search"}
    return others | set(EmbInvGenerationConfig.names())


def _filling() -> set[str]:
    """The settings that `fill` takes."""
    return {"marks", "choices", "num_tokens", "on_step", "first_row", *FillSettings.table()}


def _check_single(vectors: list[Any]) -> None:
    """Raises EmbInvError where an iterator gives whole batches, as a DataLoader does."""
    for vector in vectors:
        inner = vector[0] if isinstance(vector, list | tuple) and vector else None
        if getattr(vector, "ndim", 1) > 1 or isinstance(inner, list | tuple) or getattr(inner, "ndim", 0) > 0:
            raise EmbInvError(
                "an iterator must give one vector at a time, got a batch; take it apart: "
                "(vector for batch in batches for vector in batch)."
            )


def _judged(cosine: float, judge: str) -> dict[str, Any]:
    verdict = verdict_of(cosine, judge)
    return {"cosine": cosine, "verdict": verdict, "verdict_in_words": TEXT_VERDICTS[verdict]}


# so that `pipeline` knows the task of a model that is loaded already, whose repository it does not ask
if TASK not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(TASK, EmbeddingInversionPipeline, pt_model=AutoModel)
