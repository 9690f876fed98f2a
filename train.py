"""Train an embedding inverter.

accelerate launch --config_file accelerate_configs/cpu.yaml train.py configs/minilm_32.yaml --max_steps 20000
"""

import sys

from modeling_embinv.training.assemble import train
from modeling_embinv.training.config import parse_training_config

if __name__ == "__main__":
    try:
        train(parse_training_config(sys.argv[1:]))
    except (ValueError, OSError) as error:
        sys.exit(f"train.py: {error}")
