"""What the Space refuses, and what it leaves behind: no raw error, no visitor's text in the log, nothing kept."""

import json
import os
import random
import re
import socket
import time
from pathlib import Path

import pytest

from tests.space.conftest import ENDLESS, INVERT, JSON, all_stopped, call, running

httpx = pytest.importorskip("httpx")
gradio_client = pytest.importorskip("gradio_client", reason="the Space needs gradio: pip install 'embinv[space]'")
PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.npy"\r\n\r\n'
META = {"meta": {"_type": "gradio.FileData"}}  # by which gradio knows a file
SECRET = "xyzzy-of-a-visitor"
SENTENCE = INVERT[0]
VECTORS = ["[1, 2]", None, "quick", "surrogate"]
GOOD = {
    "redacted": ["The dog slept in Paris.", ["Paris"], "surrogate"],
    "recover": [SENTENCE, "quick", "surrogate"],
    "leaks": ["The dog slept.", 0, "float32", "384", "quick"],
    "vectors": VECTORS,
    "invert": INVERT,
    "compare": [SENTENCE, 2, 0],
    "mix": [SENTENCE, "The dog slept.", 3],
}


@pytest.fixture(scope="module")
def url(app, launch, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        patch.setattr(app, "KEPT_SECONDS", 1)
        patch.setattr(app, "SWEPT_SECONDS", 1)
        server, url, _ = launch()
        yield url.rstrip("/")
        server.get_blocks().close()


def message_of(outcome: tuple[str, str]) -> str:
    """The one line of an error, however it came."""
    event, data = outcome
    assert event == "error", data[:300]
    content = json.loads(data)
    message = content.get("error") or content.get("detail")
    assert isinstance(message, str) and message.strip() and "\n" not in message and len(message) < 300, data[:300]
    assert "Traceback" not in message and ".py" not in message
    return message


def test_no_event_takes_a_value_without_a_bound(app):
    """A new control whose values nobody checks is the next replay that answers 120 bytes with 210 MB."""
    inputs = [(event.api_name, component) for event in app.build().fns.values() for component in event.inputs]
    assert len(inputs) > 60
    assert [given for given in inputs if not (given[1].stateful or hasattr(given[1], "bound"))] == []


@pytest.mark.parametrize(
    "name, position, value, message",
    [
        ("redacted", 0, "x" * 601, "at most 600"),
        ("redacted", 1, "Paris", "Words to hide: give a list of words"),
        ("redacted", 1, [5], "Words to hide: give a list of words"),
        ("redacted", 1, ["London"], "not in the sentence"),
        ("redacted", 1, [], "No word is hidden"),
        ("redacted", 2, "oracle", "Judged by: choose one of surrogate, encoder"),
        ("recover", 0, ["a list"], "Sentence: give a text"),
        ("recover", 0, "x" * 20_001, "at most 20,000"),
        ("recover", 0, "😀", "knows none of these"),
        ("recover", 1, "best", "Search: choose one of quick, standard, thorough"),
        ("recover", 2, "oracle", "Judged by: choose one of surrogate, encoder"),
        ("invert", 1, 1e30, "Seed: give a whole number from 0 to 4294967295"),
        ("invert", 1, -1, "Seed"),
        ("invert", 1, float("nan"), "Seed"),
        ("invert", 1, "abc", "Seed"),
        ("invert", 1, 0.5, "Seed"),
        ("invert", 1, True, "Seed"),
        ("invert", 2, "__class__", "Strategy: choose one of confidence, sequential"),
        ("invert", 2, ["euler"], "Strategy"),
        ("invert", 3, 10**18, "Steps: give a whole number from 1 to 32"),
        ("invert", 3, 0, "Steps"),
        ("invert", 4, float("inf"), "Guidance scale: give a number from 0 to 4"),
        ("invert", 5, 11, "Temperature: give a number from 0 to 10, or default"),
        ("invert", 5, "warm", "Temperature"),
        ("invert", 6, -0.1, "Remask ratio: give a number from 0 to 0.5"),
        ("invert", 7, 10**6, "Candidates: give a whole number from 1 to 32"),
        ("invert", 8, 10**6, "Corrections: give a whole number from 0 to 20"),
        ("invert", 9, "oracle", "Judged by: choose one of"),
        ("invert", 10, 10**6, "Searches: give a whole number from 1 to 4"),
        ("invert", 11, "oracle", "Draft: choose one of"),
        ("invert", 14, "1e9", "Max length: give a whole number from 1 to 32, or default"),
        ("invert", 16, 10**6, "Beams: give a whole number from 1 to 8"),
        ("vectors", 0, "1," * 500_000, "too large"),
        ("vectors", 0, "1," * 201_000, "at most 400,000"),
        ("vectors", 1, {"path": "/etc/passwd", **META}, "not on the server"),
        ("vectors", 1, {"path": "http://127.0.0.1:1/a.npy", **META}, "upload the file"),
        ("vectors", 1, {"path": 5}, "upload the file"),
        ("vectors", 1, "name.npy", "upload the file"),
        ("vectors", 2, "slow", "Search: choose one of"),
        ("compare", 1, 33, "Steps"),
        ("mix", 2, 30_000_000, "Points on the way: give a whole number from 3 to 15"),
        ("mix", 0, {"path": "a", **META}, "From: give a text"),
        ("leaks", 0, "line\n" * 51, "at most 50"),
        ("leaks", 0, "x" * 40_001, "at most 40,000"),
        ("leaks", 1, 1e9, "Noise"),
        ("leaks", 2, "int4", "Stored as"),
        ("leaks", 3, "385", "Numbers kept"),
        ("leaks", 4, 5, "Search: choose one of"),
    ],
)  # fmt: skip
def test_every_parameter_is_bound_on_the_server(url, capfd, name, position, value, message):
    """Sliders bind the page only: a seed of 1e30 gave a raw error, a replay of 30,000,000 drafts 210 MB."""
    data = [*GOOD[name]]
    data[position] = value
    outcome = call(url, name, data)
    assert re.search(message, message_of(outcome))
    captured = "".join(capfd.readouterr())
    assert "Traceback" not in captured and "Error" not in captured


@pytest.mark.parametrize("data", [[], [1] * 50, INVERT[:3]])
def test_a_wrong_number_of_values_is_one_line(url, capfd, data):
    """gradio quotes all values that came, in the answer and in the log."""
    assert f"takes {len(INVERT)} values" in message_of(call(url, "invert", data))
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("pasted", ["[" * 100_000, "[" * 900 + "]" * 900, '{"a":' * 50_000, "[1e30, NaN]", "9" * 5000])
def test_nested_json_is_one_line(url, capfd, pasted):
    """Brackets in brackets exhaust Python's stack: a RecursionError, raw."""
    message_of(call(url, "vectors", [pasted, *VECTORS[1:]]))
    nested = f'{{"data": {"[" * 100_000}{"]" * 100_000}}}'
    answer = httpx.post(f"{url}/gradio_api/call/invert", content=nested, headers=JSON)
    assert answer.status_code in (400, 422) and len(answer.text) < 300
    assert "Traceback" not in "".join(capfd.readouterr())


def test_half_a_surrogate_pair_is_no_crash(url, capfd):
    """JSON can write what no UTF-8 holds, and tokenizers refuse it with a TypeError."""
    assert call(url, "invert", ["\ud800 and a dog", *INVERT[1:]])[0] == "complete"
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("path", ["call/invert", "run/invert", "queue/join", "upload"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_has_a_limit(url, capfd, path, declared):
    """300 MB were read, kept, and written to the log; without a Content-Length nothing stops them but counting."""
    size = 21_000_000 if path == "upload" else 600_000
    content = PART if path == "upload" else b'{"data": ["'
    content += SECRET.encode() * (size // len(SECRET))
    sent = content if declared else (content[start : start + 60_000] for start in range(0, len(content), 60_000))
    kind = {"Content-Type": "multipart/form-data; boundary=x" if path == "upload" else "application/json"}
    with httpx.Client(timeout=60) as client:
        try:
            answer = client.post(f"{url}/gradio_api/{path}", content=sent, headers=kind)
        except httpx.WriteError:  # the server has closed the connection before all was sent
            answer = None
    assert answer is None or (answer.status_code == 413 and len(answer.text) < 200)
    assert declared is False or answer is not None
    assert "".join(capfd.readouterr()) == ""
    assert httpx.get(url).status_code == 200


def test_a_malformed_request_is_not_repeated(url, capfd):
    """FastAPI's validation answers with the whole body that came."""
    for path, body in (
        ("call/invert", {"data": SECRET * 1000}),
        ("queue/join", {"data": [], "fn_index": SECRET}),
        ("queue/join", {"data": [SECRET], "fn_index": 10**6, "session_hash": "s"}),
        ("queue/join", {"data": [SECRET], "fn_index": 0, "session_hash": "s", "trigger_id": 10**9}),
        ("queue/join", {"data": [SECRET], "fn_index": 0, "session_hash": "s", "event_data": SECRET}),
        ("call/nothing", {"data": [SECRET]}),
        ("component_server", {"data": SECRET, "component_id": 1, "session_hash": "s", "fn_name": SECRET}),
        ("cancel", {"session_hash": SECRET}),
    ):  # fmt: skip
        answer = httpx.post(f"{url}/gradio_api/{path}", json=body)
        assert SECRET not in answer.text and len(answer.text) < 300, path
    captured = "".join(capfd.readouterr())
    assert SECRET not in captured and "Traceback" not in captured


def test_a_fault_of_ours_shows_nothing_of_itself(url, app, capfd, caplog, monkeypatch):
    """A TypeError's message quotes what it was given; the visitor needs none of it, the log no text of the visitor."""

    def broken(text):
        raise TypeError(f"unsupported: {text}")

    monkeypatch.setattr(app.inverter, "cut", broken)
    message = message_of(call(url, "invert", [SECRET, *INVERT[1:]]))
    assert message == "Something went wrong here; it has been noted."
    captured = "".join(capfd.readouterr()) + caplog.text
    assert SECRET not in captured and "Traceback" not in captured
    assert "TypeError at" in captured and Path(__file__).name in captured


def test_uploads_are_deleted(url, app, tmp_path):
    """Files that nobody uses stayed for ever; one that is used left an empty file behind as well."""
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    path = tmp_path / "one.json"
    path.write_text(json.dumps(app.inverter.embed([SENTENCE])[0].tolist()))
    client = gradio_client.Client(url, verbose=False)
    client.predict("", gradio_client.handle_file(str(path)), "quick", "surrogate", api_name="/vectors")
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    httpx.post(f"{url}/gradio_api/upload", content=PART + b"1" * 1000, headers=kind)  # no end, so that it has no name
    _abandon_upload(url)
    assert list(uploads.iterdir())
    deadline = time.time() + 60
    while _files(uploads) and time.time() < deadline:
        time.sleep(0.2)
    assert _files(uploads) == []


def _files(folder: Path) -> list[str]:
    """All files under a folder; `os.walk` forgives folders that are deleted meanwhile."""
    return [name for _, _, names in os.walk(folder) for name in names]


def _abandon_upload(url: str):
    """Begin an upload and hang up in the middle."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + PART + b"1" * 20_000
        )
        time.sleep(0.5)


def test_a_visitor_who_hangs_up_frees_the_queue(url):
    """The page's answer was one long pause during a search, in which gradio did not see that nobody listens."""
    before = running()
    answer = httpx.post(f"{url}/gradio_api/call/recover", json={"data": [ENDLESS, "thorough", "surrogate"]}).json()
    with httpx.stream("GET", f"{url}/gradio_api/call/recover/{answer['event_id']}", timeout=60) as stream:
        next(line for line in stream.iter_lines() if "best candidate" in line)  # the search begins
        assert len(running() - before) == 1
    assert all_stopped()  # the whole search takes a minute


def test_an_unknown_run_ends_its_answer(url, capfd):
    """gradio breaks off in the middle of such an answer, with a traceback in the log."""
    assert "error" in httpx.get(f"{url}/gradio_api/call/invert/nothing", timeout=10).text
    assert "".join(capfd.readouterr()) == ""


def test_what_visitors_leave_is_bounded(app, launch, monkeypatch):
    """gradio keeps 10,000 sessions, each with a copy of the page and the last drafts."""
    monkeypatch.setattr(app, "MAX_SESSIONS", 3)
    server, url, _ = launch()
    for number in range(6):
        call(url.rstrip("/"), "invert", INVERT, session=None)
        call(url.rstrip("/"), "invert", INVERT, session=f"visitor{number}")
    assert len(server.state_holder.session_data) <= 4
    server_blocks = server.get_blocks()
    assert len(server_blocks._queue.event_analytics) <= 100
    deadline = time.time() + 60  # an answer ends a moment before its event is dropped
    while server_blocks._queue.event_ids_to_events and time.time() < deadline:
        time.sleep(0.05)
    assert not server.iterators and not server_blocks._queue.event_ids_to_events
    server_blocks.close()


ODD = [
    None, True, -1, 0, 1, 33, 10**18, -(10**30), 1e30, 0.5, float("nan"), float("inf"), "", "abc", "0", "x" * 50_000,
    "\0", "\ud800", "{}", "[" * 5000, [], [[]], [1] * 1000, {}, {"path": "/etc/passwd"}, {"__type__": "update"},
    {"path": "../../x.npy", **META}, {"meta": None, "path": "a"}, "<b>é</b>", "euler",
]  # fmt: skip


@pytest.mark.slow
def test_no_odd_value_gives_a_raw_error(url, capfd):
    """A seeded fuzz of all endpoints: each call is answered, or refused in one line."""
    draw = random.Random(0)
    for _ in range(120):
        name = draw.choice(list(GOOD))
        odd = draw.randrange(len(GOOD[name]))  # at least one, as usual values only take time
        data = [draw.choice(ODD) if at == odd or draw.random() < 0.3 else value for at, value in enumerate(GOOD[name])]
        outcome = call(url, name, data)
        assert len(outcome[1]) < 1_000_000
        if outcome[0] != "complete":
            assert "noted" not in message_of(outcome), (name, data)
    assert "".join(capfd.readouterr()) == ""
    assert call(url, "invert", INVERT)[0] == "complete"


def test_a_text_that_is_pasted_too_long_is_refused_and_not_cut():
    """A browser that keeps exactly as many characters as are read cuts a pasted text in silence."""
    from bounds import Text  # imports gradio, which not everybody has

    text = Text("Text to redact", 600)
    box = text.control()
    pasted = ("word " * 200)[: box.max_length]
    with pytest.raises(ValueError, match="at most 600 characters are read; this has more"):
        text.check(pasted)
    assert text.check(pasted[:600]) == pasted[:600]
    emoji = ("😀" * 601).encode("utf-16-le")[: 2 * box.max_length]  # a browser counts two units for each
    with pytest.raises(ValueError, match="at most 600 characters are read; this has more"):
        text.check(emoji.decode("utf-16-le", "replace"))
    # a longer body is not read at all, see `guard.MAX_BODY`
    assert Text("Vectors", 400_000).control().max_length == 400_001
