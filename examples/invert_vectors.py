"""Read texts out of vectors: torch and transformers are all that this needs.

    python examples/invert_vectors.py vectors.npy
    python examples/invert_vectors.py vectors.npy --model user/name

vectors.npy: (N, D) float, from the encoder that the model's card names.
"""

import argparse
from pathlib import Path


def invert(vectors: str, model: str, preset: str) -> None:
    """Print a text for each vector of the file, and how sure the model is of it."""
    import numpy as np
    import transformers
    from transformers import pipeline

    transformers.logging.disable_progress_bar()
    try:
        rows = np.load(vectors)  # before the model, which takes longer
    except (EOFError, ValueError):
        raise SystemExit(f"{vectors} is no .npy file of numbers.") from None
    inverter = pipeline("embedding-inversion", model=model, trust_remote_code=True, preset=preset)
    for result in inverter(rows):
        print(f"{result['confidence']:4.0%}  {result['text']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Read texts out of vectors.")
    parser.add_argument("vectors", help=".npy file of (N, D) vectors")
    parser.add_argument("--preset", default="standard", choices=("quick", "standard", "thorough"))
    parser.add_argument("--model", default="checkpoints/embinv-minilm")
    options = parser.parse_args()
    if not Path(options.vectors).is_file():
        parser.error(f"no such file: {options.vectors}")
    invert(options.vectors, options.model, options.preset)
