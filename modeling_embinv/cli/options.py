"""The flags that the commands share, and the settings that they give."""

import argparse
import json
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.flags import LARGEST_BATCH, number
from ..presets_embinv import DEFAULT_PRESET, PRESETS, choose
from ..settings_embinv import FEEDBACK, SETTINGS, SamplerSettings, SearchSettings, Setting
from .checks import check_feedback_flag, check_model, check_preset_flag, check_seed

if TYPE_CHECKING:
    from ..modeling_embinv import EmbInvForMaskedDiffusion

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "embinv-minilm"
# in a clone of the project the checkpoint lies beside the package; an installed package takes it from the Hub
MODEL = str(CHECKPOINT) if CHECKPOINT.is_dir() else "embinv/embinv-minilm"
VECTOR_KINDS = (
    "npy, npz, safetensors, parquet, Arrow, jsonl, csv or json file of vectors, a folder that datasets saved, or a "
    "store: chroma:FOLDER, lancedb:FOLDER, qdrant:URL, faiss:FILE, sqlite-vec:FILE, duckdb:FILE, postgresql://…, "
    "vdf:FOLDER"
)
# the type of a flag that counts texts or tokens
count = number(int, 1, 10**12)


def add_model_folder(
    parser: argparse.ArgumentParser, batch: int = 64, batch_help: str = "vectors in one forward pass"
) -> None:
    """Flags of the model's folder, and of how it computes; `batch` is the default of the batch size."""
    parser.add_argument("--model", "-m", default=MODEL, help="folder or Hub id (user/name@revision) of an inverter")
    add_computation(parser, batch, batch_help)


def add_computation(parser: argparse.ArgumentParser, batch: int, batch_help: str) -> None:
    """Flags of how a model computes; `batch` is the default of the batch size."""
    parser.add_argument("--device", help="cpu, cuda, mps (default: this process's accelerator, else cpu)")
    batch_size = number(int, 1, LARGEST_BATCH)
    parser.add_argument("--batch_size", type=batch_size, default=batch, help=batch_help)
    parser.add_argument(
        "--int8", action="store_true", help="matrix products in int8, faster on a CPU, most with one thread"
    )


def add_model(parser: argparse.ArgumentParser, sweep: bool = False) -> None:
    """Flags of the model and its settings; with `sweep`, each takes several values, to run every combination."""
    add_model_folder(parser)
    several: dict[str, Any] = {"nargs": "+"} if sweep else {}
    preset = parser.add_argument("--preset", type=_preset, metavar="NAME", help=_preset_help(sweep))
    _complete_by(preset, tuple(PRESETS))
    about = "; of several values, every combination is tried" if sweep else ""
    for title, table in (("generation", SamplerSettings.table()), ("search", SearchSettings.table())):
        group = parser.add_argument_group(title, f"these win over --preset{about}. {_whose_defaults(table)}")
        add_table(group, table, **several)
    group.add_argument("--feedback", choices=FEEDBACK.choices, help=_help(FEEDBACK), **several)
    if not sweep:
        parser.add_argument("--seed", type=int, default=0, help="random seed")


def add_vector_columns(parser: argparse.ArgumentParser) -> None:
    """Flags of the output, and of where a file of vectors has what."""
    parser.add_argument(
        "--out", "-o", help="jsonl or parquet file of the texts, or - for JSON lines on standard output; without it "
        "they are printed for reading",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace --out where it exists")
    add_source_columns(parser)


def add_rows(parser: argparse.ArgumentParser) -> None:
    """Flags of which rows of a file or a store are taken, see `check_rows`."""
    parser.add_argument("--limit", type=count, help="use the first N vectors", metavar="N")
    parser.add_argument("--sample", type=count, help="use N vectors drawn at random, by --seed", metavar="N")


def add_source_columns(parser: argparse.ArgumentParser) -> None:
    """Flags of where a file or a store of vectors has what."""
    parser.add_argument(
        "--column", help="column of the vectors, or its path (vector.default); without it the usual names are tried"
    )
    parser.add_argument("--id_column", help="column of their ids; without it what the format calls id")
    parser.add_argument(
        "--collection", "--table", metavar="NAME", help="collection or table of a store; without it the only one"
    )
    parser.add_argument(
        "--trust_source", action="store_true", help="load the pickles of a local Qdrant folder, which can run code"
    )


def add_table(group: argparse._ArgumentGroup, table: dict[str, Setting], **options: Any) -> None:
    """A flag for each setting of a table that one word or number gives; `options` are argparse's, for all of them."""
    for setting in filter(lambda setting: setting.is_flag, table.values()):
        metavar = {int: "N", float: "X"}.get(setting.kind, "NAME")
        flag = group.add_argument(
            f"--{setting.name}", type=setting.kind, metavar=metavar, help=_help(setting), **options
        )
        _complete_by(flag, setting.choices)


def _complete_by(flag: argparse.Action, words: tuple[str, ...]) -> None:
    """Has the shell propose these words for a flag, or no files where there are none."""
    flag.completer = lambda **_: words  # type: ignore[attr-defined]  # argcomplete's own way


def _preset(name: str) -> str:
    if name not in PRESETS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(PRESETS)}, got {name[:40]!r}")
    return name


