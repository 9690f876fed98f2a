"""The Space under load: the memory of its server over many requests, and how long many clients wait.

    python benchmarks/space_load.py --json benchmarks/results/space_load.json    # about half an hour

A thousand requests one after the other, then 32 clients with five requests each, none of which waits in between; all
of the quick preset of the tab Recover. Then the requests of `mixed`, which use all tabs, in turn.

They go to the released checkpoint, over HTTP. The server is a process of its own. Memory is what it holds (VmRSS, MB)
after the first 20 requests, which fill caches, and after every 50 more; of mixed ones after each tab's second request,
and after every turn. The CPU seconds are the server's. What clients wait depends on what else the machine does, which
`load` says.
"""

import argparse
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from result_file import result_file

from modeling_embinv.data.files import write_json

ROOT = Path(__file__).parents[1]
WARM_UP, EVERY = 20, 50  # requests before the first figure, and between two
MIXED_WARM_UP = 2  # turns
WORDS = ("dog", "king", "teacher", "letter", "garden", "storm", "doctor", "bridge", "song", "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--each", type=int, default=5, help="requests of each client")
    parser.add_argument("--turns", type=int, default=80, help="times that each of the mixed requests is made")
    parser.add_argument("--json", type=result_file, help="write the figures to this file")
    args = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen([sys.executable, str(ROOT / "space" / "app.py")], env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url)
        found = {"load": os.getloadavg()[0], "cores": len(os.sched_getaffinity(0))}
        found["memory"] = memory_over(url, server.pid, args.requests)
        before = cpu_seconds(server.pid)
        found |= {"clients": args.clients, **waits(url, args.clients, args.each)}
        found["cpu_s_a_request"] = round((cpu_seconds(server.pid) - before) / (args.clients * args.each), 3)
        found["memory_after_clients"] = memory(server.pid)
        found["mixed_memory"] = mixed_memory_over(url, server.pid, args.turns)
    finally:
        server.terminate()
        server.wait()
    print(json.dumps(found, indent=2))
    if args.json:
        write_json(args.json, found)


def wait_for(url: str) -> None:
    """Until the server answers."""
    while True:
        try:
            httpx.get(url)
            return
        except httpx.ConnectError:
            time.sleep(1)


def memory(pid: int) -> float:
    """MB that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)


def cpu_seconds(pid: int) -> float:
    """That a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_over(url: str, pid: int, requests: int) -> dict[int, float]:
    """Number of requests → MB, at every `EVERY` of them."""
    found = {}
    for number in range(1, WARM_UP + requests + 1):
        ask(url, number)
        if number >= WARM_UP and (number - WARM_UP) % EVERY == 0:
            found[number - WARM_UP] = memory(pid)
    return found


def waits(url: str, clients: int, each: int) -> dict[str, float]:
    """Seconds of a request among many clients: median and 95th percentile; and how many failed."""

    def visit(client: int) -> list[float]:
        return [ask(url, client * each + number) for number in range(each)]

    with ThreadPoolExecutor(clients) as pool:
        seconds = sorted(one for part in pool.map(visit, range(clients)) for one in part)
    good = [one for one in seconds if one >= 0]
    last = good[int(0.95 * (len(good) - 1))]
    return {"median_s": round(statistics.median(good), 2), "p95_s": round(last, 2), "failed": len(seconds) - len(good)}


def mixed_memory_over(url: str, pid: int, turns: int) -> dict[int, float]:
    """Number of turns of the mixed requests → MB."""
    found = {}
    for turn in range(1, MIXED_WARM_UP + turns + 1):
        for name, data in mixed(turn).items():
            if request(url, name, data) < 0:
                raise SystemExit(f"the request {name} failed in turn {turn}.")
        if turn >= MIXED_WARM_UP:
            found[turn - MIXED_WARM_UP] = memory(pid)
    return found


def mixed(number: int) -> dict[str, list[Any]]:
    """A request of each tab, other texts for each number."""
    text, other = sentence(number), sentence(7 * number + 3)
    vector = [round(math.sin(number * place), 4) for place in range(1, 385)]
    return {
        "recover": [text, "standard", ("surrogate", "encoder")[number % 2]],
        "redacted": [text, [text.split()[1]], "surrogate"],
        "leaks": [f"{text}\n{other}", 0.01 * (number % 3), "int8", "384", "quick"],
        "vectors": [json.dumps([vector]), None, "quick", "surrogate"],
        "compare": [text, 4, number],
        "mix": [text, other, 3],
    }


def sentence(number: int) -> str:
    """Another one for each number."""
    return f"The {WORDS[number % 10]} and the {WORDS[number // 10 % 10]} met {number} times."


def ask(url: str, number: int) -> float:
    """Seconds until the answer to a sentence of this number; -1 where it is an error."""
    return request(url, "recover", [sentence(number), "quick", "surrogate"])


def request(url: str, name: str, data: list[Any]) -> float:
    """Seconds until an endpoint's answer; -1 where it is an error."""
    start = time.perf_counter()
    with httpx.Client(timeout=600) as client:
        event = client.post(f"{url}/gradio_api/call/{name}", json={"data": data}).json()
        answer = client.get(f"{url}/gradio_api/call/{name}/{event['event_id']}").text
    return time.perf_counter() - start if "event: complete" in answer else -1.0


if __name__ == "__main__":
    main()
