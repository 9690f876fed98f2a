"""The page as a whole: its endpoints, its head, what axe says of it, and many visitors at once."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch

from tests.space.conftest import INVERT, call, go_to, running

gradio_client = pytest.importorskip("gradio_client", reason="the Space needs gradio: pip install 'embinv[space]'")
ROOT = Path(__file__).parents[2]
SENTENCE = "We will meet at the station on Friday evening."
TABS = ("Redacted", "Recover", "What leaks", "Vectors", "For researchers")
ENDPOINTS = {"/redacted", "/recover", "/leaks", "/vectors", "/invert", "/compare", "/mix"}
# of axe: what keeps somebody from using the page
GRAVE = ("serious", "critical")


def test_every_tab_has_a_named_endpoint(url):
    """An event without a name is a tab that no script can use; `value_39` names no output."""
    client = gradio_client.Client(url, verbose=False)
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == ENDPOINTS
    for endpoint in endpoints.values():
        assert endpoint["description"] and not any(
            re.match("param_|value_", one["parameter_name"]) for one in endpoint["parameters"]
        )
    card = (ROOT / "space" / "README.md").read_text()
    assert all(f"`{name}`" in card for name in ENDPOINTS) and all(f"**{tab}**" in card for tab in TABS)


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


def test_a_shared_link_shows_this_page(url, monkeypatch):
    """A shared link praised Gradio, and showed its picture and its icon."""
    import sharing

    html = httpx.get(url).text
    found = dict(re.findall(r'<meta property="(og:\w+)" content="([^"]*)"', html))
    assert found["og:title"] == sharing.TITLE and found["og:description"] == sharing.DESCRIPTION
    assert html.count('property="og:title"') == html.count("twitter:card") == 1 and "gradio-app/main" not in html
    image = httpx.get(f"{url.rstrip('/')}{found['og:image']}")
    assert image.headers["content-type"] == "image/png" and len(image.content) > 10_000
    assert "<svg" in httpx.get(f"{url}favicon.ico").text
    monkeypatch.setenv("SPACE_HOST", "me-inv.hf.space")  # a preview's image needs a whole address
    assert b'content="https://me-inv.hf.space/preview.png"' in sharing.tags()


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_use_the_page(visit, url, theme):
    """White on teal of 1.9 : 1, tabs that were cut on a phone, a font of elsewhere that tells who reads here."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, requested = visit("Redacted", 1366, 900, theme), []
    page.on("request", lambda request: requested.append(request.url))
    for width in (1366, 390):
        if width == 390:
            page.set_viewport_size({"width": width, "height": 844})
            page.reload()
        for tab in TABS:
            go_to(page, tab)
            page.locator(".result").locator("visible=true").first.wait_for()
            for more in page.get_by_role("button", name="More settings").locator("visible=true").all():
                more.click()
            found = axe.run(page).response["violations"]
            grave = [(one["id"], one["nodes"][0]["target"]) for one in found if one["impact"] in GRAVE]
            assert not grave, (tab, grave)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
    for name in ("Paper", "Code", "Model card", "Documentation"):
        assert page.get_by_role("link", name=name, exact=True).get_attribute("href").startswith("https://")
    assert "English, up to 31 tokens" in page.locator(".about").first.inner_text()
    assert requested and all(request.startswith((url, "data:", "blob:")) for request in requested)


# where the keyboard is, and whether one sees it: an outline around it or its label
FOCUSED = """() => {
  const part = document.activeElement, place = part.type === "radio" ? part.closest("label") : part;
  const { outlineStyle, outlineWidth } = getComputedStyle(place);
  return [part.value || part.innerText, outlineStyle !== "none" && parseFloat(outlineWidth) >= 2];
}"""


def test_the_keyboards_place_is_seen(visit):
    """Who uses no mouse did not see which of the teal choices they were at: its ring was white on white."""
    page = visit("Recover")
    page.get_by_label("Sentence").focus()
    seen = {}
    for _ in range(14):
        page.keyboard.press("Tab")
        name, is_seen = page.evaluate(FOCUSED)
        seen[name] = is_seen
    assert {"Password", "Recover it", "Copy link", "quick", "standard", "surrogate"} <= set(seen)
    assert [name for name, is_seen in seen.items() if not is_seen] == []


