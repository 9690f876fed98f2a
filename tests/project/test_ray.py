"""The example for a cluster, on a local Ray of two workers."""

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import pipeline

from modeling_embinv.training.backbone import prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from tests.hub.tiny_folder import new_tiny_inverter
from tests.tiny_models import unit_vectors

if importlib.util.find_spec("ray") is None:  # each process would import it, and none needs it
    pytest.skip("Ray has no wheel for this Python", allow_module_level=True)

ROOT = Path(__file__).parents[2]
ROWS, WORKER = 60, "ray::MapWorker(MapBatches(Inverter))"
DRIVER = """
import runpy, sys, ray
ray.init(num_cpus=3, object_store_memory=80_000_000, include_dashboard=False, _temp_dir=sys.argv.pop(1))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def cluster():
    """Starts Ray with arguments of the example; nothing of it is left behind."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # sockets lie in it, whose paths must be short
    environment = os.environ | {
        "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_AUTH_MODE": "disabled", "RAY_prestart_worker_first_driver": "0",  # workers that nobody asks for
        # one process reads the few footers, and none ends after an idle second, only to be started anew
        "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1", "RAY_idle_worker_killing_time_threshold_ms": "600000",
    }  # fmt: skip
    started = []

    def start(*arguments) -> subprocess.Popen:
        command = [sys.executable, "-c", DRIVER, str(folder / "r"), "examples/invert_with_ray.py"]
        with (folder / "log").open("w") as log:
            started.append(subprocess.Popen(
                [*command, *map(str, arguments)], cwd=ROOT, env=environment, stdout=log, stderr=log,
            ))  # fmt: skip
        return started[-1]

    start.log = folder / "log"
    yield start
    for driver in started:
        own = [driver, *(psutil.Process(driver.pid).children(recursive=True) if driver.poll() is None else [])]
        for process in own:
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def workers(driver: subprocess.Popen) -> dict[int, str]:
    """The processes of the actors, and what each does."""
    found = {}
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            found[process.pid] = process.cmdline()[0]
        except (psutil.Error, IndexError):  # it has ended meanwhile
            continue
    return {pid: title for pid, title in found.items() if title.startswith(WORKER)}


def test_columns_of_the_input_are_kept(encoder, tmp_path):
    """An input column `text` was replaced by the recovered one: the originals to compare with were lost."""
    model = export(new_tiny_inverter(encoder.tokenizer), prepare_tokenizer(encoder.tokenizer), tmp_path / "model")
    inverter = runpy.run_path(str(ROOT / "examples" / "invert_with_ray.py"))["Inverter"](str(model), "quick", "vector")
    vectors, texts = unit_vectors(2).numpy(), np.array(["a", "b"])
    plain = inverter({"vector": vectors, "id": texts})
    assert set(plain) == {"id", "text", "confidence"}
    found = inverter({"vector": vectors, "text": texts, "recovered_text": texts[::-1]})
    assert set(found) == {"text", "recovered_text", "recovered_recovered_text", "confidence"}
    assert found["text"].tolist() == ["a", "b"] and found["recovered_text"].tolist() == ["b", "a"]
    assert found["recovered_recovered_text"].tolist() == plain["text"].tolist()


def test_rows_are_not_added_to_those_of_an_earlier_run(tmp_path):
    """Run twice, the example wrote each row twice."""
    (tmp_path / "part.parquet").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "examples/invert_with_ray.py", tmp_path, tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and "holds files already" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_killed_worker_loses_no_row(encoder, tmp_path, cluster):
    """An actor that is killed takes its batch with it, or its rows are written twice; texts that slip to other ids."""
    model = export(new_tiny_inverter(encoder.tokenizer), prepare_tokenizer(encoder.tokenizer), tmp_path / "model")
    vectors = unit_vectors(ROWS).numpy()
    (tmp_path / "in").mkdir()
    for start in range(0, ROWS, 4):
        part = pa.array(list(vectors[start : start + 4]), pa.list_(pa.float32()))
        table = pa.table({"ticket": [f"T-{row}" for row in range(start, start + 4)], "embedding": part})
        pq.write_table(table, tmp_path / "in" / f"{start}.parquet")
    driver = cluster(tmp_path / "in", tmp_path / "out", "--model", model, "--preset", "quick", "--batch-size", 1)
    victim = None
    while driver.poll() is None and victim is None:
        actors = workers(driver)
        busy = [pid for pid, title in actors.items() if title.endswith(".submit")]
        if len(actors) == 2 and busy:
            victim = psutil.Process(busy[0])
            victim.kill()
        time.sleep(0.1)
    assert victim is not None, cluster.log.read_text()[-3000:]
    assert driver.wait(900) == 0, cluster.log.read_text()[-3000:]
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert sorted(row["ticket"] for row in rows) == sorted(f"T-{row}" for row in range(ROWS))
    invert = pipeline("embedding-inversion", model=str(model), trust_remote_code=True)
    expected = invert(vectors, preset="quick")
    for row in rows:
        own = expected[int(row["ticket"].removeprefix("T-"))]
        assert row["text"] == own["text"] and row["confidence"] == pytest.approx(own["confidence"], abs=1e-4)