def _preset_help(sweep: bool) -> str:
    """What each preset is, and what is taken without one."""
    presets = "; ".join(f"{preset.name}: {preset.help}" for preset in PRESETS.values())
    alone = "none" if sweep else f"{DEFAULT_PRESET}, or none where flags of generation or search are given"
    return f"{presets} (default: {alone})"


def _whose_defaults(table: dict[str, Setting]) -> str:
    """What a checkpoint has in place of the defaults that stand beside a table's flags."""
    own = _released_settings()
    values = [f"{name} {own[name]}" for name, setting in table.items() if setting.is_flag and name in own]
    named = f"; the released one has {', '.join(values)}" if values else ""
    return f"The defaults shown here are the library's, and a checkpoint may have others{named}"


@cache
def _released_settings() -> dict[str, Any]:
    """The released checkpoint's own settings, where it lies beside the package; every command's help asks for them."""
    file = CHECKPOINT / "generation_config.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _help(setting: Setting) -> str:
    """A flag's help. The checkpoint may have a default of its own, so that a flag has none."""
    one_of = "" if setting.kind is not str or setting is FEEDBACK else f": {setting.allowed}"
    return f"{setting.help}{one_of} (default: {setting.default_text})".replace("%", "%%")


def sampler_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags, feedback apart.

    Raises:
        EmbInvError: for a value out of bounds.
    """
    return given_settings(options, SETTINGS)


def given_settings(options: argparse.Namespace, table: dict[str, Setting]) -> dict[str, Any]:
    """The settings of a table that were given as flags.

    Raises:
        EmbInvError: for a value out of bounds.
    """
    given = {name: getattr(options, name) for name, setting in table.items() if setting.is_flag}
    given = {name: values for name, values in given.items() if values is not None}
    for name, values in given.items():
        for value in values if isinstance(values, list) else [values]:
            table[name].check(value)
    return given


def checked_settings(options: argparse.Namespace, sweep: bool = False) -> dict[str, Any]:
    """The sampler's settings that were given, after all flags of `add_model` that can be checked without the model.

    Args:
        options: with the flags of `add_model`.
        sweep: as of `add_model`; a sweep leaves out what does not fit together.

    Raises:
        EmbInvError: for the first impossible one.
    """
    check_model(options.model)
    check_preset_flag(options)
    if not sweep:
        check_feedback_flag(options)
        check_seed(options.seed)
    return sampler_settings(options)


def chosen_settings(
    options: argparse.Namespace, model: "EmbInvForMaskedDiffusion", settings: dict[str, Any]
) -> tuple[dict[str, Any], str | None]:
    """The settings with those of the preset, and the name of the feedback; the preset's fallback is said on stderr.

    Args:
        settings: as `checked_settings` gives them.
    """
    named = {} if options.feedback is None else {"feedback": _word(options.feedback)}
    chosen = choose(model, options.preset, {**settings, **named})
    if chosen.note:
        print(f"embinv: {chosen.note}.", file=sys.stderr)
    assert not callable(chosen.feedback)  # a word went in
    return chosen.settings, chosen.feedback


def _word(feedback: str) -> str | None:
    return None if feedback == "none" else feedback


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """The flag of the encoder."""
    parser.add_argument("--encoder", help="id, folder or YAML of the encoder (default: the one that the model names)")


def add_force(group: argparse._ActionsContainer) -> None:
    """The flag of vectors that do not fit."""
    group.add_argument(
        "--force", action="store_true", help="go on with vectors of the right width that look like another encoder's"
    )
