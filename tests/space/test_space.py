"""The Space as its visitors use it: through the API, and in a real browser."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.space.conftest import call, new_page

ROOT = Path(__file__).parents[2]

gradio_client = pytest.importorskip("gradio_client", reason="the Space needs gradio: pip install 'embinv[space]'")
SENTENCE = "We will meet at the station on Friday evening."
SETTINGS = (0, "confidence", 8, 1, "the strategy's own", 0.05, 1, 0, "encoder")
PATIENCE = 300_000  # milliseconds: other work on the machine is no fault of the page
FIGURE = re.compile(r"<b>([\d.]+)%?</b>([^<]+)<")


@pytest.fixture(scope="module")
def url(app, launch):
    _, url, _ = launch()
    yield url
    app.gr.close_all()


@pytest.fixture(scope="module")
def client(url):
    return gradio_client.Client(url, verbose=False)


def test_every_event_has_a_named_endpoint(client):
    """An event without a name is a tab that no script can use."""
    names = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(names) == {"/redacted", "/invert", "/invert_vector", "/replay", "/compare", "/mix", "/leaks"}


def test_drafts_arrive_in_order_and_lose_their_masks(client, app):
    """Catches a stream that sends only its end, sends drafts twice, or drops the step that a replay needs."""
    frames = list(client.submit(SENTENCE, *SETTINGS, api_name="/invert"))
    steps = frames[-1][3]
    masked = [step["masked"] for step in steps]
    assert masked == sorted(masked, reverse=True) and masked[0] == app.inverter.max_tokens + 1 and masked[-1] == 0
    assert len(frames) >= len(steps) > 3  # each draft was sent when it was made
    assert [len(frame[3]) for frame in frames] == sorted(len(frame[3]) for frame in frames)
    vector = app.inverter.embed([app.inverter.cut(SENTENCE)[0]])
    assert frames[-1][1] == app.inverter.decode(app.inverter.generate(vector).sequences)[0]
    assert "tokens in place" in frames[-1][2]
    first, last = (client.predict(index, api_name="/replay") for index in (0, len(steps) - 1))
    assert 'data-masked="0"' not in first and 'data-masked="0"' in last


def test_a_checkpoint_without_int8_is_shown_all_the_same(tmp_path):
    """int8 is for float32 and oneDNN: a checkpoint in bfloat16 stopped the Space at its start."""
    from inverter import Inverter
    from transformers import AutoModel, AutoTokenizer

    checkpoint = ROOT / "checkpoints" / "embinv-minilm"
    model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True, dtype=torch.bfloat16)
    for part in (model, AutoTokenizer.from_pretrained(checkpoint)):
        part.save_pretrained(tmp_path)
    inverter = Inverter(str(tmp_path))
    assert inverter.model.dtype == torch.bfloat16
    assert inverter.decode(inverter.generate(inverter.embed([SENTENCE])).sequences)[0]


@pytest.mark.slow
@pytest.mark.parametrize("feedback", ["encoder", "surrogate"])
def test_corrections_bring_the_text_nearer(client, feedback):
    """A control that is wired to nothing, or a loop that returns its first text."""
    settings = (0, "confidence", 8, 1, "0", 0.05)
    text = "She bought a red car in Paris last summer."
    first = client.predict(text, *settings, 1, 0, feedback, api_name="/invert")
    loop = client.predict(text, *settings, 2, 1, feedback, api_name="/invert")
    calls = f"{feedback} calls"
    assert len(loop[3]) == len(first[3]) + 1 and calls in loop[2] and calls not in first[2]
    assert ("encoder calls" in loop[2]) == (feedback == "encoder")
    again = client.predict(text, *settings, 2, 1, feedback, 2, api_name="/invert")
    figures = [{name: float(value) for value, name in FIGURE.findall(found[2])} for found in (first, loop, again)]
    cosines = [found["cosine with the vector"] for found in figures]
    assert cosines[0] < cosines[1] <= cosines[2]
    assert cosines[1] < 1 and figures[1][calls] < figures[2][calls]  # what no text has reached is searched for again


def test_vectors_of_every_kind_give_the_same_text(client, app, tmp_path):
    """Catches a reader that transposes, takes another row, or needs a column of another name."""
    vectors = app.inverter.embed(["The rain fell all night.", SENTENCE]).numpy()
    expected = app.inverter.decode(app.inverter.generate(app.inverter.embed([SENTENCE])).sequences)[0]
    np.save(tmp_path / "v.npy", vectors)
    np.savetxt(tmp_path / "v.csv", vectors, delimiter=",")
    (tmp_path / "v.json").write_text(json.dumps(vectors.tolist()))
    (tmp_path / "v.jsonl").write_text("\n".join(json.dumps({"embedding": row}) for row in vectors.tolist()))
    pq.write_table(pa.table({"id": [0, 1], "vector": vectors.tolist()}), tmp_path / "v.parquet")
    for path in sorted(tmp_path.iterdir()):
        file = gradio_client.handle_file(str(path))
        assert client.predict(None, file, 1, *SETTINGS, api_name="/invert_vector")[1] == expected, path
    pasted = json.dumps(vectors[1].tolist())
    for text in (pasted, pasted.strip("[]").replace(",", " ")):
        assert client.predict(text, None, 0, *SETTINGS, api_name="/invert_vector")[1] == expected


@pytest.mark.filterwarnings("ignore:embeddings are not of length 1")
@pytest.mark.filterwarnings("ignore:this model inverts vectors of")
def test_vectors_of_another_origin_get_a_warning(app, monkeypatch):
    """The difference of two vectors came back as a fluent sentence that nobody wrote, and nothing said so."""
    told = []
    monkeypatch.setattr(app.gr, "Warning", told.append)
    king, queen = app.inverter.embed(["The king is dead.", "The queen is dead."])
    for vector, count in ((king, 0), (king - queen, 1)):
        told.clear()
        assert list(app.invert_vector(json.dumps(vector.tolist()), None, 0, *SETTINGS))
        assert len(told) == count
    assert "inverts vectors of sentence-transformers/all-MiniLM-L6-v2; these look like sums or differences" in told[0]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "Paste a vector"),
        ("hello", "This is no vector"),
        ("[1, 2, 3]", "has 3 numbers; this model reads vectors of 384"),
        (json.dumps([0.0] * 384), "all zeros"),
        ("[" + "1e400," * 383 + "1]", "NaN or infinity"),
        ("[" * 5000, "one vector, or rows of vectors"),
        ("[" + "1" * 5000 + "]", "has 1 numbers"),
        ("[[1, 2], [3]]", "same number of plain numbers"),
        ('{"a": 1}', "plain numbers"),
    ],
)
def test_a_bad_vector_is_one_readable_line(client, text, message):
    """A stack trace tells a visitor nothing, and an attacker too much."""
    with pytest.raises(gradio_client.exceptions.AppError, match=message) as caught:
        client.predict(text, None, 0, *SETTINGS, api_name="/invert_vector")
    assert "Traceback" not in str(caught.value) and "\n" not in str(caught.value)


def test_bad_files_are_one_readable_line(client, tmp_path):
    """A pickle must not be opened, nor a stranger's database queried; a damaged or foreign file must say so."""
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    (tmp_path / "notes.csv").write_text("some,words\n")
    (tmp_path / "store.db").write_bytes(b"SQLite format 3\0")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(gradio_client.exceptions.AppError, match=f"{path.name} cannot be read as"):
            client.predict(None, gradio_client.handle_file(str(path)), 0, *SETTINGS, api_name="/invert_vector")


