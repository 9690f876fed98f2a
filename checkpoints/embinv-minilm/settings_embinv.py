"""The settings of `generate`: the one place for each one's name, type, default, bounds and help text.

`EmbInvGenerationConfig`, the command line's flags, the Space's controls and docs/reference/settings.md are made from
these tables. They import no torch, so that `embinv --help` need not wait for it.
"""

import inspect
import textwrap
from collections.abc import Callable
from collections.abc import Collection
from dataclasses import Field, dataclass, field, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from types import NoneType
from typing import Any, ClassVar, TypeVar, get_args, get_origin

from .errors_embinv import EmbInvError
from .errors_embinv import is_whole
from .errors_embinv import shown

# texts of a round: their ids and vectors of 384 numbers take a gigabyte
TEXTS = 2**17
# λ by default, tuned on validation texts: the encoder's cosine needs no help, the surrogate is deceived without it
LIKELIHOOD_WEIGHT, SURROGATE_LIKELIHOOD_WEIGHT = 0.0, 0.006
# the cosine by the encoder of a text that has reached its vector: others' are lower, but for rounding
STOP_COSINE = 0.999
# edits that are chained between two calls of the encoder
ENCODER_HOPS = 3
# settings that begin a search; where a sweep over them says that there is none, its other settings stand by
SEARCHES = ("num_candidates", "num_corrections")
# tokens of a gap; a search over more takes minutes
GAP_TOKENS = 64


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        kind: int, float, str, bool, list (of token ids) or dict (of calibrations).
        help: one line, for a flag or a control. detail: what else there is to say.
        low, high: least and greatest value of a number.
        choices: the words that are allowed. optional: whether None is. none: what None stands for.
    """

    name: str
    kind: type
    default: Any
    help: str
    detail: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False
    none: str = ""

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind in (int, float):
            number = "a whole number" if self.kind is int else "a number"
            return f"{number} from {self.low:,g} to {self.high:,g}"
        if self.kind is list:
            return "a list of token ids, whole numbers from 0"
        return "True or False" if self.kind is bool else "a dictionary"

    @property
    def default_text(self) -> str:
        """The default in words: what None stands for, where it is None."""
        return self.none if self.default is None else f"{self.default}"

    @property
    def is_flag(self) -> bool:
        """Whether one word or number gives the setting, so that the command line can have a flag of it."""
        return self.kind in (int, float, str)

    def check(self, value: Any) -> Any:
        """The value as a plain Python one; numbers of numpy become Python's.

        Raises:
            EmbInvError: for a value of another type, out of bounds or not among the choices.
        """
        if value is None and self.optional:
            return None
        if self.kind is list:
            value = _as_list(value)
        if not self._fits(value):
            none = ", or None" if self.optional else ""
            raise EmbInvError(f"{self.name} must be {self.allowed}{none}, got {shown(value)}.")
        return [int(token) for token in value] if self.kind is list else self.kind(value)

    def _fits(self, value: Any) -> bool:
        if self.choices:
            return isinstance(value, str) and value in self.choices
        if self.kind is list:
            return isinstance(value, list | tuple | set | range) and all(is_whole(token, 0) for token in value)
        if self.kind not in (int, float):
            return isinstance(value, self.kind)
        number = isinstance(value, Integral if self.kind is int else Real) and not isinstance(value, bool)
        return number and self.low <= value <= self.high


def _as_list(ids: Any) -> Any:
    """Ids of a tensor or an array as a list; anything else as it is."""
    try:
        return ids.tolist() if hasattr(ids, "tolist") else ids
    except RuntimeError:
        return ids  # a tensor without numbers of its own


def setting(default: Any, help: str, low: float | None = None, high: float | None = None, **more: Any) -> Any:
    """A field of a table; see `Setting` for `more`."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, **more})


Table = TypeVar("Table", bound="type[Settings]")


