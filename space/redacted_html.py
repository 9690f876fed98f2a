"""The gap attack as HTML: the filled sentence, how sure each gap is, and the control beside it."""

from html import escape

from parts import climb_html, percent, tint_of
from redacted import BAR, Attack, Both, Redacted

from modeling_embinv.filled_embinv import VERDICTS, FilledGap

FEW = 3  # runners-up that are shown
# verdicts by which the vector says nothing of the words in the gaps
UNSURE = ("unrelated", "literal", "unread")


def holds_html(redacted: Redacted) -> str:
    """What the attacker holds."""
    return f'<p class="holds">The attacker holds: <b>{_barred(redacted)}</b> and the vector of the whole sentence.</p>'


def both_html(both: Both) -> str:
    """The attack and its control, side by side."""
    own = _attack_html(both.own, "With the sentence’s own vector", "The redacted text and its vector leaked.")
    told = f"The same text with the vector of “{escape(both.control_sentence)}”"
    return f'<div class="attacks">{own}{_attack_html(both.control, "Control: with another vector", told)}</div>'


def said(both: Both) -> str:
    """The results of both, for those who hear the page."""
    return f"{_came_back(both.own)} With another vector: {_came_back(both.control)}"


def _attack_html(attack: Attack, title: str, note: str) -> str:
    filling = _barred(attack.redacted) if attack.filled is None else _filling(attack)
    parts = [f"<h2>{title}</h2>", f'<p class="vector-of">{note}</p>', f'<p class="filling">{filling}</p>']
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
        parts += [escape(text[position : gap.start]), _gap(gap, attack.filled.verdict not in UNSURE)]
        position = gap.end
    return "".join([*parts, escape(text[position:])])


def _gap(gap: FilledGap, is_told: bool) -> str:
    """A gap's words; their probability says nothing where the vector says nothing of them."""
    if not is_told:
        return f'<mark class="gap p1">{escape(gap.text)}</mark>'
    tint = tint_of(gap.probability)
    shown = escape(percent(gap.probability)).replace(" ", "&nbsp;")
    return f'<mark class="gap {tint}">{escape(gap.text)}<small>&nbsp;{shown}</small></mark>'


def _verdict(attack: Attack) -> str:
    assert attack.filled is not None
    if not attack.is_done:
        return f'<p class="headline searching">Searching: {attack.seconds:.1f} seconds so far.</p>'
    name = attack.filled.verdict
    back, verdict = _came_back(attack, "<b>{}</b>"), f'<b class="verdict">{name}</b>: {VERDICTS[name]}'
    return f'<p class="headline">{back} Verdict: {verdict}.</p>'


def _came_back(attack: Attack, shown: str = "{}") -> str:
    """How many words came back; `shown` is where the counts stand."""
    found, total = attack.came_back
    return f"{shown.format(f'{found} of {total}')} hidden word{'s' * (total != 1)} came back."


def _climb(attack: Attack) -> str:
    """The cosine after each gap."""
    last = f"{attack.cosines[-1]:.3f}"
    return f"<p>Cosine with the vector: <b>{last}</b>. After each step:</p>{climb_html(attack.cosines)}"


def _runners(attack: Attack) -> str:
    assert attack.filled is not None
    is_told, rows = attack.filled.verdict not in UNSURE, []
    for gap in attack.filled.gaps:
        chances = [f" {escape(percent(one.probability))}" * is_told for one in gap.alternatives[:FEW]]
        others = [escape(one.text) + chance for one, chance in zip(gap.alternatives, chances, strict=False)]
        rows.append(
            f"<li><b>{escape(gap.text)}</b>; runners-up: {' · '.join(others) or 'nothing else was tried'}</li>"
        )
    return f'<ul class="runners">{"".join(rows)}</ul>'


def _costs(attack: Attack) -> str:
    calls = [f"{count:,} {name.replace('_', ' ')}" for name, count in attack.calls.items() if count]
    return f'<p class="costs">{", ".join(calls)}; {attack.seconds:.1f} seconds.</p>'