def test_limits_hold(client):
    """An endless text or a hundred lines would keep everybody else waiting."""
    for text, message in (("", "Type a sentence"), ("word " * 200, "at most 600"), ("…" * 3 + "\n", None)):
        if message:
            with pytest.raises(gradio_client.exceptions.AppError, match=message):
                client.predict(text, *SETTINGS, api_name="/invert")
    with pytest.raises(gradio_client.exceptions.AppError, match="at most 8"):
        client.predict("line\n" * 9, 0.0, "float32", 0, api_name="/leaks")
    with pytest.raises(gradio_client.exceptions.AppError, match="same vector"):
        client.predict(SENTENCE, SENTENCE, 5, api_name="/mix")
    long = client.predict("the dog sleeps and " * 20, *SETTINGS, api_name="/invert")
    assert long[1]  # cut, not refused


def test_compare_mix_and_leaks_answer(client, app):
    """Catches columns that were swapped and texts that belong to another row."""
    table, _, _ = client.predict(SENTENCE, 4, 0, api_name="/compare")
    assert [row[0] for row in table["data"]] == list(app.STRATEGIES)
    for _, text, cosine, *_ in table["data"]:
        vectors = app.inverter.embed([text, app.inverter.cut(SENTENCE)[0]])
        assert abs(float(vectors[0] @ vectors[1]) - cosine) < 2e-3
    rows = client.predict("The dog sleeps.", "We leave by train at noon.", 5, api_name="/mix")["data"]
    assert rows[0][2] > rows[-1][2] and rows[0][3] < rows[-1][3] and len(rows) == 5
    marked, table, told = client.predict("The dog saw Anna at 7.", 0.0, "int8", 0, api_name="/leaks")
    assert [row[:2] for row in table["data"]] == [["names and places", 1], ["numbers", 1], ["other content words", 2]]
    assert "content words" in told and marked.count("<mark") == 4


