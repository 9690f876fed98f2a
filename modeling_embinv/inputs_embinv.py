"""What `generate` is given, checked before anything runs: vectors and whose they are, drafts, feedback."""

import re
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from decimal import Decimal
from numbers import Integral
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .diffusion_embinv import after_first
from .diffusion_embinv import text_positions
from .errors_embinv import EmbInvError
from .errors_embinv import is_whole
from .errors_embinv import shown
from .errors_embinv import warn
from .vectors_embinv import bad_rows
from .vectors_embinv import has_unit_length
from .vectors_embinv import unit_rows

BEAMS = (
    "num_beams counts the texts that survive a round of corrections, so it needs num_corrections and feedback. Use "
    "num_candidates for the best of several texts, num_draft_beams for the beam search of autoregressive."
)


def as_rows(vectors: Any, name: str) -> Tensor:
    """A tensor, an array or lists as a float64 tensor of the same shape on the CPU; NaN where numpy masks a number.

    Raises:
        EmbInvError: for anything but floating-point numbers in rows of one length; `name` says whose they are.
    """
    if _is_table(vectors):
        raise EmbInvError(f'{name} must be vectors, got a table: give its column of vectors, as in ds["embedding"].')
    try:
        if isinstance(vectors, list | tuple) and vectors and all(isinstance(row, Tensor) for row in vectors):
            vectors = torch.stack(list(vectors))
        if isinstance(vectors, Tensor):
            if vectors.is_nested:
                raise TypeError("a nested tensor")
            if vectors.is_floating_point():
                return vectors.detach().cpu().to_dense().double()
            is_integer = not vectors.is_complex()
        else:
            vectors = _as_array(vectors)
            if vectors.dtype.kind == "f":
                return torch.as_tensor(vectors.astype(np.float64))
            is_integer = _all_whole(vectors)
    except (OverflowError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EmbInvError(f"{name} must be rows of numbers, all of one length: {reason}") from error
    decode = "; quantised vectors must be decoded first" if is_integer else ""
    raise EmbInvError(f"{name} must be floating-point numbers, got {_kind(vectors)}{decode}.")


def _kind(array: Any) -> str:
    """What a tensor or an array holds that is no floating-point number, in a word."""
    if isinstance(array, Tensor) or array.dtype != object:
        return "text" if str(array.dtype).startswith("<U") else str(array.dtype)
    strangers = (type(value).__name__ for value in array.flat if not _is_number(value))
    return next(strangers, "whole numbers")


def _is_table(vectors: Any) -> bool:
    """Whether vectors are in a column of this: a dictionary, rows of them, or a dataset."""
    if isinstance(vectors, list | tuple):
        return bool(vectors) and isinstance(vectors[0], Mapping)
    is_dataset = hasattr(vectors, "column_names") and hasattr(vectors, "features")
    return is_dataset or isinstance(vectors, Mapping)


def _as_array(vectors: Any) -> Any:
    """Lists, a column of a table or an array as an array; objects that are numbers, not all whole, become numpy's."""
    array = np.asarray(_unmasked(vectors))
    if array.dtype == object and array.ndim == 1:  # a column of a table: one list or array a row
        array = np.asarray(_unmasked(list(array)))
    if array.dtype == object and not _all_whole(array) and all(_is_number(value) for value in array.flat):
        array = array.astype(np.float64)
    return array


def _all_whole(array: Any) -> bool:
    """Whether an array holds whole numbers or truth values alone."""
    return array.dtype.kind in "iub" or (array.dtype == object and all(isinstance(x, Integral) for x in array.flat))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | Decimal) and not isinstance(value, bool)


def _unmasked(vectors: Any) -> Any:
    """Vectors of numpy with NaN where a mask hides numbers: numpy itself would give what is behind it."""
    if isinstance(vectors, np.ma.MaskedArray) and vectors.dtype.kind == "f":
        return vectors.filled(np.nan)
    if isinstance(vectors, list | tuple) and any(isinstance(row, np.ma.MaskedArray) for row in vectors):
        return [_unmasked(row) for row in vectors]
    return vectors


def check_embeddings(embeddings: Any, embedding_dim: int, first: int = 0, name: str = "embedding") -> Tensor:
    """Vectors as (B, D) float32 rows of length 1 on the CPU; see `generate` for what is refused.

    Args:
        first: number of the first row, for errors to name.
        name: of one row, for errors.
    """
    if not is_whole(first, 0):
        raise EmbInvError(f"first_row must be a whole number of at least 0, got {shown(first)}.")
    if embeddings is None:
        raise EmbInvError(f"{name}s are missing: give vectors, (batch, {embedding_dim}).")
    rows = as_rows(embeddings, f"{name}s")
    if rows.shape == (0,):
        rows = rows.reshape(0, embedding_dim)
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != embedding_dim:
        raise EmbInvError(f"{name}s must have shape (batch, {embedding_dim}), got {tuple(rows.shape)}.")
    if bad := bad_rows(rows.numpy()):
        row = min(bad)
        raise EmbInvError(f"{name} {first + row} {bad[row]}; every entry must be finite, and one of them not 0.")
    unit, lengths = unit_rows(rows.numpy())
    if not has_unit_length(lengths).all():
        warn(f"{name}s are not of length 1: normalising them.")
    return torch.from_numpy(unit)


