"""The house: who may import whom."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "modeling_embinv"
# from the top down; a sub-package imports from those below it, never from one beside or above it
ORDER = (
    "cli", "training", "audit", "evaluation", "inversion", "loading", "repository", "stores", "data", "progress",
    "cores",
)  # fmt: skip
BESIDE = {("inversion", "loading"), ("evaluation", "inversion"), ("training", "audit")}  # neither needs the other
MOST_STOREYS = 8


@pytest.fixture(scope="module")
def picture():
    """The script that draws the pictures of imports."""
    spec = importlib.util.spec_from_file_location("picture", ROOT / "docs" / "_build" / "picture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def graph(picture) -> dict[str, set[str]]:
    """Each module's imports from the package, as dotted names below it."""
    return picture.file_imports()


def room(module: str) -> str:
    """The sub-package of a module, or the file itself."""
    return module.partition(".")[0]


def test_imports_go_down_only(graph):
    """A reader of files that imports the training loop cannot be understood, tested or loaded without it."""
    assert len(graph) > 60
    shipped = {module for module in graph if module.endswith("_embinv")}
    for module, targets in graph.items():
        if module in shipped:
            assert targets <= shipped, f"{module} ships with checkpoints, but imports {targets - shipped}"
            continue
        below = ORDER[ORDER.index(room(module)) + 1 :] if room(module) in ORDER else ()
        allowed = {room(module), *below, "runtime"}
        wrong = {target for target in targets - shipped if room(target) not in allowed}
        assert not wrong, f"{module} imports {wrong}, which are beside it or above it"
        assert not {(room(module), room(target)) for target in targets} & BESIDE, module


def test_the_house_has_no_circle_and_few_storeys(picture, graph):
    """Files that import each other in a circle are one file; on eleven storeys nobody finds the way."""
    assert picture.storeys(graph)  # no circle of files
    rooms = {room(module): set() for module in graph}
    for module, targets in graph.items():
        rooms[room(module)] |= {room(target) for target in targets} - {room(module)}
    assert max(picture.storeys(rooms).values()) < MOST_STOREYS  # the lowest is 0
    with pytest.raises(ValueError, match="a circle of imports: a -> b -> a"):
        picture.storeys({"a": {"b"}, "b": {"a"}})


def test_tests_share_helpers_but_not_test_modules():
    """A test module that imports another runs its fixtures twice, and cannot be moved or removed alone."""
    modules = sorted((ROOT / "tests").rglob("*.py"))
    assert len(modules) > 80
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            parts = ".".join([*found, getattr(node, "module", None) or ""]).split(".")
            assert not [part for part in parts if part.startswith("test_")], f"{path} imports {ast.unparse(node)}"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*_embinv.py")), ids=lambda path: path.stem)
def test_shipped_files_need_little(path):
    """A Hub user has torch and transformers; whatever else a file imports must come with them."""
    allowed = {"torch", "transformers", "huggingface_hub", "numpy", "safetensors", *sys.stdlib_module_names}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module.partition(".")[0] in allowed, node.module
        elif isinstance(node, ast.ImportFrom):  # transformers' finder reads one name a line
            assert len(node.names) == 1 and node.level == 1 and node.module.endswith("_embinv")
