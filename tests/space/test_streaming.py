"""Work on a thread of its own."""

from pathlib import Path

ROOT = Path(__file__).parents[2]

ENDS = """
import sys
sys.path.insert(0, "space")
import streaming, torch

torch.set_num_threads(1)
watch, layer, x = streaming.Watch(), torch.nn.Linear(400, 400), torch.randn(400, 400)

def work(put):
    while True:
        watch.check()
        layer(x).softmax(-1)
        put("passed")

items = streaming.streamed(watch, work, "")
print(next(items))
"""


def test_python_ends_while_the_model_works(fresh):
    """A thread inside torch when Python ended aborted it: Ctrl-C of the Space left a core dump, not a prompt."""
    done = fresh.run(ENDS, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(False, 'passed')\n", "")
