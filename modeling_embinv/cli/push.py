"""`embinv push`."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from ..data.files import short_names
from ..data.flags import Commands
from ..errors_embinv import EmbInvError
from .outcome import epilog, on_interrupt

PACKAGE = Path(__file__).parents[1]

_EXAMPLES = """
embinv push runs/mine/best --repo me/my-inverter --dry-run upload
embinv push runs/mine/best --repo me/my-inverter --private
embinv push checkpoints/embinv-minilm --repo me/my-inverter --space space
"""


def add_push(commands: Commands) -> None:
    """Adds the command `push` and its flags."""
    parser = commands.add_parser("push", help="upload an exported inverter, or the Space, to the Hub in one commit")
    parser.epilog = epilog(_EXAMPLES)
    parser.add_argument("folder", help="exported inverter: checkpoints/…, or `last` or `best` of a training run")
    parser.add_argument("--repo", required=True, help="user/name")
    parser.add_argument("--private", action="store_true", help="for a new repository")
    parser.add_argument("--revision", help="branch to push to (default: main)")
    parser.add_argument("--space", help="also push this folder as a Space of the repository's name")
    parser.add_argument("--dry_run", metavar="DIR", help="write what would be uploaded to this folder, and stop")
    parser.set_defaults(run=_push)


def _push(options: argparse.Namespace) -> None:
    if options.repo.count("/") != 1 or not all(options.repo.split("/")):
        raise EmbInvError(f"--repo must be user/name, not {options.repo!r}.")
    if not Path(options.folder).is_dir():
        raise EmbInvError(f"{options.folder}: no such folder.")
    from ..evaluation.card import assemble, check_files, left_out, push
    from ..loading import load_inverter
    from ..runtime import prepare_process

    with tempfile.TemporaryDirectory() as temporary:
        out = Path(options.dry_run or temporary) / "model"
        if options.space:
            _check_space(options.space, out.with_name("space"))
        with on_interrupt(lambda: f"{options.dry_run} is not whole." if options.dry_run else "Nothing was uploaded."):
            check_files(Path(options.folder))
            with prepare_process():
                load_inverter(options.folder)  # what nobody can load is not published
            files = assemble(options.folder, out, options.repo)
            if options.space:
                space = _space(options.space, out.with_name("space"), options.repo)
        if others := left_out(options.folder):
            print(f"embinv: not of an inverter, so left out: {short_names(others)}", file=sys.stderr)
        if options.dry_run:
            _show([*files, *_files(space)] if options.space else files)
            return
        # a commit arrives whole or not at all; an interruption cannot tell which
        with on_interrupt(lambda: f"See https://huggingface.co/{options.repo} for whether the commit has arrived."):
            print(push(out, options.repo, options.private, options.revision))
            if options.space:
                print(push(space, options.repo, options.private, options.revision, repo_type="space"))


def _check_space(folder: str, out: Path) -> None:
    """Raises EmbInvError where `_space` could not write a Space, before anything else is written."""
    if not (Path(folder) / "app.py").is_file():
        raise EmbInvError(f"{folder} is not a Space; missing: app.py.")
    if out.exists():
        raise EmbInvError(f"{out} exists already; give a new folder.")


def _space(folder: str, out: Path, repo: str) -> Path:
    """The Space's files, which load the pushed model, and this package, whose readers of vectors they import."""
    ignored = shutil.ignore_patterns("__pycache__", ".*", "*.partial")
    shutil.copytree(folder, out, ignore=ignored)
    shutil.copytree(PACKAGE, out / PACKAGE.name, ignore=ignored)
    for name in ("app.py", "README.md"):
        path = out / name
        path.write_text(path.read_text(encoding="utf-8").replace("embinv/embinv-minilm", repo), encoding="utf-8")
    return out


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _show(files: list[Path]) -> None:
    for path in files:
        print(f"{path.stat().st_size:>12,}  {path}")
