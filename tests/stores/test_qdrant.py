"""Qdrant: local folders, written by its client, and a server."""

import json
import pickle
import sqlite3
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_client.models import Batch, Distance, PointStruct, SparseVector, SparseVectorParams, VectorParams

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.vectors import open_vectors

from .sources import DIM, IDS, ROWS, TEXTS, VECTORS, fingerprint, read_all

# the local client writes each point by itself
IN_FOLDER = 40
NUMBERS = [int(name.removeprefix("doc-")) for name in IDS]


def fill(client, rows):
    """A collection, one of named vectors, and an empty one."""
    plain = VectorParams(size=DIM, distance=Distance.COSINE)
    client.create_collection("docs", vectors_config=plain)
    points = zip(NUMBERS[:rows], VECTORS.tolist(), TEXTS, strict=False)
    client.upsert("docs", [PointStruct(id=i, vector=v, payload={"page": {"text": t}}) for i, v, t in points])
    named = {"title": VectorParams(size=4, distance=Distance.DOT), "body": plain}
    sparse = {"words": SparseVectorParams()}
    client.create_collection("named", vectors_config=named, sparse_vectors_config=sparse)
    vector = {"body": VECTORS[0].tolist(), "title": [1, 2, 3, 4], "words": SparseVector(indices=[1], values=[1.0])}
    client.upsert("named", [PointStruct(id="5c56c793-69f3-4fbf-87e6-c4bf54c28c26", vector=vector, payload={"n": 1})])
    client.create_collection("empty", vectors_config=plain)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("qdrant") / "store"
    client = QdrantClient(path=str(path))
    fill(client, IN_FOLDER)
    client.close()
    return path


class Server(BaseHTTPRequestHandler):
    """As much of a server's interface as reading needs; Qdrant's own client, in memory, has the collections."""

    protocol_version = "HTTP/1.1"

    def answer(self, result):
        body = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.server.keys.add(self.headers.get("api-key"))
        self.server.asked.append(("GET", urlsplit(self.path).path))
        self.answer(self.server.client.get_collections().model_dump(mode="json"))

    def do_POST(self):
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, _, name, _, what = urlsplit(self.path).path.split("/")
        self.server.asked.append(("POST", what))
        if what == "count":
            return self.answer({"count": self.server.client.count(name).count})
        options = {"with_vectors": wanted["with_vector"], "with_payload": wanted["with_payload"]}
        points, offset = self.server.client.scroll(name, limit=wanted["limit"], offset=wanted.get("offset"), **options)
        rows = [point.model_dump(mode="json", include={"id", "vector", "payload"}) for point in points]
        self.answer({"points": rows, "next_page_offset": offset})

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads, server.block_on_close = True, False
    server.client, server.asked, server.keys = QdrantClient(":memory:"), [], set()
    fill(server.client, ROWS)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
    server.client.close()


def check(found, order):
    """These rows came, in this order."""
    assert found.ids == [str(NUMBERS[row]) for row in order] and found.texts == [TEXTS[row] for row in order]
    assert np.allclose(found.vectors, VECTORS[order], atol=1e-7)


def test_a_local_folder(store):
    """The client locks the folder that it opens, and writes to it."""
    before = fingerprint(store)
    check(read_all(f"qdrant:{store}", collection="docs", text_column=True, trust=True), range(IN_FOLDER))
    check(
        read_all(store, collection="docs", text_column="payload.page.text", trust=True), range(IN_FOLDER)
    )  # recognised
    assert fingerprint(store) == before


def test_pickles_are_refused_without_trust(store):
    """A stolen folder would run its maker's code."""
    with pytest.raises(EmbInvError, match="pickled Python objects, which can run code .* add --trust-source"):
        open_vectors(f"qdrant:{store}", collection="docs")


def test_even_trusted_pickles_call_no_other_code(store, tmp_path):
    """Trust is for Qdrant's points; whatever else a pickle names is not loaded."""

    class Evil:
        def __reduce__(self):
            return (print, ("called",))

    folder = tmp_path / "collection" / "docs"
    folder.mkdir(parents=True)
    (tmp_path / "meta.json").write_text('{"collections": {"docs": {}}}')
    for evil in (pickle.dumps(Evil()), b"cqdrant_client.http.models\nmodels.sys\n.", b"no pickle"):
        (folder / "storage.sqlite").unlink(missing_ok=True)
        with closing(sqlite3.connect(folder / "storage.sqlite")) as database, database:
            database.execute("CREATE TABLE points (id TEXT PRIMARY KEY, point BLOB)")
            database.execute("INSERT INTO points VALUES ('a', ?)", (evil,))
        with pytest.raises(EmbInvError, match="cannot be read") as error:
            read_all(tmp_path, trust=True)
        assert str(error.value).isprintable()


