"""The encoder without its package and without sentence-transformers: weights in fp16; token ids in, vectors out."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertModel

from modeling_embinv.data.encoders import SentenceEncoder
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.texts_embinv import text_lengths


def save(folder: Path, encoder: SentenceEncoder) -> None:
    """Write an encoder's weights in fp16, and what is read around a text.

    Raises:
        EmbInvError: for an encoder that is not a BERT whose states are averaged.
    """
    modules = [type(module).__name__ for module in encoder._model]
    network = encoder._model.transformers_model
    if modules[:2] != ["Transformer", "Pooling"] or not isinstance(network, BertModel) or not encoder.takes_ids:
        raise EmbInvError(f"{encoder.config.id} is no BERT with mean pooling: {', '.join(modules)}.")
    weights = {name: weight.detach().half().contiguous() for name, weight in encoder.weights.items()}
    save_file(
        {name: weight for name, weight in weights.items() if "pooler" not in name}, folder / "encoder.safetensors"
    )
    prefix, suffix = encoder._frame
    backbone = network.config.to_dict() | {"_name_or_path": ""}  # a folder of this machine says nothing elsewhere
    about = {"id": encoder.config.id, "revision": encoder.config.revision, "prompt": encoder.config.prompt,
             "prefix": prefix, "suffix": suffix, "backbone": backbone}  # fmt: skip
    (folder / "encoder.json").write_text(json.dumps(about))


class PackedEncoder:
    """What `save` wrote, on a device.

    Attributes:
        network: the BERT. about: id, revision and prompt, and the ids before and behind a text.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.about = json.loads((folder / "encoder.json").read_text())
        config = BertConfig(**self.about["backbone"])
        self.network = BertModel(config, add_pooling_layer=False).eval().requires_grad_(False)
        weights = {name: weight.float() for name, weight in load_file(folder / "encoder.safetensors").items()}
        self.network.load_state_dict(weights)
        self.network.to(device)
        # on the device once: each copy of a few numbers makes the GPU wait
        self.frame = [torch.tensor(self.about[name], device=device) for name in ("prefix", "suffix")]

    @torch.no_grad()
    def encode_ids(self, ids: Tensor, end: int) -> Tensor:
        """Canvas rows (B, L) → (B, D) float32 of length 1, as `SentenceEncoder.encode_ids`."""
        prefix, suffix = self.frame
        width = len(prefix) + ids.shape[1] + len(suffix)
        row = torch.zeros(len(ids), width, dtype=torch.long, device=ids.device)
        row[:, : len(prefix)] = prefix
        row[:, len(prefix) : len(prefix) + ids.shape[1]] = ids
        behind = len(prefix) + text_lengths(ids, end)[:, None]  # where each row's suffix begins
        row.scatter_(1, behind + torch.arange(len(suffix), device=ids.device), suffix.expand(len(ids), -1))
        mask = torch.arange(width, device=ids.device) < behind + len(suffix)
        with torch.autocast(ids.device.type, torch.float16, enabled=ids.device.type == "cuda"):
            # of four dimensions: the library would look into a mask of two, and wait for the GPU
            states = self.network(row, attention_mask=mask[:, None, None].expand(-1, 1, width, -1)).last_hidden_state
        mean = (states.float() * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return torch.nn.functional.normalize(mean, dim=-1)
