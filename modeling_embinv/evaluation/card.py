"""Publish an inverter: one folder with weights, code, card and measured results, uploaded in one commit."""

import ast
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]  # httpx's, whichever it is
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..data.files import one_line, write_json
from ..errors_embinv import EmbInvError, shown
from ..repository import refuse_run
from .held_out import Score
from .report import FILES, Row, markdown

EVALUATION = "evaluation.json"
# our measure → the Hub's name of the metric
METRICS = {
    "token accuracy": "accuracy", "token F1": "f1", "ROUGE-L": "rouge", "exact": "exact_match", "BLEU": "bleu",
    "cosine": "cosine_similarity",
}  # fmt: skip
_NEEDED = ("config.json", "configuration_embinv.py", "generation_config.json", "modeling_embinv.py", "tokenizer.json")
# what a folder publishes, pictures of its card among it; whatever else lies there may be a secret
_PUBLISHED = (
    "*_embinv.py", "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index*.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "*.model", EVALUATION, "README.md", "LICENSE*", "NOTICE*", "*.png", "*.jpg", "*.svg",
)  # fmt: skip
WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)
# what is written of the texts by the split that they are of; whoever gives files of texts says that they are held out
_DATASETS = {"test": "held out", "validation": "validation"}
_TITLES = {"test": "Held-out figures", "validation": "Figures on the validation split"}
# of an earlier upload, these would be loaded in the place of the new ones
_REPLACED = [*WEIGHTS, "model-?????-of-?????.safetensors"]
_CARD = """# {name}

Recovers text from embeddings of `{encoder}` ({dim} dimensions), for texts of at most {length} tokens, the end
token included, by masked diffusion.

```python
import numpy as np
from transformers import pipeline

vectors = np.load("vectors.npy")  # (N, {dim}), made by the encoder above
invert = pipeline("embedding-inversion", model="{repo}", trust_remote_code=True)
invert(vectors)
```

`invert.model.fill` finds the hidden words of redacted texts. Code and documentation: https://github.com/embinv/embinv
"""
# the released checkpoint, as the code of its card names it
_RELEASED = "embinv/embinv-minilm"


def assemble(folder: str | Path, out: str | Path, repo: str) -> list[Path]:
    """Write to `out` exactly what `push` uploads: an inverter's files, and a card that carries the measured results.

    `evaluation.json` of the folder (`embinv evaluate --out`) becomes the card's model-index, which names the split
    that was scored, and goes up without its samples, which are held-out texts. A folder without a README.md gets a
    short one. Files that are not an inverter's, which `left_out` names, stay where they are.

    Raises:
        EmbInvError: when the folder has a damaged card or results, or scores on training texts, `out` is not empty, or
            the Hub takes no repository of that name.
    """
    folder, out = Path(folder), Path(out)
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise EmbInvError(one_line(error)) from error
    if out.exists() and any(out.iterdir()):
        raise EmbInvError(f"{out} is not empty; give a new folder.")
    with _damage_named(folder):
        results = _results(folder, repo)
    if results.get("split") == "train":
        raise EmbInvError(
            f"{folder / EVALUATION} has scores on the training split, which say nothing of other texts: delete it, or "
            "run `embinv evaluate` on another split."
        )
    out.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if _is_published(path):
            shutil.copyfile(path, out / path.name)
    with _damage_named(folder):
        card = _card(folder, out, repo, results)
    card.save(out / "README.md")
    if results:
        write_json(out / EVALUATION, results)
    return sorted(out.iterdir())


@contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, TypeError, StopIteration, yaml.YAMLError) as error:
        raise EmbInvError(f"{folder}: README.md, config.json or {EVALUATION} is damaged: {one_line(error)}") from error


def left_out(folder: str | Path) -> list[str]:
    """The names of the folder's files, but for hidden ones, that `assemble` does not publish."""
    paths = (path for path in Path(folder).iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path.name for path in paths if not _is_published(path))


def _is_published(path: Path) -> bool:
    return path.is_file() and any(fnmatch(path.name, pattern) for pattern in _PUBLISHED)


def check_files(folder: Path) -> None:
    """Raises EmbInvError for a folder that is no exported inverter, or lacks a file that its code imports."""
    refuse_run(folder)
    code = sorted(folder.glob("*_embinv.py"))
    needed = sorted({*_NEEDED, *(name for path in code for name in _imported(path))})
    missing = [name for name in needed if not (folder / name).is_file()]
    # the weights are one file, or several with an index
    missing += [SAFE_WEIGHTS_NAME] * (not any((folder / name).is_file() for name in WEIGHTS))
    if missing:
        raise EmbInvError(f"{folder} is not an exported inverter; missing: {', '.join(missing)}.")