def test_named_vectors(store):
    """A point of several vectors: one must be named, and a sparse one is none."""
    with pytest.raises(EmbInvError, match="several columns hold vectors: vector.body, vector.title; name one"):
        open_vectors(store, collection="named", trust=True)
    found = read_all(store, collection="named", column="vector.body", trust=True)
    assert np.allclose(found.vectors, VECTORS[:1]) and found.ids == ["5c56c793-69f3-4fbf-87e6-c4bf54c28c26"]


def test_points_that_were_written_as_a_batch(tmp_path):
    """The local client keeps the one vector of a batch's points under the name "", and none of them was read."""
    client = QdrantClient(path=str(tmp_path))
    plain, sparse = VectorParams(size=DIM, distance=Distance.DOT), {"words": SparseVectorParams()}
    client.create_collection("docs", vectors_config=plain, sparse_vectors_config=sparse)
    client.upsert("docs", Batch(ids=[1, 2], vectors=VECTORS[:2].tolist()))
    client.upsert("docs", [PointStruct(id=3, vector=VECTORS[2].tolist())])
    client.upsert(
        "docs", [PointStruct(id=4, vector={"": VECTORS[3].tolist(), "words": SparseVector(indices=[1], values=[1.0])})]
    )
    client.close()
    found = read_all(tmp_path, trust=True)
    assert np.array_equal(found.vectors, VECTORS[:4]) and found.ids == ["1", "2", "3", "4"]


@pytest.mark.parametrize("name", ["text", "content"])
def test_a_vector_with_the_name_of_another_column(tmp_path, name):
    """A vector that is named for what it is of was taken for the texts themselves."""
    client = QdrantClient(path=str(tmp_path))
    client.create_collection("docs", vectors_config={name: VectorParams(size=DIM, distance=Distance.DOT)})
    points = zip(VECTORS[:3].tolist(), TEXTS, strict=False)
    client.upsert(
        "docs", [PointStruct(id=i, vector={name: v}, payload={"chunk": t}) for i, (v, t) in enumerate(points)]
    )
    client.close()
    found = read_all(tmp_path, text_column=True, trust=True)
    assert np.array_equal(found.vectors, VECTORS[:3]) and found.texts == TEXTS[:3] and found.ids == ["0", "1", "2"]


def test_a_server(server):
    """Pages that overlap, or stop after the first, would double or lose points; nothing is sent but questions."""
    url = f"qdrant:http://127.0.0.1:{server.server_port}"
    check(read_all(url, collection="docs", text_column=True), np.argsort(NUMBERS))
    assert {what for _, what in server.asked} == {"/collections", "scroll", "count"}
    assert np.allclose(read_all(f"{url}?collection=named&column=vector.body").vectors, VECTORS[:1])


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_the_key_of_a_server(server, monkeypatch):
    """A server in the cloud answers nobody without its key."""
    open_vectors(f"qdrant:http://127.0.0.1:{server.server_port}", collection="docs")
    monkeypatch.setenv("QDRANT_API_KEY", "secret")
    source = open_vectors(f"qdrant:http://127.0.0.1:{server.server_port}", collection="docs")
    assert server.keys == {None, "secret"} and "secret" not in source.identity


def test_a_server_that_is_written_meanwhile(server):
    """Points that come while the pages are read may be in some of them."""
    source = open_vectors(f"qdrant:http://127.0.0.1:{server.server_port}", collection="docs")
    batches = source.batches(10)
    next(batches)
    server.client.upsert("docs", [PointStruct(id=ROWS + 1, vector=VECTORS[0].tolist())])
    with pytest.raises(EmbInvError, match="changed while it was read"):
        list(batches)


def test_mistakes_are_one_line(store, server, tmp_path):
    """A server that is down, a name that is not there, an empty collection, no folder of Qdrant's, a damaged one."""
    url = f"qdrant:http://127.0.0.1:{server.server_port}"
    cases = {
        (url, None): "several collections; name one with --collection: docs, empty, named",
        (url, "dox"): "no collection 'dox'; present: docs, empty, named",
        (url, "empty"): "holds no vectors",
        ("qdrant:http://127.0.0.1:9", "docs"): "cannot be read: .*refused",
        (f"qdrant:{tmp_path}", None): "no local folder of Qdrant's client",
        (f"qdrant:{store}", "empty"): "holds no vectors",
    }
    for (source, collection), message in cases.items():
        with pytest.raises(EmbInvError, match=message) as error:
            read_all(source, collection=collection, trust=True)
        assert str(error.value).isprintable()