class Settings:
    """A table of settings: a dataclass whose fields are made by `setting`."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @classmethod
    @cache
    def table(cls) -> dict[str, Setting]:
        """The settings of this class by name."""
        table = {}
        for one in fields(cls):
            kinds = get_args(one.type) or (one.type,)
            kind = get_origin(kinds[0]) or kinds[0]
            table[one.name] = Setting(one.name, kind, one.default, optional=NoneType in kinds, **one.metadata)
        return table

    @classmethod
    def checked_names(cls, values: dict[str, Any], noun: str) -> dict[str, Any]:
        """The values, if all are of settings of this class.

        Raises:
            EmbInvError: for an unknown name; `noun` says whose settings they are.
        """
        for name in values:
            if name not in cls.table():
                raise EmbInvError(f"unknown {noun} setting {shown(name)}; known are {', '.join(cls.table())}.")
        return values

    def check_values(self) -> None:
        """Check every value, and keep it as `Setting.check` gives it, in frozen tables, too."""
        for name, one in self.table().items():
            object.__setattr__(self, name, one.check(getattr(self, name)))

    def changed(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        return {name: getattr(self, name) for name, one in self.table().items() if getattr(self, name) != one.default}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.changed().items())})"


def documented(cls: Table) -> Table:
    """Add the settings of a table to its docstring, so that `help` shows them."""
    lines = []
    for one in cls.table().values():
        sentences = f"{one.name}: {one.help}.", one.detail, f"By default {one.default_text}; {one.allowed}."
        text = " ".join(filter(None, sentences))
        lines += textwrap.wrap(text, 112, initial_indent="    ", subsequent_indent="        ")
    cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Args:", *lines])
    return cls


@dataclass(init=False, repr=False, eq=False)
class SamplerSettings(Settings):
    """How one text is written for each vector."""

    strategy: str = setting(
        "confidence", "the order in which tokens are written",
        choices=("sequential", "euler", "euler_remask", "confidence", "two_stage", "autoregressive"),
        detail="sequential: left to right, one token a pass (Eq. 11). euler: the reverse diffusion (Eq. 12). "
        "euler_remask: the same, and each step masks the least certain tokens again (Eq. 13). confidence: the most "
        "certain tokens first (Eqs. 14–15). two_stage: a draft, then euler from its result. autoregressive: left to "
        "right by causal attention, for models trained with causal_share above 0.",
    )  # fmt: skip
    draft: str = setting(
        "sequential", "the strategy of two_stage's first stage", choices=("sequential", "autoregressive")
    )
    num_draft_beams: int = setting(
        1, "hypotheses of each text that autoregressive keeps; 1 takes the likeliest token each time", 1, 1_000,
        detail="Beam search: the text of highest mean log p is returned, its end included. At temperature 0 alone; "
        "a search's first candidate is written so.",
    )  # fmt: skip
    num_steps: int = setting(
        8, "forward passes at most", 1, 1_000,
        detail="sequential and autoregressive take one for each token instead; two_stage adds num_steps to those.",
    )  # fmt: skip
    guidance_scale: float = setting(
        1.0, "strength of classifier-free guidance; 1 = off", -100.0, 100.0,
        detail="logits = null + scale · (conditional − null), arXiv 2207.12598. Any value but 1 runs both branches, "
        "in one batch of twice the rows.",
    )  # fmt: skip
    temperature: float | None = setting(
        None, "temperature of the token distribution; 0 takes the most likely token", 0.0, 100.0,
        none="1 for euler, euler_remask and two_stage, which sample, and 0 for the others",
        detail="The first stage of two_stage is always greedy.",
    )  # fmt: skip
    remask_ratio: float = setting(
        0.05, "share of the written tokens that each step of euler_remask masks again", 0.0, 1.0, detail="τ of Eq. 13."
    )
    restart_ratio: float = setting(
        0.3, "share of the first stage's tokens that two_stage masks again", 0.0, 1.0, detail="The least certain ones."
    )
    max_length: int | None = setting(
        None, "length of the canvas: tokens of a text at most, its end token included", 1, 100_000,
        none="the model's max_sequence_length",
    )  # fmt: skip
    suppress_tokens: list[int] | None = setting(
        None, "token ids that are never written, besides [MASK]", none="none",
        detail="None in an EmbInvGenerationConfig that is given to a model leaves the checkpoint's own; [] is none.",
    )  # fmt: skip
    return_history: bool = setting(False, "keep the canvas and its confidence after each pass")
    calibration: dict[str, dict[str, float]] | None = setting(
        None, "how the probability of a token becomes the confidence that is returned", none="the probability itself",
        detail="Arguments of Calibration, by what the confidence rests on: open_loop, candidates (without feedback), "
        "surrogate or encoder. embinv calibrate fits them, so that of the tokens of confidence 0.8 eight in ten are "
        "right. No token is chosen by it. None in an EmbInvGenerationConfig that is given to a model leaves the "
        "checkpoint's own; {} is none.",
    )  # fmt: skip


@documented
@dataclass(frozen=True, kw_only=True, repr=False)
class SearchSettings(Settings):
    """The closed loop: how many texts are tried for each vector, and how they are ranked.

    It checks itself: a value of another type or out of bounds is an `EmbInvError`, and so are more than 131,072 texts
    of a vector in one round.
    """

    num_candidates: int = setting(
        1, "texts that are written for each vector at first; the best one is kept", 1, 10_000,
        detail="The first is greedy, num_drafts are sampled from left to right, and the others in the masked order. "
        "Where the judge finds that the first one has reached its vector, no others are written.",
    )  # fmt: skip
    num_drafts: int | None = setting(
        None, "of num_candidates, texts that are sampled from left to right", 0, 10_000,
        none="all but the first, 0 for a checkpoint that was trained without causal_share",
        detail="They take a fraction of the time of the others.",
    )  # fmt: skip
    num_corrections: int = setting(0, "rounds of edits of the best texts, each checked by feedback", 0, 10_000)
    num_beams: int = setting(4, "texts of each vector that survive a round", 1, 1_000)
    num_proposals: int = setting(
        64, "texts made of each surviving text in a round: edits, num_moves moves, num_redrafts redrafts", 1, 10_000,
        detail="Without a surrogate to choose among them, no more than num_checked are made.",
    )  # fmt: skip
    num_moves: int | None = setting(
        None, "of num_proposals, texts with two spans swapped or one word removed, in place of edits", 0, 10_000,
        none="half of num_proposals, 0 for a checkpoint that was trained without causal_share",
        detail="Of all such changes, the likeliest ones given the vector.",
    )  # fmt: skip
    num_redrafts: int | None = setting(
        None, "of num_proposals, texts that are written anew from left to right, in place of edits", 0, 10_000,
        none="an eighth of num_proposals, 0 for a checkpoint that was trained without causal_share",
        detail="The surviving text's words have a bonus; their order, and what stands between them, is free.",
    )  # fmt: skip
    word_bonus: float = setting(
        3.0, "mean bonus, in nats, on the log-probability of a surviving text's words in its redrafts",
        0.0, 100.0,
    )  # fmt: skip
    num_checked: int = setting(
        8, "edits of each surviving text that the encoder judges in a round; the surrogate chooses them", 1, 10_000
    )
    num_scouted: int | None = setting(
        None, "rounds, the first ones, that the surrogate judges in place of the encoder", 0, 10_000,
        none="half of num_corrections",
        detail="Half of them recovers about as much with half the calls of the encoder.",
    )  # fmt: skip
    num_hops: int | None = setting(
        None, "edits chained in each round, before its judge compares them with the texts it had", 1, 100,
        none=f"{ENCODER_HOPS} where the encoder judges and a surrogate chooses, and 1 where the surrogate judges",
        detail="The best edits are edited again, even where they are worse than what was edited. So a search leaves a "
        "text that no single edit improves. Each hop takes up to as long as a round of single edits.",
    )  # fmt: skip
    num_rewrites: int = setting(
        0, "texts that the corrector writes for each surviving text in a round, beside its edits", 0, 10_000,
        detail="Of a checkpoint that was trained with correction_share above 0.",
    )  # fmt: skip
    num_searches: int = setting(
        1, "searches, each from new drafts, while no text matches the vector; the best text is kept", 1, 1_000
    )
    stop_cosine: float | None = setting(
        None, "cosine by the surrogate at which a search stops, because the text is found", -1.0, 1.0,
        none=f"{STOP_COSINE:g}, as by the encoder; surrogates seldom reach it",
        detail="A checkpoint whose surrogate is close to the encoder has its own, which stays where an "
        "EmbInvGenerationConfig that is given to a model has None.",
    )  # fmt: skip
    candidate_temperature: float = setting(
        0.7, "temperature at which candidates and edits are sampled", 0.001, 100.0, detail="Higher ones differ more."
    )
    likelihood_weight: float | None = setting(
        None, "weight λ in the score of a text: cosine + λ · mean log p(token | e, the other tokens)", 0.0, 1_000.0,
        none=f"{LIKELIHOOD_WEIGHT:g} for the encoder and {SURROGATE_LIKELIHOOD_WEIGHT:g} for the surrogate, whose "
        "cosine is less reliable",
    )  # fmt: skip
    overshoot: float = setting(
        1.5, "factor α in e + α(e − ê), the vector for which edits of a text with vector ê are filled in", 0.0, 100.0,
        detail="What the text lacks then counts more.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check_values()
        if self.num_beams * (self.num_proposals + self.num_rewrites) * self.hops_of("encoder") > TEXTS:
            counted = "num_beams · (num_proposals + num_rewrites) · num_hops"
            raise EmbInvError(f"{counted} must be at most {TEXTS:,} texts of a vector.")

    @classmethod
    def of(cls, given: Any = None, **changes: Any) -> "SearchSettings":
        """The settings of an instance or of a dictionary, as JSON has it; `changes` replace single ones.

        Raises:
            EmbInvError: for anything else, for unknown names, and for impossible values.
        """
        if is_dataclass(given) and not isinstance(given, type):  # of a checkpoint's own code, this class is another
            given = {one.name: getattr(given, one.name) for one in fields(given)}
        if not isinstance(given, dict | NoneType):
            raise EmbInvError(f"search must be SearchSettings or a dictionary of them, got {shown(given)}.")
        return cls(**cls.checked_names({**(given or {}), **changes}, "search"))

    @property
    def is_search(self) -> bool:
        """Whether more than one text is written for a vector."""
        return self.num_candidates > 1 or self.num_corrections > 0

    def check_alone(self, given: Collection[str]) -> None:
        """Raises EmbInvError where a call has settings of a search and nothing that begins one.

        Args:
            given: the names of the settings that the call itself has; these settings hold the model's own as well.
        """
        if self.is_search or any(name in given for name in SEARCHES):
            return
        alone = [name for name in self.table() if name in given]
        if alone:
            names = f"{', '.join(alone)} {'is' if len(alone) == 1 else 'are'}"
            raise EmbInvError(f"{names} of a search: give num_candidates above 1, or num_corrections with feedback.")

    def drafts_of(self, model_config: Any) -> int:
        """`num_drafts`, or its default for a model of that configuration; the first candidate is never one of them."""
        others = self.num_candidates - 1
        if self.num_drafts is None:
            return others if model_config.causal_share else 0
        return min(self.num_drafts, others)

    def redrafts_of(self, model_config: Any, num_proposals: int) -> int:
        """`num_redrafts` of so many proposals, or its default for a model of that configuration."""
        usual = num_proposals // 8 if model_config.causal_share else 0
        return min(usual if self.num_redrafts is None else self.num_redrafts, num_proposals)

    def moves_of(self, model_config: Any, num_proposals: int) -> int:
        """The same of `num_moves`; what redrafts leave."""
        usual = num_proposals // 2 if model_config.causal_share else 0
        others = num_proposals - self.redrafts_of(model_config, num_proposals)
        return min(usual if self.num_moves is None else self.num_moves, others)

    @property
    def scouted_rounds(self) -> int:
        """`num_scouted`, or its default, within the rounds that there are."""
        rounds = self.num_corrections // 2 if self.num_scouted is None else self.num_scouted
        return min(rounds, self.num_corrections)

    def hops_of(self, judge: str) -> int:
        """`num_hops`, or its default for a judge, "encoder" or "surrogate"."""
        usual = ENCODER_HOPS if judge == "encoder" else 1
        return usual if self.num_hops is None else self.num_hops

    def likelihood_weight_of(self, judge: str) -> float:
        """λ for a judge, "encoder" or "surrogate"."""
        usual = SURROGATE_LIKELIHOOD_WEIGHT if judge == "surrogate" else LIKELIHOOD_WEIGHT
        return usual if self.likelihood_weight is None else self.likelihood_weight

    def stop_cosine_of(self, judge: str) -> float:
        """The cosine by a judge, "encoder" or "surrogate", of a text that is taken for the vector's own."""
        return STOP_COSINE if judge == "encoder" or self.stop_cosine is None else self.stop_cosine


