"""Write docs/reference/settings.md from the table of settings.

python docs/_build/settings_page.py
"""

from pathlib import Path

from modeling_embinv.presets_embinv import DEFAULT_PRESET, PRESETS, Preset
from modeling_embinv.settings_embinv import FEEDBACK, FillSettings, SamplerSettings, SearchSettings, Setting

PATH = Path(__file__).parents[1] / "reference" / "settings.md"
HEAD = """# Settings of `generate` and `fill`

<!-- made by docs/_build/settings_page.py from modeling_embinv/settings_embinv.py -->

Give them to `generate` as keywords, or change `model.generation_config`. A setting that is one word or one number is
also a flag of `embinv invert`, `demo` and `evaluate`. A checkpoint can have other defaults than these, in its
`generation_config.json`.
"""
PRESET = f"""
A preset is a name for some of the settings below: `--preset` of `embinv invert`, `demo` and `evaluate`, and `preset=` of
`pipeline`. `invert`, `demo` and the pipeline take `{DEFAULT_PRESET}` when nothing else is given; single settings beside a
named preset win over it, and without a name they change the checkpoint's own settings. `feedback` alone names the judge
of the default. Without a surrogate in the checkpoint the default is `quick`.
"""
SEARCH = """
They are the fields of `SearchSettings`. `generate(num_candidates=8)` changes one of them;
`generate(search={"num_candidates": 8})` and `generate(search=SearchSettings(num_candidates=8))` replace them all. A
search begins with more than one candidate or with corrections.
"""
FILL = """
They are keywords of `model.fill` and flags of `embinv fill`.
"""
FOOT = """
`feedback` is no setting that a file holds, but an argument of `generate`: None, `"surrogate"` or the encoder, which is
a function of texts (with `tokenizer`) or of token ids. The flag takes the words of the table.
"""


def page() -> str:
    """The page in Markdown."""
    return "\n".join(
        [
            HEAD,
            "## Presets",
            PRESET,
            "| preset | settings | meaning |",
            "|---|---|---|",
            *(f"| `{preset.name}` | {_values(preset)} | {_sentence(preset.help)} |" for preset in PRESETS.values()),
            "\n## The sampler\n",
            *_table(SamplerSettings.table().values()),
            "\n## The search",
            SEARCH,
            *_table([*SearchSettings.table().values(), FEEDBACK]),
            FOOT,
            "## The gap search",
            FILL,
            *_table(FillSettings.table().values()),
            "",
        ]
    )


def _table(settings) -> list[str]:
    lines = ["| setting | default | values | meaning |", "|---|---|---|---|"]
    return lines + [f"| {' | '.join(_cells(setting))} |" for setting in settings]


def _values(preset: Preset) -> str:
    values = {**preset.settings, "feedback": preset.feedback or "none"}
    return ", ".join(f"`{name}` {value}" for name, value in values.items())


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _cells(setting: Setting) -> list[str]:
    values = setting.allowed + (", or None" if setting.optional else "")
    meaning = f"{_sentence(setting.help)} {setting.detail}".strip()
    return [f"`{setting.name}`", setting.default_text, values, meaning.replace("|", r"\|")]


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(page(), encoding="utf-8")
