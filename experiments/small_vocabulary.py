"""Cut the encoder's WordPiece tokenizer to its most frequent tokens, for an output layer of a quarter the size.

    python experiments/small_vocabulary.py data/minilm_16 --size 8000 --out data/tokenizer_8k

Counts tokens in the training split of prepared pairs. Special tokens and ASCII characters stay, so that
every English text can still be written, in more pieces.
"""

import argparse
import json

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.pairs import load_pairs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", help="folder of `embinv prepare`, made with the encoder's own tokenizer")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--size", type=int, default=8000, help="tokens that stay")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    vocabulary = load_encoder(options.encoder).vocabulary
    tokenizer, special = vocabulary.tokenizer, vocabulary.special
    ids = load_pairs(options.pairs, "train").with_format("numpy")[:]["input_ids"]
    counts = np.bincount(ids.ravel(), minlength=len(tokenizer)).astype(float)
    counts[special] = 0
    names = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    letters = [name.isascii() and len(name.removeprefix("##")) == 1 for name in names]
    kept = np.argsort(-np.where(letters | special, np.inf, counts), kind="stable")[: options.size]
    print(f"{options.size} tokens: {counts[kept].sum() / counts.sum():.1%} of the text")

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"] = vocabulary = {names[old]: new for new, old in enumerate(np.sort(kept).tolist())}
    for token in state["added_tokens"]:
        token["id"] = vocabulary[token["content"]]
    for token in state["post_processor"]["special_tokens"].values():
        token["ids"] = [vocabulary[name] for name in token["tokens"]]
    roles = {role: str(token) for role, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    small = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **roles)
    small.save_pretrained(options.out)


if __name__ == "__main__":
    main()
