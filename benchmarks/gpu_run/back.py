"""What came back, as a folder that `AutoModel` loads.

    python -m benchmarks.gpu_run.back FOLDER [FOLDER ...] --out runs/gpu/model

The parts may lie in several folders, one for each command that sent some.
"""

import argparse
import json
import sys
from pathlib import Path

from safetensors.torch import load

from modeling_embinv.configuration_embinv import EmbInvConfig
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.tokens import Vocabulary
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.modeling_embinv import EmbInvForMaskedDiffusion
from modeling_embinv.training.backbone import prepare_tokenizer
from modeling_embinv.training.checkpoints import export


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        print(unpack(options.folders, options.out))
    except EmbInvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def unpack(folders: list[Path], out: Path) -> Path:
    """Join the parts of some folders and export the model.

    Raises:
        EmbInvError: naming the parts that are missing.
    """
    parts = {path.name: path for folder in folders for path in folder.glob("weights-*-of-*")}
    if not parts:
        raise EmbInvError(f"no weights in {', '.join(map(str, folders))}.")
    count = next(iter(parts)).rpartition("-")[2]
    names = [f"weights-{number:02d}-of-{count}" for number in range(int(count))]
    if missing := [name for name in names if name not in parts]:
        raise EmbInvError(f"missing: {', '.join(missing)}; send them, after no more training.")
    weights = load(b"".join(parts[name].read_bytes() for name in names))
    config = EmbInvConfig.from_dict(json.loads((parts[names[0]].parent / "config.json").read_text()))
    model = EmbInvForMaskedDiffusion(config)
    absent = model.load_state_dict({name: weight.float() for name, weight in weights.items()}, strict=False)
    if absent.unexpected_keys or set(absent.missing_keys) - set(model._tied_weights_keys):
        raise EmbInvError(f"the weights are of another model: {[*absent.missing_keys, *absent.unexpected_keys][:3]}.")
    tokenizer = prepare_tokenizer(load_encoder(EncoderConfig.of_inverter(config)).tokenizer)
    model.tie_weights()
    model.generation_config.suppress_tokens = Vocabulary(tokenizer).suppressed
    return export(model, tokenizer, out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
