"""The flags of `embinv audit`, and what they ask for."""

import argparse
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ..audit.attackers import FLAGS, NEEDY, SUBJECT_STEPS, TIERS, parse_tiers
from ..data.flags import hyphenated, number
from ..errors_embinv import EmbInvError
from .checks import check_model, check_seed
from .options import (
    MODEL,
    add_computation,
    add_encoder,
    add_force,
    add_source_columns,
    count,
)
from .resources import messages_on_stderr

if TYPE_CHECKING:
    from ..audit.run import Plan
    from ..audit.sample import Sample

# the folder of unfinished work, in that of the report
WORK = ".unfinished"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """All flags but the source and `--out`."""
    add_source_columns(parser)
    parser.add_argument("--text_column", help="column of their texts; without it the usual names are tried")
    parser.add_argument("--strict", action="store_true", help="stop at the first row without a usable vector")
    group = parser.add_argument_group("what is tried")
    group.add_argument(
        "--tiers",
        metavar="NAMES",
        help=f"the attackers, of {', '.join(TIERS)}, with commas (all that can be tried)",
    )
    group.add_argument("--limit", type=count, default=200, help="rows that are attacked, drawn at random")
    group.add_argument(
        "--encoder_limit", type=count, default=50, help="of them, rows for the attacker with the encoder"
    )
    group.add_argument("--no_encoder", action="store_true", help="all attackers but the one who holds the encoder")
    group.add_argument(
        "--candidates",
        help="text file, one guess per line: which are in the store? With --tiers guesses no inverter is needed",
    )
    group.add_argument(
        "--template", help='the redacted text of every row, as "Dear <NAME>, you owe ▇▇▇."; without it texts of the '
        "store that hold such marks are filled",
    )  # fmt: skip
    group.add_argument(
        "--defences", help="all, or some of noise, int8, binary, pq, dimensions, rotation, combinations, with commas"
    )
    group.add_argument(
        "--pairs", help="file or store of known texts with their vectors, as the store holds them, even if it is "
        "defended; columns are called as the store's",
    )  # fmt: skip
    group.add_argument(
        "--train_texts", help="texts on the store's subject, none of its own: txt, jsonl or parquet; an attacker "
        "fine-tunes the checkpoint on them, and those on defences know them (1,200 public ones)",
    )  # fmt: skip
    group.add_argument(
        "--train_steps", type=number(int, 0, 10**9),
        help=f"updates by which attackers fine-tune the checkpoint first ({SUBJECT_STEPS} on --train-texts; 0 on "
        "--pairs and defended vectors)",
    )  # fmt: skip
    group.add_argument("--seed", type=int, default=0, help="of the sample and of every draw")
    group = parser.add_argument_group("the report")
    group.add_argument(
        "--fail_over", action="append", default=[], metavar="FIGURE=SHARE",
        help="end with status 3 where a figure is above a share, as words=0.3: words, f1, exact, guesses (how many of "
        "--candidates are found in the store) or a kind, as names; again, or with commas, for more",
    )  # fmt: skip
    group.add_argument("--reveal", action="store_true", help="show recovered words in the report's files")
    group = parser.add_argument_group("the checkpoint")
    group.add_argument(
        "--model", action="append", help=f"folder or Hub id of an inverter; of several, the one that fits ({MODEL})"
    )
    add_force(group)
    add_encoder(parser)
    add_computation(parser, 16, "vectors in one forward pass, at most 16")


