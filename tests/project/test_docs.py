"""The documentation: that it builds, and that what it says of the code is so."""

import importlib.util
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import modeling_embinv

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "modeling_embinv"
RAW = ("code", "pre", "script", "style")


class _Loaded(HTMLParser):
    """The addresses that a browser loads with a page, and what it would show as typed: formulas, lists, code."""

    def __init__(self, html: str):
        super().__init__()
        self.addresses, self.formulas = [], html.count('class="arithmatex"')
        self.typed = ["code as quotations"] * html.count("<blockquote>\n<blockquote>")
        self._open = 0  # of what may hold any text
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self._open += tag in RAW
        attrs = dict(attrs)
        if tag in ("script", "img") or (tag == "link" and "stylesheet" in attrs.get("rel", "")):
            self.addresses.append(attrs.get("src") or attrs.get("href") or "")

    def handle_endtag(self, tag):
        self._open -= tag in RAW

    def handle_data(self, data):
        if not self._open:
            self.typed += re.findall(r"\n(?:\d+\.|[-*|]) .*", data)


@pytest.mark.slow
def test_the_site_builds_without_a_broken_link(tmp_path):
    """A page that was renamed, a class that moved, and a list inside a sentence would be found by a reader."""
    pytest.importorskip("mkdocs", reason="the docs extra is not installed")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    pages = {path: _Loaded(path.read_text(encoding="utf-8")) for path in tmp_path.rglob("*.html")}
    assert len(pages) > 15
    for path, page in pages.items():
        assert not page.formulas, f"{path}: a formula was not converted"
        assert not page.typed, f"{path}: no list, table or code was made of {page.typed}"
        assert not [address for address in page.addresses if "//" in address], f"{path} is not complete by itself"


def test_pictures_of_the_imports_are_up_to_date():
    """A picture of last month's architecture misleads; `make docs` draws it anew."""
    spec = importlib.util.spec_from_file_location("picture", DOCS / "_build" / "picture.py")
    picture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(picture)
    for path, wanted in picture.pictures().items():
        assert path.read_text(encoding="utf-8") == wanted, f"{path.name}: run `make docs`"


def test_architecture_has_a_line_for_each_file_and_folder():
    """A file that was added, renamed or removed without a word leaves readers with a wrong map."""
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|", page, flags=re.M)
    listed = {name for name in rows if "/" not in name and name.endswith("_embinv.py")}
    assert listed == {path.name for path in PACKAGE.glob("*_embinv.py")}
    packages = {f"modeling_embinv/{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    modules = {f"modeling_embinv/{path.name}" for path in PACKAGE.glob("[!_]*.py") if path.name not in listed}
    assert packages | modules <= set(rows)
    for name in set(rows) - listed:
        assert list(ROOT.glob(name.rstrip("/"))), f"{name} does not exist"


@pytest.mark.slow
def test_the_quickstart_runs_as_printed(tmp_path, monkeypatch):
    """The first lines that a reader pastes must run, one block after the other."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    page = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    scope: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.S):
        exec(block, scope)
    assert len(scope["texts"]) == 2 and all(scope["texts"])
    assert (tmp_path / "vectors.npy").exists()


def test_the_settings_of_the_released_checkpoint_are_its_own():
    """A new release changes settings; the page that compares them with the paper's must follow."""
    page = (DOCS / "differences_from_the_paper.md").read_text(encoding="utf-8")
    config = json.loads((ROOT / "checkpoints/embinv-minilm/config.json").read_text(encoding="utf-8"))
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|;:]+?)(?:[;:][^|]*)? \|$", page, flags=re.M))
    found = {name: rows[name] for name in rows if name in config}
    assert len(found) == 6 and found == {name: str(config[name]) for name in found}


def test_release_files_name_one_version_and_one_address():
    """A citation of another version, or an address that was changed in one file only, goes unnoticed for years."""
    urls = dict(re.findall(r'^(\w+) = "(https:[^"]+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert citation["version"] == modeling_embinv.__version__
    assert f"## [{citation['version']}] - {citation['date-released']}" in changelog
    repository, documentation = urls["Repository"], urls["Documentation"]
    assert {citation["repository-code"], site["repo_url"]} == {repository}
    assert {citation["url"], site["site_url"]} == {documentation}
    for name in ("CONTRIBUTING.md", "SECURITY.md"):
        assert repository in (ROOT / name).read_text(encoding="utf-8")