@documented
@dataclass(frozen=True, kw_only=True, repr=False)
class FillSettings(Settings):
    """The gap search: how many fillings of a redacted text are tried.

    It checks itself: a value of another type or out of bounds is an `EmbInvError`.
    """

    num_sweeps: int = setting(
        5,
        "times that the search goes over all gaps",
        1,
        1_000,
        detail="It ends earlier where no text improves. A text with too low a cosine first gets a sweep of four times "
        "as many proposals.",
    )
    num_beams: int = setting(6, "whole fillings of a text that survive a gap", 1, 1_000)
    num_proposals: int = setting(
        96, "fillings of each gap that are tried in a sweep", 1, 10_000,
        detail="Half of them in the first sweep, a quarter once the surrogate is sure of the text.",
    )  # fmt: skip
    num_checked: int = setting(
        12, "fillings of each gap that the encoder judges in a sweep; the surrogate chooses them", 1, 10_000,
        detail="Without a surrogate, or of texts that are too long for it, the encoder judges all num_proposals.",
    )  # fmt: skip
    max_gap_tokens: int = setting(
        6, "tokens that one gap hides, at most, as it is first filled", 1, GAP_TOKENS,
        detail="Edits may make it up to twice as long, a token at a time, where that brings the text nearer.",
    )  # fmt: skip
    overshoot: float = setting(
        2.0, "factor α in e + α(e − ê), the vector for which fillings are proposed, ê being that of the text so far",
        0.0, 100.0,
    )  # fmt: skip
    likelihood_weight: float = setting(
        0.02, "weight λ in the score of a text: cosine + λ · (1 − cosine) · log p(the fillings | e, the rest)",
        0.0, 1_000.0,
        detail="The farther a text is from the vector, the less its cosine tells. In a text longer than the canvas a "
        "word changes the cosine less, by the square of the ratio, and λ is smaller by as much.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check_values()

    @classmethod
    def of(cls, **values: Any) -> "FillSettings":
        """The settings of keywords.

        Raises:
            EmbInvError: for unknown names, and for impossible values.
        """
        return cls(**cls.checked_names(values, "fill"))


# all settings of `generate` by name
SETTINGS = {**SamplerSettings.table(), **SearchSettings.table()}


# an argument of `generate`, which takes functions, too; commands and pages name it by a word
FEEDBACK = Setting(
    "feedback", str, "none", choices=("none", "surrogate", "encoder"),
    help="what judges candidates and corrections: the encoder that made the vectors, or the model's surrogate of it",
)  # fmt: skip


def feedback_by_name(name: str | None, encoder: Callable[[], Callable[..., Any]]) -> Callable[..., Any] | str | None:
    """The argument `feedback` of `generate` that a word stands for: one of `FEEDBACK.choices`; None is "none".

    Args:
        encoder: gives the encoder's function, texts → vectors; called for "encoder" alone, as loading one takes time.
    """
    if name is None or FEEDBACK.check(name) == "none":
        return None
    return encoder() if name == "encoder" else name