@pytest.mark.slow
def test_the_first_tabs_are_in_view_on_a_phone(visit):
    """The tab "What leaks", the point of it all, was hidden behind three dots."""
    page = visit("Redacted", 390, 844)
    for tab in TABS[:4]:
        assert page.get_by_role("tab", name=tab, exact=True).locator("visible=true").count() == 1, tab


@pytest.mark.slow
def test_32_clients_at_once_lose_nothing(url, app):
    """Shared state between visitors would give one the other's text; a short queue would turn some away."""
    texts = [f"The {animal} has {count} legs." for animal in ("dog", "cat", "cow", "bird") for count in range(2, 10)]
    expected = [
        app.inverter.decode(app.inverter.generate(vector, strategy="confidence", num_steps=1).sequences)[0]
        for vector in (app.inverter.embed([text]) for text in texts)
    ]
    assert len(set(expected)) > 20

    def ask(text: str) -> tuple[str, str]:
        event, data = call(url.rstrip("/"), "invert", [text, 0, "confidence", 1, *INVERT[4:]], session=text)
        assert event == "complete", data
        (found,) = json.loads(data)
        return found["original"], found["text"]

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, texts)) == list(zip(texts, expected, strict=True))


# whether the queue's line lies within what may cut it off, and on the screen
IN_VIEW = """() => {
  const line = document.querySelector("#recover-message .progress-text");
  if (!line) return false;
  const box = line.getBoundingClientRect(), around = line.closest(".wrap").getBoundingClientRect();
  const top = Math.max(around.top, 0), bottom = Math.min(around.bottom, window.innerHeight);
  return box.height > 10 && box.top >= top - 2 && box.bottom <= bottom + 2;
}"""


@pytest.mark.slow
def test_who_waits_sees_for_how_long(url, app, visit, hold, monkeypatch):
    """A page that stands still while others are served looks broken: it shows a place in the queue and an estimate."""
    data = [SENTENCE, "quick", "surrogate"]
    call(url.rstrip("/"), "recover", data)  # the estimate is made of the runs before
    page = visit("Recover", 390, 844)
    go, done = page.get_by_role("button", name="Recover it"), page.locator(".recovery[data-done=true]")
    page.get_by_label("quick").locator("visible=true").check()
    page.get_by_label("Sentence").fill("The dog slept.")
    go.click()
    done.locator(".original", has_text="dog").wait_for()
    page.locator("#recover-message [data-testid=status-tracker].hide").wait_for(state="attached")
    generate = app.inverter.generate

    def held(*arguments, **settings):
        hold.wait(240)
        return generate(*arguments, **settings)

    monkeypatch.setattr(app.inverter, "generate", held)
    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(call, url.rstrip("/"), "recover", data) for _ in range(2)]
        deadline = time.time() + 60
        while len(running()) < 2 and time.time() < deadline:
            time.sleep(0.05)
        go.click()
        page.get_by_text(re.compile(r"queue: 1/1 \|\s*[\d.]+/[\d.]+s")).wait_for()
        page.wait_for_function(IN_VIEW)  # it was cut off by what stands around it, and on a phone above the screen
        hold.set()
        assert [other.result()[0] for other in others] == ["complete"] * 2


@pytest.mark.slow
def test_one_visitor_sees_nothing_of_another(visit):
    """Results that one visitor's page shows must not stand in another's, nor in one that comes later."""
    first, second = visit("Recover"), visit("Recover")
    for page, text in ((first, "The secret garden is behind the church."), (second, SENTENCE)):
        page.get_by_label("quick").locator("visible=true").check()
        page.get_by_label("Sentence").fill(text)
        page.get_by_role("button", name="Recover it").click()
    for page, own, other in ((first, "garden", "station"), (second, "station", "garden")):
        page.locator(".recovery[data-done=true] .original", has_text=own).wait_for()
        assert other not in page.locator("body").inner_text()
    assert "garden" not in visit("Recover").locator("body").inner_text()
