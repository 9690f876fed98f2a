"""Python processes of their own that begin with torch imported, and nothing of Hugging Face or of this package.

Importing torch takes most of a process' first seconds. One process does it for all tests; each test's
own is forked from it, with its own environment, folder and output.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

# the child leaves the loop, and what it is to run is the last line of the script, so that it ends as a script does
SERVER = """
import gc, json, os, signal, sys
gc.disable()  # it would look through all that is imported, again and again; these processes end soon
sys.modules["triton"] = None  # as in builds for CPUs: it writes what it leaks at the end of a forked process
import scipy.optimize
import torch._dynamo, torch.distributed.checkpoint, torch.distributed.tensor, torch.export
assert not {"transformers", "huggingface_hub", "modeling_embinv"} & set(sys.modules)
gc.freeze()  # nor at the end
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
signal.alarm(600)
os.chdir(job["cwd"])
os.environ.clear()
os.environ.update(job["env"])
for number, name in enumerate((os.devnull, *job["output"])):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
sys.argv = ["-c", *job["arguments"]]
exec(compile(job["code"], "<string>", "exec"), {"__name__": "__main__"})
"""
# what `embinv` does
COMMAND = "import sys\nfrom modeling_embinv.cli import command\nsys.exit(command())"


class FreshProcesses:
    """Runs code in processes that are forked from one.

    Args:
        folder: where the outputs are kept.
    """

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0
        command = [sys.executable, "-c", SERVER]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(
        self, code: str, *arguments: str, cwd: Path, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess:
        """As `python -c code arguments`, with output captured as text."""
        self.count += 1
        output = [self.folder / f"{self.count}.{name}" for name in ("out", "err")]
        job = {"code": code, "arguments": arguments, "cwd": str(cwd), "env": dict(os.environ if env is None else env),
               "output": [str(path) for path in output]}  # fmt: skip
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        status = int(self.server.stdout.readline())
        return subprocess.CompletedProcess(code, status, *(path.read_text() for path in output))

    def close(self):
        """End the process that the others are forked from."""
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.wait()
