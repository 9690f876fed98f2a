#!/usr/bin/env bash
# Fine-tune the shipped inverter on your own texts, and see what it was worth on texts held out from them:
#     examples/finetune.sh my_texts.txt runs/mine
# my_texts.txt: a text a line. Takes minutes on two CPU cores; UPDATES and SHARE change how many and how much is held out.
set -euo pipefail
TEXTS=$1 OUT=$2 MODEL=${MODEL:-checkpoints/embinv-minilm} UPDATES=${UPDATES:-300} SHARE=${SHARE:-0.05}
LENGTH=$(python -c "import json, sys; print(json.load(open(sys.argv[1]))['max_sequence_length'])" "$MODEL/config.json")

embinv prepare "$TEXTS" --out "$OUT/pairs" --length "$LENGTH" --max_tokens $((LENGTH - 1)) --validation_share "$SHARE"
embinv evaluate --pairs "$OUT/pairs" --model "$MODEL" --limit 500 --training_pairs "$OUT/pairs"
accelerate launch --config_file accelerate_configs/cpu.yaml train.py --init_from "$MODEL" --pairs "$OUT/pairs" \
    --encoder minilm --output_dir "$OUT" --max_sequence_length "$LENGTH" --max_steps "$UPDATES" \
    --batch_size 64 --learning_rate 1e-4 --embedding_rate 0.1 --warmup_steps 20 --loss_weight none \
    --full_mask_share 0.15 --ema_decay 0.98 --eval_steps 100 --save_steps 50
embinv evaluate --pairs "$OUT/pairs" --model "$OUT/best" --limit 500 --training_pairs "$OUT/pairs"
