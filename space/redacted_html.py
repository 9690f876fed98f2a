"""The gap attack as HTML: the filled sentence, how sure each gap is, and the control beside it."""

from html import escape

from redacted import BAR, Attack, Both, Redacted

from modeling_embinv.filling_embinv import VERDICTS, FilledGap

CSS = """
.words label { border: 1px solid rgba(128, 128, 128, .75) !important; }
.words label { position: relative; padding: .3rem .55rem !important; cursor: pointer; }
.words label:has(:checked) { background: #111 !important; border-color: #888 !important; }
.words label:has(:checked) span { color: #fff !important; text-decoration: line-through; }
.words label:has(:focus-visible) { outline: 3px solid #467dd7; outline-offset: 1px; }
.words input { position: absolute; opacity: 0; }
.words label span { margin-left: 0 !important; }
.holds { font-size: 1.1rem; line-height: 1.9; overflow-wrap: anywhere; margin: .2rem 0; }
.attacks { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
.attack { border: 1px solid rgba(128, 128, 128, .45); border-radius: .6rem; padding: .8rem 1rem; min-width: 0; }
.attack h3 { margin: 0 0 .1rem; font-size: 1rem; }
.attack p { margin: .35rem 0; }
.attack .vector-of, .attack .costs { font-size: .875rem; }
.attack .filling { font-size: 1.3rem; line-height: 1.9; overflow-wrap: anywhere; }
.gap { color: inherit; border-radius: .3em; padding: .05em .25em; text-decoration: underline;
  text-decoration-thickness: 2px; text-underline-offset: .2em; box-decoration-break: clone;
  -webkit-box-decoration-break: clone; }
.gap small { font-size: .7em; white-space: nowrap; }
.gap.p1 { background: rgba(45, 110, 220, .08); text-decoration-style: dotted; }
.gap.p2 { background: rgba(45, 110, 220, .17); text-decoration-style: dashed; }
.gap.p3 { background: rgba(45, 110, 220, .30); }
.bar { letter-spacing: -.05em; }
.headline b { font-size: 1.25rem; }
.climb { display: flex; flex-wrap: wrap; align-items: flex-end; gap: .3rem; font-size: .8rem; list-style: none;
  margin: .3rem 0 !important; padding: 0 !important; }
.climb li { width: 2.5rem; text-align: center; margin: 0; }
.climb i { display: block; border-radius: .2rem .2rem 0 0; background: rgb(70, 125, 215); }
.runners { margin: .2rem 0 !important; padding-left: 1.2rem !important; font-size: .925rem; }
.runners li { overflow-wrap: anywhere; }
.words .wrap { gap: .4rem; }
.samples { flex-wrap: nowrap !important; gap: .5rem !important; }
#redacted-message:not(:has(p)) { display: none; }
@media (max-width: 700px) { #redacted-result { min-height: 85vh; } }
.note { padding: .4rem .7rem; margin: 0; }
.refused { border-left: .3rem solid #c81e1e; padding: .4rem .7rem; font-weight: 600; }
"""
# the least probability of each tint; the underline says the same without colour
TINTS = ((0.75, "p3"), (0.25, "p2"), (0.0, "p1"))
FEW = 3  # runners-up that are shown


def percent(probability: float) -> str:
    """A probability in words that never say 0 or 100 of what is not sure."""
    if probability < 0.005:
        return "< 1 %"
    return "> 99 %" if probability > 0.995 else f"{probability:.0%}".replace("%", " %")


def holds_html(redacted: Redacted) -> str:
    """What the attacker holds."""
    return f'<p class="holds">The attacker holds: <b>{_barred(redacted)}</b> and the vector of the whole sentence.</p>'


def refused_html(message: str) -> str:
    """An error, beside the input."""
    return f'<p class="refused" role="alert">{escape(message)}</p>'


STOPPED = '<p class="note" role="status">Stopped.</p>'


