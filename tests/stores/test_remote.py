"""Files on the Hub and in S3: both by servers on this machine."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.locations import locate
from modeling_embinv.stores.vectors import open_vectors

from .sources import IDS, TEXTS, VECTORS, read_all


class Server(BaseHTTPRequestHandler):
    """Objects of a bucket as S3 has them, and files of a data set as the Hub has them; reads only."""

    protocol_version = "HTTP/1.1"

    def answer(self, body=b"", status=200, **headers):
        self.send_response(status)
        for name, value in {
            "Content-Length": len(body),
            "Last-Modified": "Thu, 26 Nov 2026 12:00:00 GMT",
            **headers,
        }.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(self.command)
        if path.startswith("/api/datasets/me/dump"):
            return self.hub_lists(path)
        if path == "/bucket" or path == "/bucket/":
            return self.answer(
                b'<?xml version="1.0"?><ListBucketResult><Name>bucket</Name><KeyCount>0</KeyCount></ListBucketResult>'
            )
        name = path.rpartition("/resolve/main/")[2] if path.startswith("/datasets/") else path.removeprefix("/bucket/")
        content = self.server.files.get(name)
        if content is None:
            return self.answer(b"<Error><Code>NoSuchKey</Code></Error>", 404)
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        wanted = self.headers.get("Range")
        if wanted is None:
            return self.answer(content, ETag=etag, X_Repo_Commit="0" * 40)
        start, _, stop = wanted.removeprefix("bytes=").partition("-")
        part = content[int(start) : int(stop) + 1 if stop else None]
        place = f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}"
        self.answer(part, 206, ETag=etag, Content_Range=place, X_Repo_Commit="0" * 40)

    do_HEAD = do_GET

    def do_POST(self):
        wanted = self.rfile.read(int(self.headers["Content-Length"])).decode()
        names = [name for name in self.server.files if name in unquote(wanted)]
        self.answer(json.dumps([self.entry(name) for name in names]).encode(), Content_Type="application/json")

    def hub_lists(self, path):
        if "/tree/" in path:
            body = json.dumps([self.entry(name) for name in self.server.files])
        else:
            body = json.dumps({"id": "me/dump", "sha": "0" * 40, "siblings": []})
        self.answer(body.encode(), Content_Type="application/json")

    def entry(self, name):
        return {"type": "file", "path": name, "size": len(self.server.files[name]), "oid": "0" * 40}

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    table = pa.table({"id": IDS, "text": TEXTS, "embedding": list(VECTORS)})
    pq.write_table(table, tmp_path / "a.parquet")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads, server.block_on_close, server.asked = True, False, []
    content = (tmp_path / "a.parquet").read_bytes()
    server.files = {"a.parquet": content, "cut.parquet": content[:-100]}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def s3(server, name):
    return f"s3://bucket/{name}?scheme=http&endpoint_override=127.0.0.1:{server.server_port}&region=x&allow_bucket_creation=0"


@pytest.fixture
def keys(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_an_option_of_a_database_keeps_its_spaces():
    """libpq takes a plus sign as it stands, so an application's name or a search path with a space came out wrong."""
    found = locate("postgresql://h/d?table=t&application_name=my%20app&options=-c%20search_path%3Da+b&column=v+w")
    assert found.options == {"table": "t", "column": "v w"}
    assert found.path == "postgresql://h/d?application_name=my%20app&options=-c%20search_path%3Da%2Bb"
    assert psycopg.conninfo.conninfo_to_dict(found.path)["options"] == "-c search_path=a+b"


def test_a_file_in_s3(server, keys):
    """The file lies in a temporary folder while it is read, and goes with the source."""
    source = open_vectors(s3(server, "a.parquet"), text_column=True)
    (batch,) = source.batches(1000)
    assert np.array_equal(batch.vectors, VECTORS) and batch.ids == IDS and batch.texts == TEXTS
    folder = Path(source._table.read.__defaults__[0].path)
    assert folder.is_dir() and set(server.asked) <= {"GET", "HEAD"}
    del source, batch
    assert not folder.exists()


def test_mistakes_in_s3_are_one_line(server, keys):
    """Messages name the URL, not the temporary file."""
    with pytest.raises(EmbInvError, match="s3://bucket/none.parquet.*: no such file"):
        open_vectors(s3(server, "none.parquet"))
    with pytest.raises(
        EmbInvError, match="^s3://bucket/cut.parquet.*: corrupt, truncated or no .parquet file"
    ) as error:
        open_vectors(s3(server, "cut.parquet"))
    assert "/tmp" not in str(error.value)


def test_a_file_on_the_hub(server, monkeypatch):
    """Data sets of embeddings are published there."""
    import huggingface_hub

    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfFileSystem, "cachable", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_file_system.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    found = read_all("hf://datasets/me/dump/a.parquet", text_column=True)
    assert np.array_equal(found.vectors, VECTORS) and found.ids == IDS and found.texts == TEXTS
    with pytest.raises(EmbInvError, match="hf://datasets/me/dump/none.parquet: no such file"):
        open_vectors("hf://datasets/me/dump/none.parquet")
    with pytest.raises(EmbInvError, match="is a folder; name one of its files: a.parquet, cut.parquet"):
        open_vectors("hf://datasets/me/dump")
