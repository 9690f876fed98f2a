"""What came back, as a folder that `AutoModel` loads.

    python -m benchmarks.gpu_run.back FOLDER [FOLDER ...] --out runs/gpu/model

The parts may lie in several folders, one for each command that sent some. `--curve FILE` writes how held-out texts
scored as training went, by the log that came with them.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load

from modeling_embinv.configuration_embinv import EmbInvConfig
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.tokens import Vocabulary
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.modeling_embinv import EmbInvForMaskedDiffusion
from modeling_embinv.training.backbone import prepare_tokenizer
from modeling_embinv.training.checkpoints import export

from .parcels import CONFIG, LOG, WHOLE

# what a table of scores shows, by the names in the log
HEADS = {
    "nats_a_token": "−log p a token", "draft_bleu": "draft, BLEU", "draft_exact": "draft, exact %",
    "corrected_1_bleu": "corrected once, BLEU", "corrected_1_exact": "corrected once, exact %",
    "corrected_3_bleu": "three times, BLEU", "corrected_3_exact": "three times, exact %",
}  # fmt: skip


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--curve", type=Path, help="JSON of the scores of held-out texts by texts seen")
    options = parser.parse_args(arguments)
    try:
        print(unpack(options.folders, options.out))
        if options.curve:
            write_json(options.curve, curve((options.folders[-1] / LOG).read_text().splitlines()))
    except EmbInvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def curve(log: list[str]) -> dict[str, Any]:
    """The lines of a log that have scores, as a table by millions of texts seen."""
    scored = [line for line in map(json.loads, log) if "nats_a_token_16" in line]
    tables = {}
    for canvas in (16, 32):
        rows = {
            f"{line['texts'] / 1e6:.1f} M": {head: line.get(f"{name}_{canvas}") for name, head in HEADS.items()}
            for line in scored
        }
        tables[f"{canvas} tokens"] = {"columns": list(HEADS.values()), "rows": rows}
    return tables


def unpack(folders: list[Path], out: Path) -> Path:
    """Join the parts of some folders and export the model.

    Raises:
        EmbInvError: naming the parts that are missing, and where they are not of the same weights.
    """
    parts = {path.name: path for folder in folders for path in folder.glob("weights-*-of-*")}
    if not parts:
        raise EmbInvError(f"no weights in {', '.join(map(str, folders))}.")
    count = next(iter(parts)).rpartition("-")[2]
    names = [f"weights-{number:02d}-of-{count}" for number in range(int(count))]
    if missing := [name for name in names if name not in parts]:
        raise EmbInvError(f"missing: {', '.join(missing)}; send them, after no more training.")
    joined = b"".join(parts[name].read_bytes() for name in names)
    sums = {path.read_text() for folder in folders for path in folder.glob(WHOLE)}
    if not sums <= {hashlib.sha256(joined).hexdigest()}:
        raise EmbInvError("the parts are of several --freeze, or damaged: send all parts of one again.")
    weights = load(joined)
    config = EmbInvConfig.from_dict(json.loads((parts[names[0]].parent / CONFIG).read_text()))
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
