"""Private copies of folders."""

import os
import stat

import pytest

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.copies import copy_of


def test_a_copy_of_a_folder_that_may_only_be_read(tmp_path):
    """Its modes were copied, too: Chroma could not open the copy, and the confidential copy stayed in TMPDIR."""
    (tmp_path / "store" / "index").mkdir(parents=True)
    for path in (tmp_path / "store" / "chroma.sqlite3", tmp_path / "store" / "index" / "data.bin"):
        path.write_bytes(b"numbers")
        path.chmod(0o444)
    (tmp_path / "store" / "gone").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "store" / "index", tmp_path / "store"):
        path.chmod(0o555)
    try:
        copy = copy_of("store", [tmp_path / "store"], tmp_path / "store")
    finally:
        for path in (tmp_path / "store", tmp_path / "store" / "index"):
            path.chmod(0o755)
    held = [copy.path, *copy.path.rglob("*")]
    assert [path.name for path in held[1:] if path.is_file()] == ["chroma.sqlite3", "data.bin"]
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o700 == 0o700 for path in held if path.is_dir())
    assert stat.S_IMODE(copy.path.stat().st_mode) == 0o700  # the texts are no other user's
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o200 for path in held if path.is_file())


def test_a_folder_that_cannot_be_copied_is_one_line(tmp_path):
    """A socket in a folder ended in a list of Python's tuples."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EmbInvError, match="^store: cannot be copied: .*pipe.* is a named pipe$"):
        copy_of("store", [tmp_path], tmp_path)