def checked(options: argparse.Namespace) -> tuple[dict[str, float], "Plan"]:
    """The thresholds and the plan, after all flags that can be checked before anything is loaded.

    Raises:
        EmbInvError: for the first impossible one.
    """
    from ..audit.kinds import KINDS
    from ..audit.protections import parse_families
    from ..audit.run import Plan
    from ..audit.severity import parse_limits
    from ..data.word_lists import numbered_words

    tiers = _tiers(options)
    limits = parse_limits(options.fail_over, ("words", "f1", "exact", "guesses", *KINDS))
    if "guesses" in limits and not options.candidates:
        raise EmbInvError("--fail-over guesses needs --candidates.")
    check_seed(options.seed)
    _check_out(options)
    for model in options.model or [MODEL]:
        check_model(model)
    if options.train_steps and not (options.defences or options.pairs or options.train_texts):
        raise EmbInvError("--train-steps is for the attackers of --train-texts, --pairs and --defences; give one.")
    if options.candidates and not Path(options.candidates).is_file():
        raise EmbInvError(f"--candidates {options.candidates}: no such file.")
    return limits, Plan(
        tiers,
        options.tiers is not None,
        options.encoder_limit,
        numbered_words(options.candidates) if options.candidates else {},
        options.template,
        parse_families(options.defences) if options.defences else (),
        train_texts=_train_texts(options),
        subject_steps=SUBJECT_STEPS if options.train_steps is None else options.train_steps,
    )


def _check_out(options: argparse.Namespace) -> None:
    """Raises an EmbInvError where the report would replace what the audit reads, or stand in a store."""
    from ..audit.files import FILES
    from ..data.files import is_same_file
    from ..stores.locations import locate

    out = Path(options.out)
    if out.exists() and not out.is_dir():
        raise EmbInvError(f"--out {out} is a file; give the folder of the report.")
    stores = (options.source, options.pairs)
    for given in filter(None, (*stores, options.candidates, options.train_texts)):
        location = locate(given)
        path = Path(location.path)
        if not path.exists():
            continue
        is_replaced = any(is_same_file(path, out / name) for name in FILES)
        if is_replaced or path.resolve().is_relative_to((out / WORK).resolve()):
            raise EmbInvError(f"--out {out}: the report would replace {location.shown}; give another folder.")
        if given in stores and path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise EmbInvError(f"--out {out} lies in {location.shown}, which is read; give another folder.")


def _tiers(options: argparse.Namespace) -> tuple[str, ...]:
    """The attackers that are tried.

    Raises:
        EmbInvError: one that is named and cannot be tried, or a flag of one that is not named.
    """
    if options.tiers is None:
        return tuple(name for name in TIERS if not (options.no_encoder and name == "encoder"))
    tiers = parse_tiers(options.tiers)
    if options.no_encoder and "encoder" in tiers:
        raise EmbInvError("--no-encoder contradicts --tiers, which names encoder.")
    for name, flag in FLAGS.items():
        given, shown = getattr(options, flag), hyphenated(f"--{flag}")
        if name in NEEDY and name in tiers and not given:
            raise EmbInvError(f"--tiers {name} needs {shown}.")
        is_for_more = name == "subject" and options.defences  # whose attackers know the same texts
        if name not in tiers and given and not is_for_more:
            raise EmbInvError(f"{shown} is for the attacker {name}: name it in --tiers, or leave out --tiers.")
    if "subject" in tiers and options.train_steps == 0:
        raise EmbInvError("--tiers subject contradicts --train-steps 0: this attacker fine-tunes the checkpoint.")
    return tiers


def _train_texts(options: argparse.Namespace) -> list[str]:
    """The texts of `--train-texts`; none without it."""
    if not options.train_texts:
        return []
    from ..audit.known_pairs import FEWEST, MOST
    from ..audit.words import text_key
    from ..data.sources import read_texts

    documents = read_texts(options.train_texts, options.text_column or "text")
    texts = list(islice({text_key(document.text): document.text for document in documents}.values(), MOST))
    if len(texts) < FEWEST:
        raise EmbInvError(f"--train-texts {options.train_texts}: {len(texts)} texts; at least {FEWEST} are needed.")
    return texts


def known_rows(options: argparse.Namespace) -> "Sample | None":
    """The rows of `--pairs`; None without it."""
    if not options.pairs:
        return None
    from ..audit.known_pairs import MOST
    from ..audit.sample import draw
    from ..stores.vectors import open_vectors

    with messages_on_stderr():
        source = open_vectors(
            options.pairs, options.column, None, options.text_column or True, strict=options.strict,
            trust=options.trust_source,
        )  # fmt: skip
        return draw(source, MOST, options.seed)