def check_ids(ids: Any, count: int | None, vocab_size: int, name: str = "ids") -> Tensor:
    """Token ids of `count` texts, of any number for None, as int64 (count, L) on the CPU; `name` is for errors.

    Raises:
        EmbInvError: for another shape, and for what `_token_ids` refuses.
    """
    rows = _token_ids(ids, name, vocab_size)
    if rows.ndim != 2 or count not in (None, len(rows)) or (len(rows) and not rows.shape[1]):
        kind = f"{tuple(rows.shape)} {str(rows.dtype).removeprefix('torch.')}"
        each = "a row for each text" if count is None else f"a row for each of {count} vectors"
        raise EmbInvError(f"{name} must be whole numbers (B, L), {each}, got {kind}.")
    return rows


def _token_ids(given: Any, name: str, vocab_size: int) -> Tensor:
    """Token ids as int64 on the CPU.

    Raises:
        EmbInvError: for what is no id of the vocabulary, and masked numbers of numpy; `name` says whose they are.
    """
    try:
        ids = given if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given))
        ids = ids.detach().cpu()
        if ids.is_nested:
            raise TypeError("a nested tensor")
    except (TypeError, ValueError, RuntimeError) as error:
        raise EmbInvError(f"{name} must be rows of token ids, got {shown(given)}.") from error
    if np.ma.is_masked(given):
        raise EmbInvError(f"{name} must be whole numbers, none of them masked: write [MASK]'s id in their places.")
    if ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex():
        raise EmbInvError(f"{name} must be whole numbers, got {ids.dtype}.")
    signed = ids.long()  # of unsigned ones the largest become negative
    outside = ids[(signed < 0) | (signed >= vocab_size)].tolist()
    if outside:
        raise EmbInvError(f"{name} must be ids below this model's vocabulary of {vocab_size}, got {outside[0]}.")
    return signed


def check_draft(draft_ids: Any, shape: torch.Size, vocab_size: int, end_token_id: int) -> Tensor:
    """Ids of a draft as int64 of `shape` (B, L) on the CPU, with end tokens behind the first one.

    Raises:
        EmbInvError: for another shape, for what `_token_ids` refuses, and for a text that begins with its end.
    """
    ids = _token_ids(draft_ids, "draft_ids", vocab_size)
    if ids.shape != shape:
        raise EmbInvError(f"draft_ids must have shape {tuple(shape)}, got {tuple(ids.shape)}.")
    empty = (ids[:, 0] == end_token_id).nonzero()
    if len(empty):
        raise EmbInvError(f"draft {int(empty[0])} begins with its end token; a text has at least one token before it.")
    return ids.masked_fill(after_first(ids == end_token_id), end_token_id)


def warn_of_rows(ids: Tensor, name: str, config: Any, suppressed: Collection[int] | None) -> None:
    """Warns where ids (B, L) are no texts as the checkpoint writes them, but a tokenizer's rows.

    Such rows have a start token before the text, or padding without an end token before it.

    Args:
        name: of the argument.
        config: the model's.
        suppressed: tokens that the checkpoint never writes.
    """
    pad, end = config.pad_token_id, config.eos_token_id
    first = start_token(ids[:, :1].flatten().tolist(), config, suppressed)
    if first is not None:
        warn(
            f"{name} begin with token {first}, which this checkpoint never writes. If it is the tokenizer's start "
            f"token, leave it out: {name}[:, 1:]."
        )
    elif pad != end and pad in (suppressed or ()) and bool(((ids == pad) & text_positions(ids, end)).any()):
        warn(f"{name} hold padding, token {pad}, within texts: put the end token {end} behind each text, before it.")


def start_token(first: Collection[int], config: Any, suppressed: Collection[int] | None) -> int | None:
    """The token that all texts begin with, if the checkpoint never writes it; texts that begin with [MASK] aside."""
    tokens = {token for token in first if token != config.mask_token_id}
    return tokens.pop() if len(tokens) == 1 and tokens <= set(suppressed or ()) else None


def check_draft_beams(config: Any) -> None:
    """Raises EmbInvError where settings of `generate` have beams, and nothing that they could be of."""
    if config.num_draft_beams == 1:
        return
    drafts = config.draft if config.strategy == "two_stage" else config.strategy
    if drafts != "autoregressive":
        raise EmbInvError(
            "num_draft_beams is of strategy autoregressive, or of two_stage with draft autoregressive; "
            f"{config.strategy} here has no beam search."
        )
    if config.strategy != "two_stage" and config.temperature:
        raise EmbInvError(
            f"num_draft_beams takes the likeliest texts: set temperature to 0, got {config.temperature}."
        )


