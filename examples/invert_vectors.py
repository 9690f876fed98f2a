"""Read texts out of vectors: torch and transformers are all that this needs.

    python examples/invert_vectors.py vectors.npy
    python examples/invert_vectors.py vectors.npy --model user/name

vectors.npy: (N, D) float, from the encoder that the model's card names.
"""

import argparse

import numpy as np
import transformers
from transformers import pipeline

parser = argparse.ArgumentParser(description="Read texts out of vectors.")
parser.add_argument("vectors", help=".npy file of (N, D) vectors")
parser.add_argument("--preset", default="standard", help="quick, standard or thorough")
parser.add_argument("--model", default="checkpoints/embinv-minilm")
options = parser.parse_args()
transformers.logging.disable_progress_bar()

invert = pipeline("embedding-inversion", model=options.model, trust_remote_code=True, preset=options.preset)
for result in invert(np.load(options.vectors)):
    print(f"{result['confidence']:4.0%}  {result['text']}")