def test_noise_destroys_what_leaks(app):
    """A slider that changes nothing would tell visitors that noise is no use."""
    from leaks import protect

    vectors = app.inverter.embed([SENTENCE, "The dog slept."])
    cosines = [float((protect(vectors, noise) * vectors).sum(dim=1).mean()) for noise in (0.0, 0.01, 0.05, 0.1)]
    assert cosines[0] > 0.9999 and cosines == sorted(cosines, reverse=True) and cosines[-1] < 0.6
    rounded = protect(vectors, int8=True)
    assert 0.999 < float((rounded * vectors).sum(dim=1).min()) < 1 - 1e-7


def test_words_are_counted_by_what_they_are():
    """A name at the sentence's start, an inner digit group and a word's case decide the summary."""
    from leaks import survivors

    text = "Yesterday Maria paid 4,500 dollars. Her dog slept."
    found = [(text[a:b], kind, kept) for a, b, kind, kept in survivors(text, "maria paid dollars to her dog")]
    assert found == [
        ("Yesterday", "other content words", False), ("Maria", "names and places", True),
        ("paid", "other content words", True), ("4,500", "numbers", False), ("dollars", "other content words", True),
        ("dog", "other content words", True), ("slept", "other content words", False),
    ]  # fmt: skip


def test_a_cosine_is_said_in_words():
    """A fluent text with a cosine of 0.08 looked like a success; visitors do not know what 0.72 means."""
    from inverter import Result
    from render import figures_html

    for cosine, words in ((0.999999, "exact text"), (0.72, "the gist"), (0.999, "the gist"), (0.08, "does not fit")):
        assert words in figures_html(Result("a", [1], 8, 90.0, cosine))


def test_html_of_a_visitors_text_is_escaped(app):
    """A pasted script must stay text, in drafts as in marked-up lines."""
    from inverter import Draft
    from leaks import leaks_html

    assert "<script>" not in app.draft_html(Draft(["<script>"], [0.5], [False]))
    assert "<script>" not in leaks_html(["<script>alert(1)</script> Bob"], ["<script>"])


@pytest.mark.slow
def test_32_clients_at_once_lose_nothing(url, app):
    """Shared state between visitors would give one the other's text; a short queue would turn some away."""
    texts = [f"The {animal} has {count} legs." for animal in ("dog", "cat", "cow", "bird") for count in range(2, 10)]
    vectors = [app.inverter.embed([text.lower()]) for text in texts]
    expected = [app.inverter.decode(app.inverter.generate(one, num_steps=4).sequences)[0] for one in vectors]
    assert len(set(expected)) > 20

    def visit(text: str) -> str:
        event, data = call(url.rstrip("/"), "invert", [text, 0, "confidence", 4, *SETTINGS[3:], 1], session=text)
        assert event == "complete", data
        return json.loads(data)[1]

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(visit, texts)) == expected


@pytest.fixture(scope="module")
def page(url):
    with new_page(1280, 900, PATIENCE) as page:
        page.requested = []
        page.on("request", lambda request: page.requested.append(request.url))
        page.goto(url)
        page.get_by_role("tab", name="Recover").click()
        yield page


def test_the_page_starts_with_the_strategys_own_temperature(page, client):
    """An empty number box showed and sent 0, so that visitors never saw the euler strategies sample."""
    page.get_by_role("button", name="Settings").click()
    assert page.get_by_label("Temperature").input_value() == "the strategy's own"
    page.get_by_role("button", name="Settings").click()
    texts = set()
    for temperature in ("the strategy's own", "0"):
        settings = (1, "euler", 8, 1, temperature, 0.05, 1, 0)
        texts.add(client.predict(SENTENCE, *settings, api_name="/invert")[1])
    assert len(texts) == 2


