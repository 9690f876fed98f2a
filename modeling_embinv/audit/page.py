"""An audit as one HTML file: no script, nothing from elsewhere, light and dark, for the screen and for paper."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from ..progress.rates import counted
from .defences import ATTACKERS, DefenceResult
from .examples import examples
from .figures import Figure
from .hits import BAR, LOST, row_name, shortened
from .html import badge, bar, cell, floor_columns, interval, isolated, table, visible
from .page_words import collections, named_words
from .plot import trade_off
from .report import STANDARDS, Report
from .severity import GUESS_LEVELS, KIND_LEVELS, LEVELS
from .summary import CAREFUL, INVENTED, NAMES, drawn, findings, learned, matched, shown, size

# guesses in the table, those that raise an alarm first
LISTED = 30
_FORMS = {"e-mail": "e-mail addresses", "names": "names of people", "digits": "numbers"}
_PAGE = Path(__file__).with_name("page.html")


def page(report: Report) -> str:
    """The file."""
    parts = (
        _head, _findings, _figures, collections, _kinds, named_words, _examples, _guesses, _context, _defences, _method
    )  # fmt: skip
    body = "\n".join(piece for part in parts for piece in part(report))
    template = Template(_PAGE.read_text(encoding="utf-8"))
    return visible(template.substitute(title=escape(report.source["name"]), body=body))


def _head(report: Report) -> Iterator[str]:
    fits = report.origin.looks_like is None
    yield "<h1>What this vector store leaks</h1>"
    yield f"<p class=soft>{isolated(report.place)}, read {escape(report.date)}</p>"
    estimate = " (an estimate: the store holds no texts)" if report.is_estimate and report.severity else ""
    yield f"<p>Severity: {badge(report.severity)}{estimate}</p>"
    yield f"<p>{size(report)}, {drawn(report)}. "
    yield f"{'' if fits else '<strong>'}{escape(_sentence(str(report.origin)))}."
    yield f"{'' if fits else '</strong>'}</p><p>{CAREFUL}</p>"
    for warning in report.warnings:
        yield f"<p><strong>Note:</strong> {escape(warning)}.</p>"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _findings(report: Report) -> Iterator[str]:
    found = list(findings(report))
    if not found:
        yield "<h2>Findings</h2><p>None could be measured: see the notes.</p>"
        return
    yield "<h2>Findings</h2>"
    rows = [(badge(one.severity), escape(one.sentence)) for one in found]
    yield table(("Severity", "What was measured"), rows)
    yield f"<p><strong>What to do.</strong> {escape(found[0].advice)}</p>"


def _figures(report: Report) -> Iterator[str]:
    if report.measured:
        yield "<p class=soft>Content words are all but function words such as “the” and “of”. F1 counts all words: "
        yield "the right ones against missed and invented ones. The cosine is 1 where a recovered text has exactly "
        yield "the stored vector. A floor is what comes back without inverting the row's vector: from another row's "
        yield "vector, and by the nearest public sentence.</p>"
    for result in report.measured:
        title = f"Attacker: {result.tier.name}"
        rows = counted(len(result.sample.rows), "invented sentence" if report.is_estimate else "row")
        yield f"<h2>{escape(title)}</h2><p>Holds {escape(result.tier.holds)}; {rows}."
        same = report.same_rows(result)
        if same is not None:
            yield f" Of these rows, the attacker {escape(report.measured[0].tier.name)} recovers "
            yield f"{shown(same)} of the content words."
        if result.nearest is not None:
            yield " Without any inversion, the nearest of the texts that this attacker knows holds "
            yield f"{shown(result.nearest)} of the content words."
        yield "</p>"
        if result.tier.name == "pairs" and report.alignment is not None:
            yield f"<p>{escape(learned(report.alignment))}.</p>"
        if report.is_estimate:
            yield "<p>The store holds no texts. These figures are an <strong>estimate</strong>: sentences with "
            yield "invented secrets were embedded by the encoder and inverted by the same attack. What comes back of "
            yield "the store's own texts may differ by more than the intervals.</p>"
        floors = floor_columns(list(result.figures.values()))
        named = zip(result.figures.items(), *floors.values(), strict=True)
        yield table(
            ("", "Figure", "95 % interval", *floors, ""),
            [_row(NAMES[name], one, cells) for (name, one), *cells in named],
        )
    for result in report.tiers if report.is_estimate else ():
        if result.expected is not None:
            yield f"<p>Of the store's own vectors, the attacker {escape(result.tier.name)} "
            yield f"expects {shown(result.expected)} of the recovered tokens to be right (calibrated confidence, an "
            yield "estimate).</p>"


def _row(name: str, figure: Figure, floors: Sequence[str]) -> tuple[str, ...]:
    if name == NAMES["cosine"]:  # no share
        return escape(name), f"{figure.value:.2f}", f"{figure.low:.2f}–{figure.high:.2f}", *floors, bar(figure)
    return escape(name), f"{100 * figure.value:.0f} %", interval(figure), *floors, bar(figure)


def _kinds(report: Report) -> Iterator[str]:
    for result in report.measured:
        if not result.kinds:
            continue
        yield f"<h2>By kind: {escape(result.tier.name)}</h2><p>Whole: all words side by side, in their order.</p>"
        floors = floor_columns([one.whole for one in result.kinds.values()])
        rows = [
            (
                escape(kind),
                f"{one.whole.hits:.0f} of {one.whole.count}",
                cell(one.whole),
                *cells,
                cell(one.words, with_floor=True),
                bar(one.whole),
            )
            for (kind, one), *cells in zip(result.kinds.items(), *floors.values(), strict=True)
        ]
        yield table(("Kind", "Came back whole", "Share", *floors, "Of their words", ""), rows)


def _examples(report: Report) -> Iterator[str]:
    shown_rows = list(examples(report))
    if shown_rows:
        yield "<h2>Examples</h2>"
        marks = (
            "The originals; underlined words came back. Below each stands what was recovered."
            if report.reveal
            else f"Each bar is a word of the original: a full one {BAR} came back, a light one {LOST} did not."
        )
        kind = INVENTED if report.is_estimate else "rows"
        yield f"<p class=soft>The {kind} of which most words came back. {marks}</p>"
        yield "".join(f'<div class="text">{row}</div>' for row in shown_rows)


def _guesses(report: Report) -> Iterator[str]:
    if report.guesses is None:
        return
    yield "<h2>Guesses</h2><p>A guess raises an alarm where its vector is nearer to one of all "
    yield f"{counted(report.guesses.rows, 'vector')} than 99 % of decoys: pieces of public sentences with as many "
    yield "words, and invented addresses, names and numbers. Other decoys, and pieces of the store's own texts, show "
    yield "how often there are false and true alarms. A guess of which there are no decoys, such as a company, has no "
    yield "fair comparison: only its very text raises an alarm.</p>"
    rates = [
        (f"{one.fewest}–{one.most} words" if one.form == "text" else escape(_FORMS[one.form]), f"{one.guesses:,}",
         f"{one.threshold:.3f}", f"{100 * one.false_alarms:.1f} % of {one.decoys}",
         *("not measured" if share is None else f"{100 * share:.0f} % of {one.members}"
           for share in (one.on_topic, one.true_alarms)))
        for one in report.guesses.rates
    ]  # fmt: skip
    head = ("Guesses", "How many", "Threshold (cosine)", "False alarms", "On the store's subject", "True alarms")
    if rates:
        yield table(head, rates)
    ranking = sorted(report.guesses.as_dict(report.reveal)["ranking"], key=lambda one: not one["is_alarm"])
    listed = ranking[:LISTED]
    rows = [
        (str(one["number"]), *((isolated(one["text"]),) if report.reveal else ()), f"{one['cosine']:.3f}",
         isolated(row_name(one["collection"], one["row"], one["id"])), "yes" if one["is_alarm"] else "",
         "no fair comparison" if one["chance"] is None else f"{100 * one['chance']:.1f} %")
        for one in listed
    ]  # fmt: skip
    text = ("Guess",) if report.reveal else ()
    yield table(("Line of the list", *text, "Cosine", "Nearest row", "Alarm", "Decoys as near"), rows)
    if len(ranking) > LISTED:
        yield f"<p class=soft>and {len(ranking) - LISTED:,} more: report.json</p>"


def _context(report: Report) -> Iterator[str]:
    filled = report.filled
    if filled is None or filled.expected is None:
        return
    source = "a template" if filled.template else "the store's own texts, which hold redaction marks"
    yield f"<h2>Redacted text</h2><p>The gaps of {counted(filled.rows, 'text')} ({source}) were filled from the "
    yield f"vectors: of {counted(filled.gaps, 'gap')}, {shown(filled.expected)} are expected to be right (an "
    yield "estimate).</p>"
    yield table(
        ("Verdict on the text", "Texts"), [(escape(name), f"{count:,}") for name, count in filled.verdicts.items()]
    )
    for text in filled.texts if report.reveal else ():
        yield f'<div class="text"><bdi>{escape("".join(shortened(text)))}</bdi></div>'


def _defences(report: Report) -> Iterator[str]:
    if report.defences is None:
        return
    found = report.defences
    rows = f"{INVENTED} (an estimate)" if found.planted else "rows"
    yield f"<h2>What would help?</h2><p>{found.rows:,} {rows} are attacked under each defence. "
    yield f"Search: {found.stored:,} vectors, recall and nDCG of the ten nearest; and a labelled set of 300 sentences "
    yield "and their passages. The released attacker does not know the defence. "
    if found.known:
        yield f"The adapted one knows {found.known:,} other texts with their defended vectors, and learns a linear "
        yield "map from them; the re-trained one fine-tunes the checkpoint on them besides. "
    yield "The table is ordered by search quality.</p>"
    yield trade_off(found.results)
    yield table(
        ("Defence", "Search: recall, nDCG", "Labelled search", "Cosine, after the map",
         *(f"Words: {who}" for who in ATTACKERS), "Noise of this recall"),
        [_defence(one) for one in found.results],
    )  # fmt: skip
    yield "<ul>" + "".join(f"<li>{escape(one.name)}: {escape(one.advice)}</li>" for one in found.results[1:])
    yield "".join(f"<li>{escape(sentence)}</li>" for sentence in matched(found.results)) + "</ul>"
    if found.pairs:
        yield "<p>A secret rotation falls to an attacker who knows some pairs of text and vector (Procrustes):</p>"
        yield table(
            ("Known pairs", "Cosine of other vectors, turned back"), [(f"{n:,}", f"{c:.2f}") for n, c in found.pairs]
        )
    for name, why in found.left_out.items():
        yield f"<p class=soft>{escape(name)}: {escape(why)}.</p>"


def _defence(one: DefenceResult) -> tuple[str, ...]:
    def pair(values: Sequence[float | None] | None) -> str:
        return ", ".join(f"{value:.2f}" for value in values or () if value is not None)

    return (
        escape(one.name), pair(one.utility), pair(one.labelled), pair((one.cosine, one.aligned)),
        *(cell(one.attacks.get(who)) for who in ATTACKERS),
        "" if one.noise_words is None else f"{100 * one.noise_words:.0f} %",
    )  # fmt: skip


def _method(report: Report) -> Iterator[str]:
    content = report.as_dict()
    source = {**content["source"], "skipped": content["source"]["skipped"]["count"], "collections": None}
    yield "<h2>How this was measured</h2><ul>"
    if report.checkpoint is not None:
        yield f"<li>Checkpoint: {_listed(report.checkpoint)}</li>"
    if report.encoder is not None:
        yield f"<li>Texts were embedded by {escape(report.encoder)}</li>"
    yield f"<li>Source: {_listed(source)}</li>"
    for result in (*report.tiers, *report.planted):
        settings = {"rows": len(result.sample.rows), "feedback": result.tier.feedback, **result.tier.settings}
        yield f"<li>{escape(result.tier.name)}: {_listed(settings)}</li>"
    words, kinds = (
        ", ".join(f"{name} from {100 * low:.0f} %" for low, name in levels) for levels in (LEVELS, KIND_LEVELS)
    )
    yield f"<li>Severity by content words: {words}; by a sensitive kind that came back whole: {kinds}; none where the "
    yield "interval reaches a floor. By guesses: "
    yield "; ".join(f"{level}: {escape(what)}" for level, what in GUESS_LEVELS.items()) + ". The worst counts.</li>"
    for name, limit in content["thresholds"]["fail_over"].items():
        state = {True: "exceeded", False: "not exceeded", None: "not measured"}[limit["over"]]
        yield f"<li>Threshold {escape(name)} {limit['limit']:g}: {state}</li>"
    for kind, library in report.libraries.items():
        yield f"<li>{escape(kind)}: {escape(library)}</li>"
    yield f"<li>Versions: {escape(', '.join(f'{name} {one}' for name, one in content['versions'].items()))}</li></ul>"
    yield "<p>Intervals are 95 % intervals over rows. Related: "
    yield "; ".join(f"{escape(name)} ({escape(title)})" for name, title in STANDARDS) + ".</p>"


def _listed(values: Mapping[str, Any]) -> str:
    """Names and values of settings, those without a value left out."""
    flat = {
        name: ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else value
        for name, value in values.items()
    }
    return "; ".join(
        f"{escape(name.replace('_', ' '))} <code>{isolated(str(value))}</code>"
        for name, value in flat.items()
        if value is not None
    )
