"""What `generate` is given, checked before anything runs: vectors, drafts, feedback, and names of other libraries."""

import reprlib
import warnings
from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

# arguments of other libraries, and what to use here
INSTEAD = {
    **dict.fromkeys(
        ("inputs", "input_ids", "inputs_embeds", "prompt"),
        "give vectors as embeddings; what is known of a text as draft_ids",
    ),
    "attention_mask": "leave it out, vectors have no padding",
    **dict.fromkeys(("max_new_tokens", "max_tokens"), "use max_length, the tokens of a text and its end"),
    **dict.fromkeys(("min_new_tokens", "min_length"), "leave it out, the model decides where a text ends"),
    "do_sample": "use temperature, 0 takes the likeliest tokens and 1 samples from the model's distribution",
    **dict.fromkeys(
        ("top_k", "top_p", "min_p", "typical_p"), "use temperature, or candidate_temperature for a search"
    ),
    "num_return_sequences": "each vector gets one text; repeat a vector and set temperature to sample several",
    **dict.fromkeys(("num_inference_steps", "num_diffusion_steps"), "use num_steps"),
    "bad_words_ids": "use suppress_tokens, a list of ids",
    "seed": "use generator=torch.Generator().manual_seed(seed)",
    **dict.fromkeys(("eos_token_id", "pad_token_id"), "it is set in the model's config"),
}
BEAMS = (
    "num_beams counts the texts that survive a round of corrections, so it needs num_corrections and feedback; "
    "masked diffusion has no beam search. Use num_candidates for the best of several texts."
)


def shown(value: Any) -> str:
    """A value, whatever it is, for the one line of an error, cut short."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 60, 60
    try:
        return " ".join(short.repr(value).split())
    except ValueError:  # Python does not print whole numbers of more than 4,300 digits
        return "a number of thousands of digits"


def is_whole(value: Any, least: int, most: int | None = None) -> bool:
    """Whether a value is a whole number, Python's or numpy's, from `least` to `most`."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and value >= least and (most is None or value <= most)


def as_rows(vectors: Any, name: str) -> Tensor:
    """A tensor, an array or lists as a float64 tensor of the same shape on the CPU.

    Raises:
        ValueError: for anything but floating-point numbers in rows of one length; `name` says whose they are.
    """
    try:
        if isinstance(vectors, list | tuple) and vectors and all(isinstance(row, Tensor) for row in vectors):
            vectors = torch.stack(list(vectors))
        if isinstance(vectors, Tensor):
            if vectors.is_nested:
                raise TypeError("a nested tensor")
            dtype, is_float = vectors.dtype, vectors.is_floating_point()
            vectors = vectors.detach().cpu().to_dense()
        else:
            vectors = np.asarray(vectors)
            if vectors.dtype == object and vectors.ndim == 1:  # a column of a table: one list or array a row
                vectors = np.asarray(list(vectors))
            dtype, is_float = vectors.dtype, vectors.dtype.kind == "f"
        if is_float:
            return torch.as_tensor(vectors if isinstance(vectors, Tensor) else vectors.astype(np.float64)).double()
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{name} must be rows of numbers, all of one length: {reason}") from error
    raise ValueError(f"{name} must be floating-point numbers, got {dtype}; quantised vectors must be decoded first.")


def unit_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """rows (N, D) float64 → (N, D) float32 of length 1, zeros where a row is zero, and the lengths (N,) float64."""
    largest = rows.abs().amax(dim=1, keepdim=True)  # squares of very small and very large numbers leave float64
    scaled = rows / largest.masked_fill(largest == 0, 1)
    norms = scaled.norm(dim=1, keepdim=True)
    return (scaled / norms.clamp_min(1)).float(), (largest * norms).squeeze(1)


def check_embeddings(embeddings: Any, embedding_dim: int, first: int = 0) -> Tensor:
    """Vectors as (B, D) float32 rows of length 1 on the CPU; see `generate` for what is refused.

    Args:
        first: number of the first row, for errors to name.
    """
    if embeddings is None:
        raise ValueError(f"embeddings are missing: give vectors, (batch, {embedding_dim}).")
    rows = as_rows(embeddings, "embeddings")
    if rows.shape == (0,):
        rows = rows.reshape(0, embedding_dim)
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != embedding_dim:
        raise ValueError(f"embeddings must have shape (batch, {embedding_dim}), got {tuple(rows.shape)}.")
    bad = (~rows.isfinite()).any(dim=1)
    if bad.any():
        row = first + int(bad.nonzero()[0])
        raise ValueError(f"embedding {row} has NaN or infinite entries; every entry must be a finite number.")
    rows, lengths = unit_rows(rows)
    if (lengths == 0).any():
        row = first + int((lengths == 0).nonzero()[0])
        raise ValueError(f"embedding {row} is all zeros and has no direction to invert.")
    if ((lengths - 1).abs() > 1e-2).any():
        warnings.warn("embeddings are not of length 1: normalising them.", stacklevel=3)
    return rows


