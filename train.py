"""Train an embedding inverter.

accelerate launch --config_file accelerate_configs/cpu.yaml train.py configs/minilm_32.yaml --max-steps 20000
"""

import sys

from modeling_embinv.cli import train_command

if __name__ == "__main__":
    sys.exit(train_command())
