"""`pipeline("embedding-inversion")`: vectors in, texts with confidences out."""

from typing import Any

import numpy as np
import torch
from transformers import Pipeline

from .integrity_embinv import check_tokenizer


class EmbeddingInversionPipeline(Pipeline):
    """`pipeline("embedding-inversion", model=folder_or_repo, trust_remote_code=True)(vectors)`."""

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.tokenizer is not None:
            check_tokenizer(self.model.config, self.tokenizer)

    def __call__(self, embeddings: Any, batch_size: int = 64, **kwargs) -> dict | list[dict]:
        """Read texts out of vectors.

        Args:
            embeddings: (N, D) or (D,): tensor, array, or lists of numbers.
            batch_size: vectors at a time.
            kwargs: `seed` of sampling, 0 by default; `feedback`, "surrogate" or an encoder (N texts → (N, D)),
                which checks candidates and corrections; and the settings of `generate`.

        Returns:
            For each vector, or the one: text, confidence (the mean of its tokens'), tokens, token_confidence; with
            feedback also cosine.

        Raises:
            ValueError: for vectors of another width, NaN, infinite or all-zero ones, and for unknown settings.
        """
        if not isinstance(embeddings, torch.Tensor):
            embeddings = torch.from_numpy(np.asarray(embeddings, dtype=np.float32))
        if not embeddings.numel():
            return []
        batches = list(embeddings[None].split(1) if embeddings.ndim == 1 else embeddings.split(batch_size))
        results = [row for batch in super().__call__(batches, **kwargs) for row in batch]
        return results[0] if embeddings.ndim == 1 else results

    def _sanitize_parameters(self, **kwargs):
        return {}, kwargs, {}

    def preprocess(self, embeddings: torch.Tensor) -> dict:
        return {"embeddings": embeddings}

    def _forward(self, model_inputs: dict, seed: int = 0, **settings) -> dict:
        generator = torch.Generator().manual_seed(seed)
        output = self.model.generate(
            model_inputs["embeddings"], generator=generator, tokenizer=self.tokenizer, **settings
        )
        known = {} if output.cosine is None else {"cosine": output.cosine}
        return {"sequences": output.sequences, "confidence": output.confidence, **known}

    def postprocess(self, model_outputs: dict) -> list[dict]:
        end = self.model.config.eos_token_id
        rows, cosines = [], model_outputs.get("cosine")
        for ids, confidence in zip(model_outputs["sequences"].tolist(), model_outputs["confidence"], strict=True):
            ids = ids[: ids.index(end)] if end in ids else ids
            confidence = confidence[: len(ids)]
            known = {"cosine": float(cosines[len(rows)])} if cosines is not None else {}
            rows.append(
                {
                    "text": self.tokenizer.decode(ids),
                    "confidence": float(confidence.mean()),
                    "tokens": self.tokenizer.convert_ids_to_tokens(ids),
                    "token_confidence": confidence.tolist(),
                    **known,
                }
            )
        return rows
