"""Vectors of texts, kept in a file from one run of an experiment to the next."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def digest(content: bytes) -> str:
    """16 hexadecimal digits that tell contents apart."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def kept_vectors(folder: Path, name: str, texts: list[str], encode: Callable[[list[str]], Any]) -> np.ndarray:
    """Vectors (n, D) of texts; they are embedded once, and again where the texts have changed.

    Args:
        folder: of the files.
        name: of the file; tells encoders apart.
        texts: n texts.
        encode: texts → vectors (n, D).
    """
    place = folder / f"{name}-{digest(repr(texts).encode())}.npy"
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = place.with_suffix(f".{os.getpid()}.npy")
        np.save(partial, np.asarray(encode(texts), dtype=np.float32))
        partial.replace(place)
    return np.load(place)
