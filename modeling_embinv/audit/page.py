"""An audit as one HTML file: no script, nothing from elsewhere, light and dark, for the screen and for paper."""

from collections.abc import Iterator, Mapping
from html import escape
from string import Template
from typing import Any

from .defences import ATTACKERS, DefenceResult
from .examples import examples
from .figures import Figure
from .html import badge, bar, floors, interval, table
from .page_words import collections, named_words
from .plot import trade_off
from .report import STANDARDS, Report
from .severity import KIND_LEVELS, LEVELS
from .summary import CAREFUL, NAMES, findings, learned, matched, shown

_PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>embinv audit: $title</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #fff; --line: #d0d7de; --bar: #0f766e;
  --floor: #8c959f; --wash: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b3; --paper: #0d1117; --line: #30363d;
  --bar: #2dd4bf; --floor: #768390; --wash: #161b22; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p, li { max-width: 46rem; } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; margin: .75rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; } .wide { overflow-x: auto; }
.badge { display: inline-block; padding: .15rem .7rem; border-radius: 1rem; font-weight: 700; color: #fff; }
.critical { background: #a40e26; } .high { background: #bc4c00; } .medium { background: #7d4e00; }
.low { background: #0a5ec0; } .none { background: #57606a; }
.track { position: relative; height: .7rem; min-width: 9rem; background: var(--wash); border: 1px solid var(--line); }
.track i { position: absolute; inset: 0 auto 0 0; background: var(--bar); }
.track b { position: absolute; top: -3px; bottom: -3px; width: 2px; background: var(--floor); }
.text { padding: .6rem .8rem; margin: .6rem 0; background: var(--wash); border-left: 3px solid var(--line); }
mark { background: none; color: var(--bar); font-weight: 700; text-decoration: underline; }
.lost { color: var(--soft); } code { font-size: .9em; overflow-wrap: anywhere; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
@media print { :root { --ink: #000; --soft: #444; --paper: #fff; --line: #bbb; --bar: #0f766e; --floor: #666;
  --wash: #fff; } body { max-width: none; padding: 0; font-size: 10pt; } h2 { break-after: avoid; }
  table, .text, svg { break-inside: avoid; } .badge, .track i { print-color-adjust: exact; } }
</style>
</head>
<body>
$body
</body>
</html>
"""
)


def page(report: Report) -> str:
    """The file."""
    parts = (
        _head, _findings, _figures, collections, _kinds, named_words, _examples, _guesses, _context, _defences, _method
    )  # fmt: skip
    body = "\n".join(piece for part in parts for piece in part(report))
    return _PAGE.substitute(title=escape(report.source["name"]), body=body)


def _head(report: Report) -> Iterator[str]:
    sample, fits = report.sample, report.origin.looks_like is None
    yield f"<h1>What this vector store leaks</h1><p class=soft>{escape(report.source['name'])}</p>"
    yield f"<p>Severity: {badge(report.severity)}</p>"
    yield f"<p>{sample.total:,} vectors of {sample.vectors.shape[1]} numbers, of which {len(sample.rows):,} were "
    yield f"drawn at random (seed {report.seed}). "
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
    for result in report.measured:
        title = f"Attacker: {result.tier.name}"
        yield f"<h2>{escape(title)}</h2><p>Holds {escape(result.tier.holds)}; {len(result.sample.rows):,} rows."
        same = report.same_rows(result)
        if same is not None:
            yield f" Of these rows, the attacker {escape(report.measured[0].tier.name)} recovers "
            yield f"{shown(same)} of the content words."
        yield "</p>"
        if result.tier.name == "pairs" and report.alignment is not None:
            yield f"<p>{escape(learned(report.alignment))}.</p>"
        if report.is_estimate:
            yield "<p>The store holds no texts. These figures are an <strong>estimate</strong>: sentences with "
            yield "invented secrets were embedded by the encoder and inverted by the same attack.</p>"
        yield table(
            ("", "Share", "95 % interval", "Floors", ""),
            [_row(NAMES[name], one) for name, one in result.figures.items()],
        )
    for result in report.tiers if report.is_estimate else ():
        if result.expected is not None:
            yield f"<p>Of the store's own vectors, the attacker {escape(result.tier.name)} "
            yield f"expects {shown(result.expected)} of the recovered tokens to be right (calibrated confidence, an "
            yield "estimate).</p>"


def _row(name: str, figure: Figure) -> tuple[str, ...]:
    return escape(name), f"{100 * figure.value:.0f} %", interval(figure), floors(figure), bar(figure)


def _kinds(report: Report) -> Iterator[str]:
    for result in report.measured:
        if not result.kinds:
            continue
        yield f"<h2>By kind: {escape(result.tier.name)}</h2><p>Whole: all words side by side, in their order.</p>"
        rows = [
            (
                escape(kind),
                f"{one.whole.hits:.0f} of {one.whole.count}",
                shown(one.whole),
                shown(one.words),
                bar(one.whole),
            )
            for kind, one in result.kinds.items()
        ]
        yield table(("Kind", "Came back whole", "Share", "Of their words", ""), rows)


def _examples(report: Report) -> Iterator[str]:
    shown_rows = list(examples(report))
    if shown_rows:
        yield "<h2>Examples</h2>"
        hidden = "Each bar is a word of the original; underlined words came back." if not report.reveal else (
            "The originals; underlined words came back. Below each stands what was recovered."
        )  # fmt: skip
        yield f"<p class=soft>{hidden}</p>" + "".join(f'<div class="text">{row}</div>' for row in shown_rows)


def _guesses(report: Report) -> Iterator[str]:
    if report.guesses is None:
        return
    yield "<h2>Guesses</h2><p>A guess raises an alarm where its vector is nearer to one of the "
    yield f"{report.guesses.rows:,} rows than 99 % of decoys of as many words.</p>"
    rates = [
        (f"{one.fewest}–{one.most}", f"{one.threshold:.3f}", f"{100 * one.false_alarms:.1f} % of {one.decoys}",
         *("not measured" if share is None else f"{100 * share:.0f} % of {one.members}"
           for share in (one.on_topic, one.true_alarms)))
        for one in report.guesses.rates
    ]  # fmt: skip
    yield table(("Words", "Threshold (cosine)", "False alarms", "On the store's subject", "True alarms"), rates)
    listed = report.guesses.as_dict(report.reveal)["ranking"][:30]
    rows = [
        (str(one["number"]), escape(one["text"]), f"{one['cosine']:.3f}",
         escape(str(one["row"] if one["id"] is None else one["id"])), "yes" if one["is_alarm"] else "",
         f"{100 * one['chance']:.1f} %")
        for one in listed
    ]  # fmt: skip
    yield table(("", "Guess", "Cosine", "Nearest row", "Alarm", "Decoys as near"), rows)


def _context(report: Report) -> Iterator[str]:
    filled = report.filled
    if filled is None or filled.expected is None:
        return
    source = "a template" if filled.template else "the store's own texts, which hold redaction marks"
    yield f"<h2>Redacted text</h2><p>The gaps of {filled.rows:,} texts ({source}) were filled from the vectors: of "
    yield f"{filled.gaps:,} gaps, {shown(filled.expected)} are expected to be right (calibrated, an estimate).</p>"
    yield table(
        ("Verdict on the text", "Texts"), [(escape(name), f"{count:,}") for name, count in filled.verdicts.items()]
    )


def _defences(report: Report) -> Iterator[str]:
    if report.defences is None:
        return
    found = report.defences
    yield f"<h2>What would help?</h2><p>{found.rows:,} rows are attacked under each defence. Search: {found.stored:,} "
    yield "vectors, recall and nDCG of the ten nearest; and a labelled set of 300 sentences and their passages. The "
    yield "released attacker does not know the defence. "
    if found.known:
        yield f"The adapted one knows {found.known:,} other texts with their defended vectors, and learns a linear "
        yield "map from them; the re-trained one fine-tunes the checkpoint on them besides. "
    yield "The table is ordered by search quality.</p>"
    yield trade_off(found.results)
    yield table(
        ("Defence", "Recall@10", "nDCG@10", "Labelled recall@10", "Labelled nDCG@10", "Cosine", "after the map",
         *(f"Words: {who}" for who in ATTACKERS), "Noise of this recall", "Advice"),
        [_defence(one) for one in found.results],
    )  # fmt: skip
    yield "".join(f"<p>{escape(sentence)}</p>" for sentence in matched(found.results))
    if found.pairs:
        yield "<p>A secret rotation falls to an attacker who knows some pairs of text and vector (Procrustes):</p>"
        yield table(
            ("Known pairs", "Cosine of other vectors, turned back"), [(f"{n:,}", f"{c:.2f}") for n, c in found.pairs]
        )
    for name, why in found.left_out.items():
        yield f"<p class=soft>{escape(name)}: {escape(why)}.</p>"


def _defence(one: DefenceResult) -> tuple[str, ...]:
    labelled = ("", "") if one.labelled is None else (f"{value:.2f}" for value in one.labelled)
    words = (shown(one.attacks[who]) if who in one.attacks else "" for who in ATTACKERS)
    return (
        escape(one.name), *(f"{value:.2f}" for value in one.utility), *labelled, f"{one.cosine:.2f}",
        "" if one.aligned is None else f"{one.aligned:.2f}", *words,
        "" if one.noise_words is None else f"{100 * one.noise_words:.0f} %", escape(one.advice),
    )  # fmt: skip


def _method(report: Report) -> Iterator[str]:
    content = report.as_dict()
    source = {**content["source"], "skipped": content["source"]["skipped"]["count"]}
    yield "<h2>How this was measured</h2><ul>"
    yield f"<li>Checkpoint: {_listed(content['checkpoint'])}</li><li>Source: {_listed(source)}</li>"
    for result in (*report.tiers, *report.planted):
        settings = {"rows": len(result.sample.rows), "feedback": result.tier.feedback, **result.tier.settings}
        yield f"<li>{escape(result.tier.name)}: {_listed(settings)}</li>"
    words, kinds = (
        ", ".join(f"{name} from {100 * low:.0f} %" for low, name in levels) for levels in (LEVELS, KIND_LEVELS)
    )
    yield f"<li>Severity by content words: {words}; by a sensitive kind that came back whole: {kinds}; none where the "
    yield "interval reaches a floor. The worst counts.</li>"
    for name, limit in content["thresholds"]["fail_over"].items():
        state = {True: "exceeded", False: "not exceeded", None: "not measured"}[limit["over"]]
        yield f"<li>Threshold {escape(name)} {limit['limit']:g}: {state}</li>"
    for kind, library in report.libraries.items():
        yield f"<li>{escape(kind)}: {escape(library)}</li>"
    yield f"<li>Versions: {escape(', '.join(f'{name} {one}' for name, one in content['versions'].items()))}</li></ul>"
    yield "<p>Intervals are 95 % bootstrap intervals over rows. Related: "
    yield "; ".join(f"{escape(name)} ({escape(title)})" for name, title in STANDARDS) + ".</p>"


def _listed(values: Mapping[str, Any]) -> str:
    """Names and values of settings, those without a value left out."""
    flat = {
        name: ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else value
        for name, value in values.items()
    }
    return "; ".join(
        f"{escape(name.replace('_', ' '))} <code>{escape(str(value))}</code>"
        for name, value in flat.items()
        if value is not None
    )