def check_draft(draft_ids: Any, shape: torch.Size, vocab_size: int, end_token_id: int) -> Tensor:
    """Ids of a draft as int64 of `shape` (B, L) on the CPU.

    Raises:
        ValueError: for another shape, for what is no id of the vocabulary, and for a text that begins with its end.
    """
    try:
        ids = draft_ids if isinstance(draft_ids, Tensor) else torch.as_tensor(np.asarray(draft_ids))
        ids = ids.detach().cpu()
        if ids.is_nested:
            raise TypeError("a nested tensor")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"draft_ids must be rows of token ids, got {shown(draft_ids)}.") from error
    if ids.shape != shape:
        raise ValueError(f"draft_ids must have shape {tuple(shape)}, got {tuple(ids.shape)}.")
    if ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex():
        raise ValueError(f"draft_ids must be whole numbers, got {ids.dtype}.")
    ids = ids.long()
    outside = ids[(ids < 0) | (ids >= vocab_size)]
    if len(outside):
        raise ValueError(
            f"draft_ids must be ids below this model's vocabulary of {vocab_size}, got {int(outside[0])}."
        )
    empty = (ids[:, 0] == end_token_id).nonzero()
    if len(empty):
        raise ValueError(f"draft {int(empty[0])} begins with its end token; a text has at least one token before it.")
    return ids


def check_suppressed(ids: list[int] | None, config):
    """Raises ValueError for ids outside the vocabulary, or where fewer than two tokens could be written."""
    outside = [token for token in ids or () if token >= config.vocab_size]
    if outside:
        raise ValueError(
            f"suppress_tokens must be ids below this model's vocabulary of {config.vocab_size}, got {outside[0]}."
        )
    if config.vocab_size - len({config.mask_token_id, config.eos_token_id, *(ids or ())}) < 2:
        raise ValueError("suppress_tokens leaves fewer than two tokens to write.")


def check_streamer(streamer: Any, rows: int):
    """Raises ValueError where a streamer could not take the text."""
    if not all(callable(getattr(streamer, name, None)) for name in ("put", "end")):
        raise ValueError(f"streamer must have the methods put and end, got {shown(streamer)}.")
    if rows != 1:
        raise ValueError(f"a streamer shows one text at a time: give one vector, got {rows}.")


def check_generator(generator: Any):
    """Raises ValueError for anything but a generator or None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator must be a torch.Generator, such as torch.Generator().manual_seed(0), got {shown(generator)}."
        )


def check_feedback(feedback: Any, tokenizer: Any):
    """Raises ValueError for what can check no text, and for a tokenizer that cannot decode."""
    if feedback is None or (isinstance(feedback, str) and feedback == "surrogate"):
        return
    if callable(getattr(feedback, "encode", None)) and not isinstance(feedback, str):
        raise ValueError(f"feedback must be a function: give its method encode as feedback, not {type(feedback)}.")
    if not callable(feedback):
        raise ValueError(
            'feedback must be "surrogate", a function of texts that returns their vectors, or None, '
            f"got {shown(feedback)}."
        )
    if tokenizer is not None and not callable(getattr(tokenizer, "batch_decode", None)):
        raise ValueError(f"tokenizer must be this model's tokenizer, got {shown(tokenizer)}.")


def checked_feedback(feedback: Callable, inputs: Any, count: int, embedding_dim: int) -> Tensor:
    """feedback(inputs) as (count, D) float32 rows of length 1, zeros where the answer is zero.

    Raises:
        ValueError: for another number or width of vectors, and for NaN and infinite numbers.
    """
    rows = as_rows(feedback(inputs), "vectors of feedback")
    if rows.shape != (count, embedding_dim):
        shape = f"({count}, {embedding_dim})"
        raise ValueError(f"feedback must give vectors of shape {shape}, got {tuple(rows.shape)}.")
    if not rows.isfinite().all():
        raise ValueError("feedback gave NaN or infinite numbers; every entry must be a finite number.")
    return unit_rows(rows)[0]