def _imported(path: Path) -> list[str]:
    """The files beside it that a file of the checkpoint's code imports from."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise EmbInvError(f"{path} is damaged: {one_line(error)}") from error
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1)
    return [f"{node.module}.py" for node in imports if node.module]


def _results(folder: Path, repo: str) -> dict[str, Any]:
    """The measured results without the held-out texts and the path of the folder, which are the user's own."""
    if not (folder / EVALUATION).exists():
        return {}
    results = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
    return {name: value for name, value in results.items() if name != "samples"} | {"model": repo}


def _card(folder: Path, out: Path, repo: str, results: dict[str, Any]) -> ModelCard:
    """The folder's own card or a new one, with the measured results."""
    card = ModelCard.load(out / "README.md") if (out / "README.md").exists() else _new_card(folder, repo, results)
    if results:
        data: Any = card.data
        data.model_name = repo.split("/")[-1]
        data.eval_results = eval_results(results["rows"], _split(results))
    # code that loads the folder where it lay when the card was written, whatever it is called now, or the release
    named = rf"""((?:from_pretrained\(|model=)["'])(?:checkpoints/[\w.-]+|{_RELEASED}(?![\w.-]))"""
    card.content = re.sub(named, rf"\g<1>{repo}", card.content)
    return card


def _split(results: dict[str, Any]) -> str:
    """The split that was scored; "test" for files of texts, and where an older version did not note it."""
    split = results.get("split", FILES)
    if split == FILES:
        return "test"
    if split not in _TITLES:
        raise ValueError(f"split must be one of {', '.join(_TITLES)} or {FILES}, got {shown(split)}")
    return str(split)


def eval_results(rows: list[dict[str, Any]], split: str = "test") -> list[EvalResult]:
    """The model-index of an evaluation's rows: the first inversion, over all texts and by part.

    Args:
        split: "test" or "validation", which the texts are of.
    """
    whole = next(row for row in rows if row["section"] == "inversion")
    parts = [row for row in rows if row["section"] == "part"]
    results = []
    for row, dataset in [(whole, "all parts"), *((row, row["name"]) for row in parts)]:
        results += [
            EvalResult(
                task_type="embedding-inversion",
                dataset_type="text",
                dataset_name=f"{_DATASETS[split]}: {dataset}",
                dataset_config=dataset,  # results of one configuration are merged
                dataset_split=split,
                metric_type=METRICS[name],
                metric_name=name,
                metric_value=round(score["mean"], 4),
                metric_args={"texts": row["texts"], "interval_95": [round(score["low"], 4), round(score["high"], 4)]},
            )
            for name, score in row["scores"].items()
        ]
    return results


def _new_card(folder: Path, repo: str, results: dict[str, Any]) -> ModelCard:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    data = ModelCardData(library_name="transformers", pipeline_tag="text-generation", tags=["embedding-inversion"])
    facts = {"encoder": config["encoder_id"], "dim": config["embedding_dim"], "length": config["max_sequence_length"]}
    text = _CARD.format(name=repo.split("/")[-1], repo=repo, **facts)
    if results:
        table = markdown([_row(row) for row in results["rows"]])
        text += f"\n## {_TITLES[_split(results)]}\n\n{table}\n"
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def _row(row: dict[str, Any]) -> Row:
    scores = {key: Score(**value) for key, value in row["scores"].items()}
    return Row(row["section"], row["name"], row["texts"], scores)


def push(
    folder: str | Path, repo: str, private: bool = False, revision: str | None = None, repo_type: str = "model"
) -> str:
    """Upload a folder that `assemble` wrote, or a Space's, in one commit; returns the commit's address.

    Token and address of the Hub are huggingface_hub's own: `hf auth login` or HF_TOKEN, HF_ENDPOINT.

    Raises:
        EmbInvError: no token, no right to write, or no connection.
    """
    api = HfApi()
    sdk = "gradio" if repo_type == "space" else None
    try:
        repo_id = api.create_repo(repo, private=private, exist_ok=True, repo_type=repo_type, space_sdk=sdk).repo_id
        commit = api.upload_folder(
            folder_path=folder,
            repo_id=repo_id,
            repo_type=repo_type,
            revision=revision,
            commit_message=f"Upload {'Space' if repo_type == 'space' else 'inverter'} with embinv",
            delete_patterns=_REPLACED if repo_type == "model" else None,
            ignore_patterns=["__pycache__/*", ".*", "*.partial"],
        )
    except (OSError, ValueError, HTTPError) as error:
        raise EmbInvError(f"{repo} cannot be pushed to: {one_line(error, 400)}") from error
    return commit.commit_url
