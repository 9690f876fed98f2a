"""A redacted text and its vector: what stood under the black bars?

    python examples/fill_gaps.py "The patient [MASK] was treated for [MASK]." vector.npy

The words that are known stay as they are; only the gaps, one [MASK] for each token, are read from the vector.
"""

import sys

import numpy as np
import torch
from transformers import AutoModel, PreTrainedTokenizerFast

folder = "checkpoints/embinv-minilm"
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)

draft = torch.full((1, model.config.max_sequence_length), model.config.eos_token_id)
known = tokenizer(sys.argv[1], add_special_tokens=False, return_tensors="pt")["input_ids"]
draft[:, : known.shape[1]] = known
output = model.generate(np.load(sys.argv[2]), draft_ids=draft)
print(tokenizer.decode(output.sequences[0], skip_special_tokens=True))
