"""Settings from YAML and flags: values of another type, out of bounds or without end get one line."""

import math
import random
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.settings import read_yaml
from modeling_embinv.training.arguments import parse_training_config
from modeling_embinv.training.config import TrainingConfig

ROOT = Path(__file__).parents[2]
RUN = dict(output_dir="x", encoder="y", pairs="z", backbone="encoder")


def refused(call, *arguments) -> str:
    """The message of a ValueError; any other error, or none, fails the test."""
    with pytest.raises(ValueError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 2000
    return str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("canvas_lengths: 2", "canvas_lengths must be a list, each item a whole number or null, got 2"),
        ("canvas_lengths: [8, x]", "canvas_lengths must be a list, each item a whole number"),
        ("canvas_lengths: [1, 32]", "canvas_lengths must be a list of numbers, each at least 2"),
        ("backbone_config: 3", "backbone_config must be text or null, got 3"),
        ("generation_size: {a: 1}", "generation_size must be a whole number, got {'a': 1}"),
        ("encoder: [8, 16]", "encoder must be text, got [8, 16]"),
        ("batch_size: true", "batch_size must be a whole number, got True"),
        ("batch_size: '8'", "batch_size must be a whole number, got '8'"),
        ("batch_size: 8.0", "batch_size must be a whole number, got 8.0"),
        ("batch_size: 1000000000000000000", "batch_size must be at most 100,000"),
        ("num_hidden_layers: 0", "num_hidden_layers must be at least 1"),
        ("compile: 'no'", "compile must be true or false"),
        ("noise_schedule: sine", "noise_schedule must be one of log_linear, linear, cosine"),
        ("learning_rate: .nan", "learning_rate must be a finite number, got nan"),
        ("embedding_rate: nan", "embedding_rate must be a finite number, got nan"),
        ("learning_rate: .inf", "learning_rate must be a finite number, got inf"),
        ("learning_rate: 1" + 400 * "0", "learning_rate must be a finite number"),
        ("batch_size: 0x" + 5000 * "f", "a number of thousands of digits"),
        ("batch_size: [0x" + 5000 * "f" + "]", "[a number of thousands of digits]"),
        ("batch_size: " + 5000 * "9", "cannot read"),
        ("max_grad_norm: 0", "max_grad_norm must be above 0"),
        ("keep_checkpoints: 0", "keep_checkpoints must be at least 1"),
        ("seed: -1", "seed must be at least 0"),
        ("backbone: null\nbackbone_config: '{'", "is no JSON"),
        ("backbone: null\nbackbone_config: '" + 5000 * "[" + "'", "is no JSON"),
        ("backbone: null\nbackbone_config: '[1]'", "must be a JSON object"),
        ("backbone: null\nbackbone_config: '{\"hidden_size\": 100000000}'", "hidden_size must be at most 1,000,000"),
        ("texts: 2001-99-99", "cannot read"),
        ("seed: !!timestamp x", "cannot read"),
        ("seed: 1\nseed: 2", "the key 'seed' is there twice"),
        ("? [1, 2]\n: 3", "cannot read"),
    ],
)
def test_values_of_another_kind_are_named(tmp_path, text, message):
    """A list where a number belongs was a traceback minutes later, and NaN trained to the end."""
    path = tmp_path / "run.yaml"
    base = [f"{key}: {value}" for key, value in RUN.items() if not text.startswith(f"{key}:")]
    path.write_text("\n".join([*base, text]))
    assert message in refused(parse_training_config, [str(path)])


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--learning_rate", "nan"], "learning_rate must be a finite number"),
        (["--batch_size", "1000000000000000000"], "batch_size must be at most 100,000"),
        (["--batch_size", "many"], "invalid int value: 'many'"),
        (["--noise_schedule", "sine"], "invalid choice: 'sine'"),
        (["--canvas_lengths", "1", "32"], "each at least 2"),
    ],
)
def test_flags_go_through_the_same_checks(tmp_path, flags, message):
    """A flag that skips the checks of the file, or a page of usage in place of one line."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(RUN))
    assert message in refused(parse_training_config, [str(path), *flags])
    assert message in refused(parse_training_config, [f"--{key}={value}" for key, value in RUN.items()] + flags)


@pytest.mark.parametrize(
    "text, message",
    [
        ("id: a\npromt: 'query: '\n", "unknown key 'promt'; known are id, revision, prompt"),
        ("prompt: x\n", "`id` is missing"),
        ("- id\n", "must hold `key: value` lines; the keys are id, revision"),
        ("id: [\n", "cannot read"),
        ("id: ''\n", "id must be a Hub id or a folder"),
        ("id: 3\n", "id must be text, got 3"),
        ("id: a\nmax_length: 0\n", "max_length must be at least 1, got 0"),
        ("id: a\nprompt: ['query: ']\n", "prompt must be text or null, got ['query: ']"),
        ("id: a\nrevision: 1234567\n", "revision must be text or null, got 1234567"),
        ("id: a\ntrust_remote_code: 'no'\n", "trust_remote_code must be true or false, got 'no'"),
        ("id: a\ntokenizer: b\nembedding_dim: '384'\n", "embedding_dim must be a whole number or null, got '384'"),
        ("id: a\ntokenizer: b\nembedding_dim: -3\n", "embedding_dim must be at least 1, got -3"),
        ("id: a\nembedding_dim: 384\n", "needs a tokenizer beside it"),
    ],
)
def test_encoder_files_are_checked(tmp_path, text, message):
    """Catches a misspelt key that is dropped, and a value that only the tokenizer or the Hub trips over."""
    path = tmp_path / "encoder.yaml"
    path.write_text(text)
    found = refused(EncoderConfig.from_yaml, path)
    assert message in found and str(path) in found


def test_files_without_end_are_refused(tmp_path):
    """Aliases that multiply, nesting beyond Python's stack, a device that never ends: time or memory without bound."""
    path = tmp_path / "run.yaml"
    lines = ["a: &a {x: 1}"] + [
        f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    for text, message in (
        ("\n".join(lines), "aliases"),
        ("encoder: " + "[" * 9000, "nested more than"),
        ("texts:\n" + "- a\n" * 99_000, "longer than 100,000 bytes"),
        ("\0", "cannot read"),
        ("", "must hold `key: value` lines"),
    ):  # fmt: skip
        path.write_text(text)
        assert message in refused(read_yaml, path, TrainingConfig)
    path.write_bytes(b"\xff\xfe")
    assert "cannot read" in refused(read_yaml, path, TrainingConfig)
    if Path("/dev/zero").exists():
        assert "longer than" in refused(read_yaml, "/dev/zero", TrainingConfig)
    assert "cannot read" in refused(read_yaml, tmp_path, TrainingConfig)


def test_numbers_as_yaml_writes_them(tmp_path):
    """YAML 1.1 takes 1e-4 for text; a revision of digits in quotes is text and stays it."""
    path = tmp_path / "run.yaml"
    path.write_text("learning_rate: 1e-4\nweight_decay: 0\n")
    assert read_yaml(path, TrainingConfig) == {"learning_rate": 1e-4, "weight_decay": 0}
    path.write_text("id: a\nrevision: '1e4'\nprompt: null\n")
    assert EncoderConfig.from_yaml(path) == EncoderConfig("a", revision="1e4")


ODD = [
    None, True, False, 0, 1, -1, 2, 7, 2**31, 10**18, -(10**18), 0.0, 0.5, 1e21, 1e-30, math.nan, math.inf, "",
    "a", "1e-4", "nan", "no", "\0", "x" * 5000, [], [8, 16], [None], ["a"], [[1]], {}, {"a": 1}, {"a": {"b": [1]}},
]  # fmt: skip


@pytest.mark.parametrize("schema", [TrainingConfig, EncoderConfig], ids=lambda schema: schema.__name__)
def test_any_value_for_any_key(tmp_path, schema):
    """Fuzz, seeded: whatever stands in a file, it is read with the types of the fields, or refused in one line."""
    draw, names, path, refusals = random.Random(0), list(get_type_hints(schema)), tmp_path / "fuzz.yaml", []
    base = RUN if schema is TrainingConfig else {"id": "a"}
    read = (lambda: parse_training_config([str(path)])) if schema is TrainingConfig else lambda: schema.from_yaml(path)
    for _ in range(600):
        changes = {draw.choice(names): draw.choice(ODD) for _ in range(draw.choice((1, 1, 1, 2, 3)))}
        path.write_text(yaml.safe_dump(base | changes))
        try:
            read()
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > 300
    assert [line for line in refusals if "\n" in line or len(line) >= 2000] == []
