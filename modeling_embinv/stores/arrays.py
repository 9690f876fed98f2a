"""Vectors in npy, npz and safetensors files, in flat memory."""

import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from ..data.files import NUMBERS_AT_A_TIME, WIDEST, one_line, reading, short_names
from ..errors_embinv import EmbInvError
from .columns import ID_NAMES, TEXT_NAMES, Table

# what numpy's letters for kinds of values stand for
_KINDS = {"f": "floats", "i": "integers", "u": "integers", "b": "true and false", "U": "text", "S": "text"}
# (name of an array, rows at a time) → its rows
RowReader = Callable[[str, int], Iterator[np.ndarray]]


class Header(NamedTuple):
    """What the header of an npy file says."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype


def pickle_message(path: Path) -> str:
    """Why a file of pickled objects is refused, and the lines of Python that convert it."""
    suffix, old = path.suffix.lower(), str(path)
    refused = f"{path}: holds pickled Python objects, which can run code when they are loaded"
    if suffix not in (".pt", ".pth", ".ckpt", ".bin"):
        refused += "; if you trust whoever wrote it, convert it"
        new = str(path.with_name(f"{path.stem}_plain.npy"))
        if suffix == ".npz":
            items = f"numpy.load({old!r}, allow_pickle=True).items()"
            plain = f"{{k: v.astype(str) if v.dtype == object else v for k, v in {items}}}"
            return f"{refused}: import numpy; numpy.savez({new[:-1] + 'z'!r}, **{plain})"
        load = f"numpy.load({old!r}, allow_pickle=True)" if suffix == ".npy" else f"pickle.load(open({old!r}, 'rb'))"
        return f"{refused}: import numpy, pickle; numpy.save({new!r}, numpy.stack(list({load})).astype('float32'))"
    load = f"torch.load({old!r}, weights_only=True)"
    new = str(path.with_suffix(".safetensors"))
    save = f"safetensors.torch.save_file({{'embeddings': {load}.contiguous()}}, {new!r})"
    return f"{refused}; convert it: import torch, safetensors.torch; {save}"


def open_npy(path: Path) -> Table:
    """One matrix (N, D), or one vector (D,); mapped into memory."""
    with reading(path), path.open("rb") as file:
        header, begin = _header(path, file), file.tell()
    held = path.stat().st_size - begin
    _check_size(path, header, held)
    _check_matrix(path, header.shape, header.dtype.kind, fields=_fields(header.dtype))
    if not held:
        return _matrix_table(path, np.empty((0, 1), np.float32))
    with reading(path):
        order: Literal["F", "C"] = "F" if header.fortran_order else "C"
        matrix = np.memmap(path, header.dtype, "r", begin, header.shape, order)
    return _matrix_table(path, matrix[None] if matrix.ndim == 1 else matrix)


def open_npz(path: Path) -> Table:
    """Arrays by name; the vectors are streamed, so that only Fortran order takes memory, at most 1 GB."""
    with reading(path), _archive(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        headers = {}
        for name, info in members.items():
            with archive.open(info) as file:
                headers[name] = _header(path, file)
                _check_size(path, headers[name], info.file_size - file.tell())

    def rows(name: str, size: int) -> Iterator[np.ndarray]:
        with reading(path), _archive(path) as archive, archive.open(members[name]) as file:
            yield from _stream(path, file, size)

    return _arrays_table(path, {name: (header.shape, header.dtype.kind) for name, header in headers.items()}, rows)


def open_safetensors(path: Path) -> Table:
    """Tensors by name; mapped into memory."""
    from safetensors import SafetensorError, safe_open

    def opened() -> Any:
        try:
            return safe_open(str(path), framework="pt")
        except (SafetensorError, OSError, ValueError) as error:
            raise EmbInvError(f"{path}: corrupt, truncated or no .safetensors file: {one_line(error)}") from error

    with opened() as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # it cannot be iterated
        shapes = {name: (tuple(part.get_shape()), _kind(part.get_dtype())) for name, part in slices.items()}

    def rows(name: str, size: int) -> Iterator[np.ndarray]:
        with opened() as file:
            tensor = file.get_slice(name)
            shape, _ = shapes[name]
            for start in range(0, shape[0], size):
                part = tensor[start : start + size]
                yield (part.float() if part.dtype.is_floating_point else part).numpy()

    return _arrays_table(path, shapes, rows)


def _kind(dtype: str) -> str:
    """numpy's letter for a kind of number of safetensors: F32, BF16, I64, U8, BOOL."""
    return "b" if dtype == "BOOL" else "f" if dtype.startswith(("F", "BF")) else dtype[0].lower()


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise EmbInvError(f"{path}: corrupt, truncated or no .npz file: {one_line(error)}") from error
    names = archive.namelist()
    if any(info.flag_bits & 1 for info in archive.infolist()):
        archive.close()
        raise EmbInvError(f"{path}: is an encrypted zip file")
    if any(name.endswith(".pkl") for name in names):
        archive.close()
        raise EmbInvError(pickle_message(path))
    if not names or not all(name.endswith(".npy") for name in names) or len(set(names)) < len(names):
        archive.close()
        raise EmbInvError(f"{path}: is a zip file of other things than arrays: {short_names(names)}")
    return archive


def _header(path: Path, file: IO[bytes]) -> Header:
    """Reads an npy header. numpy evaluates its text as a literal, and raises what Python does for a bad one."""
    if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
        raise EmbInvError(f"{path}: is no .npy file: it does not begin as one")
    file.seek(0)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        header = Header(*read(file))
    except Exception as error:  # SyntaxError, RecursionError, MemoryError, TypeError, OverflowError, …
        raise EmbInvError(f"{path}: corrupt, truncated or no .npy file: {one_line(error)}") from error
    if header.dtype.hasobject:
        raise EmbInvError(pickle_message(path))
    if not all(type(size) is int and 0 <= size < 2**63 for size in header.shape):
        raise EmbInvError(f"{path}: corrupt .npy file: its header says shape {one_line(header.shape)}")
    return header