def warn_of_idle_steps(config: Any, given: Collection[str]) -> None:
    """Warns where `num_steps` does nothing, as the checkpoint's own strategy has other passes.

    Args:
        config: the settings of the call, the checkpoint's own among them.
        given: the names of the settings that the call itself has.
    """
    counts = config.strategy not in ("sequential", "autoregressive")
    if counts or config.search.is_search or "num_steps" not in given or "strategy" in given:
        return
    warn(
        f"num_steps does nothing here: this checkpoint's strategy is {config.strategy}, with one pass for each token. "
        "It is the number of passes of strategy confidence."
    )


def check_texts(texts: Any, count: int) -> list[Any]:
    """Redacted texts as a list; one text may come alone.

    Raises:
        EmbInvError: for another number of texts than `count`, that of the vectors, and for what is no list.
    """
    try:
        given = [texts] if isinstance(texts, str) else list(texts)
    except TypeError as error:
        raise EmbInvError(f"texts must be redacted texts, one for each vector, got {shown(texts)}.") from error
    if len(given) != count:
        raise EmbInvError(f"each vector needs its text: got {count} vectors and {len(given)} texts.")
    return given


def check_characters(text: str, name: str) -> None:
    """Raises EmbInvError for what no tokenizer takes: half a character, as Python makes of bytes that are no UTF-8."""
    half = re.search("[\ud800-\udfff]", text)
    if half:
        raise EmbInvError(f"{name} must be text in UTF-8, got {half.group()!a} at character {half.start()}.")


def check_longest(longest: Any) -> None:
    """Raises EmbInvError for anything but a number of tokens or None."""
    if longest is not None and not is_whole(longest, 1):
        raise EmbInvError(
            f"longest must be the number of tokens that the encoder reads, at least 1, or None, got {shown(longest)}."
        )


def check_suppressed(ids: list[int] | None, config: Any) -> None:
    """Raises EmbInvError for ids outside the vocabulary, or where fewer than two tokens could be written."""
    outside = [token for token in ids or () if token >= config.vocab_size]
    if outside:
        raise EmbInvError(
            f"suppress_tokens must be ids below this model's vocabulary of {config.vocab_size}, got {outside[0]}."
        )
    if config.vocab_size - len({config.mask_token_id, config.eos_token_id, *(ids or ())}) < 2:
        raise EmbInvError("suppress_tokens leaves fewer than two tokens to write.")


def check_streamer(streamer: Any, rows: int) -> None:
    """Raises EmbInvError where a streamer could not take the text."""
    if not all(callable(getattr(streamer, name, None)) for name in ("put", "end")):
        raise EmbInvError(f"streamer must have the methods put and end, got {shown(streamer)}.")
    if rows != 1:
        raise EmbInvError(f"a streamer shows one text at a time: give one vector, got {rows}.")


def check_generator(generator: Any) -> None:
    """Raises EmbInvError for anything but a generator or None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise EmbInvError(
            f"generator must be a torch.Generator, such as torch.Generator().manual_seed(0), got {shown(generator)}."
        )


def check_feedback(feedback: Any, tokenizer: Any) -> None:
    """Raises EmbInvError for what can check no text, and for a tokenizer that cannot decode."""
    is_class = isinstance(tokenizer, type)
    if is_class or (tokenizer is not None and not callable(getattr(tokenizer, "decode", None))):
        raise EmbInvError(f"tokenizer must be this model's tokenizer, got {shown(tokenizer)}.")
    if feedback is None or (isinstance(feedback, str) and feedback == "surrogate"):
        return
    if callable(getattr(feedback, "encode", None)) and not isinstance(feedback, str):
        raise EmbInvError(f"feedback must be a function: give its method encode as feedback, not {type(feedback)}.")
    if not callable(feedback):
        raise EmbInvError(
            'feedback must be "surrogate", a function of texts that returns their vectors, or None, '
            f"got {shown(feedback)}."
        )


def checked_feedback(feedback: Callable[[Any], Any], inputs: Any, count: int, embedding_dim: int) -> Tensor:
    """feedback(inputs) as (count, D) float32 rows of length 1, zeros where the answer is zero.

    Args:
        inputs: texts, or token ids as a tensor where there is no tokenizer to make texts of them.

    Raises:
        EmbInvError: for another number or width of vectors, for NaN and infinite numbers, and for a function that
            cannot take token ids.
    """
    rows = as_rows(_answer(feedback, inputs), "vectors of feedback")
    if rows.shape != (count, embedding_dim):
        shape = f"({count}, {embedding_dim})"
        raise EmbInvError(f"feedback must give vectors of shape {shape}, got {tuple(rows.shape)}.")
    if not rows.isfinite().all():
        raise EmbInvError("feedback gave NaN or infinite numbers; every entry must be a finite number.")
    return torch.from_numpy(unit_rows(rows.numpy())[0])


def _answer(feedback: Callable[[Any], Any], inputs: Any) -> Any:
    """feedback(inputs)."""
    try:
        return feedback(inputs)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if not isinstance(inputs, Tensor):
            raise
        reason = " ".join(str(error).split())[:200]
        raise EmbInvError(
            "feedback failed on token ids, which it is given where there is no tokenizer; for a function of texts "
            f"give tokenizer=, this model's. The failure: {type(error).__name__}: {reason}"
        ) from error
