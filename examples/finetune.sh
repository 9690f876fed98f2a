#!/usr/bin/env bash
# Fine-tune the shipped inverter on your own texts, and see what it was worth on texts held out from them:
#     examples/finetune.sh my_texts.txt runs/mine
# my_texts.txt: a text a line. Takes minutes on two CPU cores; UPDATES changes how many, BATCH how many texts each
# learns from, SHARE how much is held out to choose the best weights, and again how much to measure them.
set -euo pipefail
if [ $# -ne 2 ]; then
    echo "usage: examples/finetune.sh my_texts.txt runs/mine    # a text a line; the folder of the new inverter" >&2
    exit 2
fi
TEXTS=$1 OUT=$2 MODEL=${MODEL:-checkpoints/embinv-minilm} UPDATES=${UPDATES:-150} SHARE=${SHARE:-0.1} BATCH=${BATCH:-64}
LENGTH=$(python -c "import json, sys; print(json.load(open(sys.argv[1]))['max_sequence_length'])" "$MODEL/config.json")

embinv prepare "$TEXTS" --out "$OUT/pairs" --length "$LENGTH" --max-tokens $((LENGTH - 1)) --validation-share "$SHARE" \
    --test-share "$SHARE"
python - "$OUT/pairs" "$SHARE" "$BATCH" <<'END'
import json, sys
folder, share, batch = sys.argv[1:]
rows = json.load(open(f"{folder}/manifest.json"))["rows"]
if not (rows["validation"] and rows["test"]):
    sys.exit(f"SHARE={share} held out too few texts (validation: {rows['validation']}, test: {rows['test']}): delete "
             f"{folder} and raise SHARE, or give more texts.")
if rows["train"] < int(batch):
    sys.exit(f"{rows['train']} texts are left to train on, fewer than BATCH={batch}: lower BATCH, or give more texts.")
END
embinv evaluate --pairs "$OUT/pairs" --split test --model "$MODEL" --limit 500 --training-pairs "$OUT/pairs"
accelerate launch --config_file accelerate_configs/cpu.yaml train.py configs/fine_tune.yaml --init-from "$MODEL" \
    --pairs "$OUT/pairs" --output-dir "$OUT" --max-sequence-length "$LENGTH" --max-steps "$UPDATES" --batch-size "$BATCH"
embinv calibrate "$OUT/pairs" --model "$OUT/best" || true  # where all tokens are right, or all wrong, nothing is fitted
embinv evaluate --pairs "$OUT/pairs" --split test --model "$OUT/best" --limit 500 --training-pairs "$OUT/pairs"