def _check_size(path: Path, header: Header, held: int) -> None:
    needed = math.prod(header.shape) * header.dtype.itemsize
    if needed != held:
        raise EmbInvError(
            f"{path}: corrupt or truncated: its header says {header.dtype} of shape {header.shape}, {needed:,} bytes, "
            f"and {held:,} follow"
        )


def _stream(path: Path, file: IO[bytes], size: int) -> Iterator[np.ndarray]:
    """The rows of an npy file that cannot be mapped, `size` at a time."""
    shape, fortran_order, dtype = _header(path, file)
    shape = shape if len(shape) > 1 else (shape[0], 1)
    row_bytes = shape[1] * dtype.itemsize
    if fortran_order and shape[1] > 1:
        if shape[0] * row_bytes > 1_000_000_000:
            raise EmbInvError(f"{path}: an array in Fortran order of more than 1 GB; save it with order C, or as .npy")
        whole = np.frombuffer(file.read(), dtype).reshape(shape, order="F")  # to the end, so with its checksum
        yield from (whole[start : start + size] for start in range(0, shape[0], size))
        return
    for start in range(0, shape[0], size):
        rows = min(size, shape[0] - start)
        part = file.read(rows * row_bytes)
        if len(part) < rows * row_bytes:
            raise EOFError("the array ends too early")
        yield np.frombuffer(part, dtype).reshape(rows, shape[1])
    file.read(1)  # at its end, zipfile compares the checksum


def _check_matrix(path: Path, shape: tuple[int, ...], kind: str, what: str = "", fields: Sequence[str] = ()) -> None:
    """Raises EmbInvError unless an array of this shape is a matrix or a vector, and says how it can become one.

    Args:
        path: for the message; what: the array in it.
        kind: numpy's letter for its values.
        fields: those of a structured array, the likeliest to hold the vectors first.
    """
    if kind not in "fiu" or len(shape) not in (1, 2):
        held = f"{path}: {what}holds {'records' if fields else _KINDS.get(kind, 'other values')} of shape {shape}"
        hint = f"; numpy.save(FILE, a[{fields[0]!r}]) saves one" if fields else ""
        if kind in "fiu" and len(shape) == 3 and shape.count(1) == 1:
            hint = f"; numpy.save(FILE, a.squeeze({shape.index(1)})) saves them so"
        raise EmbInvError(f"{held}; expected numbers of shape (N, D){hint}")
    if not 0 < shape[-1] <= WIDEST and shape[0]:
        raise EmbInvError(f"{path}: {what}holds rows of {shape[-1]:,} numbers; from 1 to {WIDEST:,} are read")


def _fields(dtype: np.dtype) -> list[str]:
    """The fields of a structured array, those of several numbers first."""
    return sorted(dtype.names or (), key=lambda name: not dtype[name].shape)


def _matrix_table(path: Path, matrix: np.ndarray) -> Table:
    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        size = _rows_at_a_time(size, matrix.shape[1])
        with reading(path):
            for start in range(0, len(matrix), size):
                yield {"": np.asarray(matrix[start : start + size])}

    return Table([""], [""], read, lambda _: len(matrix))


def _arrays_table(path: Path, arrays: dict[str, tuple[tuple[int, ...], str]], rows: RowReader) -> Table:
    """A table whose columns are named arrays; a single (D,) is a matrix of one row."""
    aside = {*ID_NAMES, *TEXT_NAMES}
    vectors = [
        name for name, (shape, kind) in arrays.items()
        if kind in "fiu" and len(shape) in (1, 2) and not (name.lower() in aside and _is_column(shape))
    ]  # fmt: skip
    matrices = [name for name in vectors if len(arrays[name][0]) == 2]
    vectors = matrices or vectors

    def count(name: str) -> int:
        shape, _ = arrays[name]
        return 1 if len(shape) < 2 else shape[0]

    def beside(main: str) -> list[str]:
        return [name for name, (shape, _) in arrays.items() if _is_column(shape) and shape[0] == count(main)]

    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        main, *others = columns
        shape, kind = arrays[main]
        _check_matrix(path, shape, kind, f"{short_names([main])!r} ")
        for name in others:
            if name not in beside(main):
                raise EmbInvError(
                    f"{path}: {short_names([name])!r} is of shape {arrays[name][0]}, for {count(main)} vectors"
                )
        size = _rows_at_a_time(size, shape[-1])
        parts: dict[str, Iterator[Any]]
        if len(shape) == 1:
            parts = {main: iter([np.concatenate([part.ravel() for part in rows(main, size)])[None]])}
        else:
            parts = {main: rows(main, size)}
        parts |= {name: map(_listed, rows(name, size)) for name in others}
        while (batch := {name: next(part, None) for name, part in parts.items()})[main] is not None:
            yield batch

    return Table(list(arrays), vectors, read, count, beside=beside)


def _is_column(shape: tuple[int, ...]) -> bool:
    """Whether an array has one value for each row: (N,) or (N, 1)."""
    return shape[1:] in ((), (1,)) and shape != ()


def _listed(part: np.ndarray) -> list[Any]:
    """The values of an array (n, 1); the bytes of numpy's type S are text."""
    values = part.ravel().tolist()
    return [value.decode("utf-8", "replace") for value in values] if part.dtype.kind == "S" else values


def _rows_at_a_time(size: int, width: int) -> int:
    return max(1, min(size, NUMBERS_AT_A_TIME // max(width, 1)))
