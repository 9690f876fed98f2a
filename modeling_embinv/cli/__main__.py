"""`python -m modeling_embinv.cli`, as torchrun needs it."""

import sys

from . import command

sys.exit(command())