def both_html(both: Both) -> str:
    """The attack and its control, side by side."""
    own = _attack_html(both.own, "With the sentence’s own vector", "The redacted text and its vector leaked.")
    told = f"The same text with the vector of “{escape(both.control_sentence)}”"
    return f'<div class="attacks">{own}{_attack_html(both.control, "Control: with another vector", told)}</div>'


def _attack_html(attack: Attack, title: str, note: str) -> str:
    filling = _barred(attack.redacted) if attack.filled is None else _filling(attack)
    parts = [f"<h3>{title}</h3>", f'<p class="vector-of">{note}</p>', f'<p class="filling">{filling}</p>']
    if attack.filled is not None:
        parts += [_verdict(attack), _climb(attack), *([_runners(attack), _costs(attack)] * attack.is_done)]
    else:
        parts.append("<p>No gap is filled yet.</p>")
    return f'<section class="attack" data-done="{str(attack.is_done).lower()}">{"".join(parts)}</section>'


def _barred(redacted: Redacted) -> str:
    bar = f'<span class="bar" role="img" aria-label="hidden">{BAR}</span>'
    return bar.join(map(escape, redacted.pieces))


def _filling(attack: Attack) -> str:
    """The filled sentence, each gap underlined, tinted and with its probability."""
    assert attack.filled is not None
    text, parts, position = attack.filled.text, [], 0
    for gap in attack.filled.gaps:
        parts += [escape(text[position : gap.start]), _gap(gap, attack.filled.verdict != "unrelated")]
        position = gap.end
    return "".join([*parts, escape(text[position:])])


def _gap(gap: FilledGap, belongs: bool) -> str:
    """A gap's words; their probability says nothing where the vector does not belong to the text."""
    if not belongs:
        return f'<mark class="gap p1">{escape(gap.text)}</mark>'
    tint = next(name for least, name in TINTS if gap.probability >= least)
    shown = escape(percent(gap.probability)).replace(" ", "&nbsp;")
    return f'<mark class="gap {tint}">{escape(gap.text)}<small>&nbsp;{shown}</small></mark>'


def _verdict(attack: Attack) -> str:
    assert attack.filled is not None
    if not attack.is_done:
        return f'<p class="headline">Searching: {attack.seconds:.1f} seconds so far.</p>'
    found, total = attack.came_back
    name = attack.filled.verdict
    back = f"<b>{found} of {total}</b> hidden word{'s' * (total != 1)} came back."
    return f'<p class="headline">{back} Verdict: <b class="verdict">{name}</b>: {VERDICTS[name]}.</p>'


def _climb(attack: Attack) -> str:
    """The cosine after each gap, as bars with their figures."""
    bars = "".join(
        f'<li><i style="height: {max(cosine, 0) * 2.4:.2f}rem"></i>{cosine:.3f}</li>' for cosine in attack.cosines
    )
    last = f"{attack.cosines[-1]:.3f}"
    return f"<p>Cosine with the vector: <b>{last}</b>. After each step:</p><ol class='climb'>{bars}</ol>"


def _runners(attack: Attack) -> str:
    assert attack.filled is not None
    belongs, rows = attack.filled.verdict != "unrelated", []
    for gap in attack.filled.gaps:
        chances = [f" {escape(percent(one.probability))}" * belongs for one in gap.alternatives[:FEW]]
        others = [escape(one.text) + chance for one, chance in zip(gap.alternatives, chances, strict=False)]
        rows.append(f"<li><b>{escape(gap.text)}</b>; next: {' · '.join(others) or 'nothing else was tried'}</li>")
    return f'<ul class="runners">{"".join(rows)}</ul>'


def _costs(attack: Attack) -> str:
    calls = [f"{count:,} {name.replace('_', ' ')}" for name, count in attack.calls.items() if count]
    return f'<p class="costs">{", ".join(calls)}; {attack.seconds:.1f} seconds.</p>'