def test_a_visitor_inverts_and_replays(page, app):
    """Catches a page whose buttons are wired to nothing, and a replay that shows the end at every step."""
    assert page.locator(".figures").count() == 1 and page.locator(".draft").inner_text()  # a result on arrival
    page.locator(".draft").evaluate("draft => draft.remove()")
    page.get_by_label("Sentence").first.fill(SENTENCE)
    page.get_by_role("button", name="Embed it and read it back").click()
    page.locator(".draft[data-masked='0']").wait_for()
    page.locator(".figures").wait_for()
    assert "station" in page.get_by_label("Recovered text").input_value()
    slider = page.locator("input[type=range][aria-label*='Replay']")
    slider.focus()
    slider.press("Home")
    page.locator(".draft:not([data-masked='0'])").wait_for()
    assert page.locator(".draft .masked").count() > 5


def test_a_visitor_uploads_and_errs(page, app, tmp_path):
    """A wrong file must show its message on the page; a right one its text."""
    page.get_by_role("tab", name="A vector").click()
    page.get_by_label("Vector of 384 numbers").fill("[1, 2]")
    page.get_by_role("button", name="Read it", exact=True).click()
    page.get_by_text("this model reads vectors of 384").first.wait_for()
    np.save(tmp_path / "one.npy", app.inverter.embed(["The dog sleeps on the sofa."]).numpy())
    page.locator("input[type=file]").first.set_input_files(tmp_path / "one.npy")
    page.get_by_text("one.npy").first.wait_for()
    page.get_by_role("button", name="Read it", exact=True).click()
    page.locator(".draft[data-masked='0']").wait_for()
    page.wait_for_function("document.querySelector('[aria-label=\"Recovered text\"], label textarea')")
    assert page.locator(".figures").inner_text().count("tokens in place") == 0


@pytest.mark.slow
def test_a_visitor_compares_mixes_and_sees_what_leaks(page):
    """Tabs that are only drawn when they are opened break unseen."""
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("button", name="Compare").click()
    page.locator("text=two_stage >> visible=true").first.wait_for()
    page.get_by_role("tab", name="Mix").click()
    page.get_by_role("button", name="Mix").click()
    page.locator("text=100% >> visible=true").first.wait_for()
    page.get_by_role("tab", name="What leaks").click()
    page.get_by_label("Text, up to 8 lines").fill("The transfer of 4,500 dollars failed on Monday.")
    page.get_by_role("button", name="What leaks?").click()
    page.locator(".leak mark").first.wait_for()


@pytest.mark.slow
def test_an_examples_result_is_kept(page, app, monkeypatch):
    """On a Space every visitor clicks the first example: it must not be inverted each time, nor lose its replay."""
    runs, drafts = [], app.inverter.drafts
    monkeypatch.setattr(app.inverter, "drafts", lambda *args, **settings: runs.append(1) or drafts(*args, **settings))
    seen = []
    for _ in range(2):
        visitor = page.context.browser.new_page()
        visitor.set_default_timeout(PATIENCE)
        visitor.goto(page.url)
        visitor.get_by_role("tab", name="Recover").click()
        visitor.locator(".figures").evaluate("figures => figures.remove()")  # those of the result on arrival
        visitor.locator(".draft").evaluate("draft => draft.remove()")
        visitor.get_by_role("button", name=app.EXAMPLES[1]).click()
        visitor.locator(".figures").wait_for()
        visitor.locator(".draft[data-masked='0']").wait_for()
        seen.append((visitor.get_by_label("Recovered text").input_value(), visitor.locator(".figures").inner_text()))
        slider = visitor.locator("input[type=range][aria-label*='Replay']:enabled")
        slider.focus()
        slider.press("Home")
        visitor.locator(".draft:not([data-masked='0'])").wait_for()
        visitor.close()
    assert seen[0] == seen[1] and "station" in seen[0][0]
    assert len(runs) == 1


def test_the_page_uses_nothing_from_the_network(page, url):
    """A font or script from elsewhere tells a stranger who reads which vectors, and breaks offline."""
    assert page.requested and all(request.startswith((url, "data:", "blob:")) for request in page.requested)
