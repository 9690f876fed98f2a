"""The versions in pyproject.toml, constraints.txt and constraints-oldest.txt agree."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# what users install; the tools of the tests may be of any version
EXTRAS = [libraries for extra, libraries in PROJECT["optional-dependencies"].items() if extra != "test"]
LINES = [line for part in (PROJECT["dependencies"], *EXTRAS) for line in part]
# an extra may consist of others
REQUIREMENTS = [Requirement(line) for line in LINES if not line.startswith("embinv[")]
# libraries whose next major version may change what this package calls
CAPPED = {"accelerate", "datasets", "huggingface-hub", "numpy", "sentence-transformers", "torch", "transformers"}
# the Pythons that the package page promises, oldest first
PYTHONS = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if ":: Python :: 3." in line]


def pins(name: str) -> dict[str, Version]:
    """The versions that a constraints file pins."""
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")]
    parts = [line.split("==") for line in lines]
    return {canonicalize_name(library): Version(version) for library, version in parts}


def lower_bounds() -> dict[str, Version]:
    """The oldest version of every library that pyproject.toml allows."""
    bounds: dict[str, Version] = {}
    for requirement in REQUIREMENTS:
        for bound in requirement.specifier:
            if bound.operator in (">=", "=="):
                bounds.setdefault(canonicalize_name(requirement.name), Version(bound.version))
    return bounds


def test_oldest_versions_are_the_lower_bounds():
    """A bound that is raised in one file alone leaves `make test-oldest` testing versions that nobody may install."""
    assert pins("constraints-oldest.txt") == lower_bounds()


def test_every_library_has_a_lower_bound():
    """A library without one is promised to work in every version it ever had."""
    missing = {canonicalize_name(requirement.name) for requirement in REQUIREMENTS} - lower_bounds().keys()
    assert not missing


def test_pinned_versions_are_allowed():
    """`pip install -c constraints.txt` fails when a pin lies outside the bounds."""
    newest = pins("constraints.txt")
    for requirement in REQUIREMENTS:
        name = canonicalize_name(requirement.name)
        if name in newest:
            assert newest[name] in requirement.specifier, requirement


def test_every_library_is_pinned():
    """Without a pin, CI would take the version of the day; trackio alone no test installs."""
    assert {canonicalize_name(requirement.name) for requirement in REQUIREMENTS} - pins("constraints.txt").keys() == {
        "trackio"
    }


def test_the_oldest_versions_run_on_the_oldest_python():
    """The only presidio that is allowed needs Python 3.11: on 3.10, `embinv[audit]` could not be installed."""
    bounds = lower_bounds().items()
    # of what is installed, the libraries at their lower bound: in the environment of `make test-oldest`, all of them
    oldest = [one for one in distributions() if (canonicalize_name(one.name), Version(one.version)) in bounds]
    refused = [one.name for one in oldest if PYTHONS[0] not in SpecifierSet(one.metadata.get("Requires-Python", ""))]
    assert oldest and not refused


def test_every_python_is_tested():
    """A Python that the package page names, and no workflow installs the package on, is a promise nobody has seen."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["newest"]["strategy"]["matrix"]["python"] == PYTHONS
    setups = [step["with"]["python-version"] for step in jobs["oldest"]["steps"] if "with" in step]
    assert setups == PYTHONS[:1] and PROJECT["requires-python"] == f">={PYTHONS[0]}"


def test_next_major_versions_are_not_allowed():
    """transformers 6 will change what this package extends; an open bound would install it on the day it comes."""
    newest, capped = pins("constraints.txt"), {}
    for requirement in REQUIREMENTS:
        name = canonicalize_name(requirement.name)
        if name in CAPPED:
            capped[name] = f"{newest[name].major + 1}.0" in requirement.specifier
    assert capped == dict.fromkeys(CAPPED, False)


def imported(path: Path) -> Iterator[str]:
    """What a file imports from elsewhere, by its first name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]


def test_what_is_imported_is_required():
    """httpx came with an older huggingface_hub alone: after `pip install embinv` no command could load a model."""
    required, owners = {canonicalize_name(one.name) for one in REQUIREMENTS}, packages_distributions()
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "modeling_embinv").rglob("*.py")
        for name in set(imported(path)) - sys.stdlib_module_names - {"modeling_embinv"}
        if not required & {canonicalize_name(owner) for owner in owners.get(name, [name])}
    }
    assert not missing
