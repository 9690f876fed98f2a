"""Read texts out of vectors: torch and transformers are all that this needs.

    python examples/invert_vectors.py vectors.npy
    python examples/invert_vectors.py vectors.npy --model user/name

vectors.npy: (N, D) float, from the encoder that the model's card names.
"""

import argparse

import numpy as np
from transformers import pipeline

parser = argparse.ArgumentParser()
parser.add_argument("vectors")
parser.add_argument("--model", default="checkpoints/embinv-minilm")
options = parser.parse_args()

invert = pipeline("embedding-inversion", model=options.model, trust_remote_code=True)
for result in invert(np.load(options.vectors)):
    print(f"{result['confidence']:4.0%}  {result['text']}")
