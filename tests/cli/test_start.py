"""Which libraries a command imports: what it does not import, nobody waits for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    "torch", "transformers", "numpy", "pyarrow", "datasets", "accelerate", "sentence_transformers", "scipy", "rich",
    "huggingface_hub", "sacrebleu", "yaml",
}  # fmt: skip
SCRIPT = """
import sys
from modeling_embinv.cli.main import main
before = set(sys.modules)
assert main(sys.argv[2:]) == 0
loaded = {name.partition(".")[0] for name in set(sys.modules) - before} & set(sys.argv[1].split(","))
sys.exit(f"imported: {loaded}" if loaded else 0)
"""


def check_not_imported(names: set[str], *arguments: str):
    """Fails if a command imports one of these libraries."""
    command = [sys.executable, "-c", SCRIPT, ",".join(names), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize(
    "command", ["", "demo", "invert", "fill", "audit", "prepare", "evaluate", "calibrate", "push"]
)
def test_help_imports_nothing_heavy(command):
    """Help took four seconds, all of them imports."""
    check_not_imported(HEAVY, *command.split(), "--help")


def test_version_imports_nothing_heavy():
    """Catches a version that is read from the library itself."""
    check_not_imported(HEAVY, "--version")


def test_help_of_training_reads_no_more_than_the_settings():
    """The page is made from a dataclass; torch is for the training."""
    check_not_imported(HEAVY - {"yaml"}, "train", "--help")


def test_one_vector_needs_no_data_sets_and_no_encoder(fresh):
    """`embinv invert` imported `datasets` for a generator of random numbers."""
    needless = {"datasets", "sentence_transformers", "sacrebleu", "rapidfuzz", "pandas", "matplotlib", "sklearn"}
    by_transformers = "import transformers.generation.utils"  # 5.17 imports scikit-learn by itself
    code = f"import sys\nassert not set(sys.modules) & {needless}\n{by_transformers}" + SCRIPT
    done = fresh.run(code, ",".join(needless), "invert", json.dumps([0.05] * 384), "--num-steps", "1", cwd=ROOT)
    assert done.returncode == 0, done.stderr[-500:]


AUTO = """
import builtins, sys
assert not {"transformers", "modeling_embinv"} & set(sys.modules)
def refuse(prompt=""):
    raise SystemExit("asked: " + prompt)
builtins.input = refuse
exec(sys.argv[1])
model = AutoModel.from_pretrained("checkpoints/embinv-minilm")
assert type(model).__module__ == "modeling_embinv.modeling_embinv", type(model)
"""


@pytest.mark.parametrize(
    "imports",
    [
        "from modeling_embinv import EmbInvConfig\nfrom transformers import AutoModel",
        "from transformers import AutoModel\nimport modeling_embinv",
        "import modeling_embinv.loading\nfrom transformers import AutoModel",
    ],
)
def test_auto_classes_know_the_package(fresh, imports):
    """Names that are imported when they are needed: AutoModel, used before, asks whether to run the folder's code."""
    done = fresh.run(AUTO, imports, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


def test_names_of_the_package():
    """A name that is listed and cannot be imported, and a misspelt one that is no AttributeError."""
    import modeling_embinv

    assert set(modeling_embinv.__all__) <= set(dir(modeling_embinv))
    assert all(isinstance(getattr(modeling_embinv, name), type) for name in modeling_embinv.__all__)
    with pytest.raises(AttributeError, match="no attribute 'EmbInvModel'"):
        modeling_embinv.EmbInvModel  # noqa: B018
