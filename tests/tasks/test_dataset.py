"""KernelBench's levels from the Hugging Face dataset, against a hub on loopback."""

import json
import os
import subprocess
import sys
import threading
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = "data/level_1-00000-of-00001.parquet"
SOURCE = "class Model: ...\ndef get_inputs(): ...\ndef get_init_inputs(): ...\n"
PROGRAM = """
import sys
from kbopt.core.errors import UserError
from kbopt.tasks import load_task
try:
    task = load_task(sys.argv[1])
except UserError as error:
    sys.exit(str(error))
print(task.family)
print(task.source, end="")
"""


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download of one dataset asks for."""

    parquet_bytes = b""
    requests: list[str]

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.requests.append(f"{self.command} {self.path}")
        path = self.path.split("?")[0]
        if path.startswith("/api/datasets/ScalingIntelligence/KernelBench"):
            about = {
                "id": "ScalingIntelligence/KernelBench",
                "sha": COMMIT,
                "siblings": [{"rfilename": FILE}],
            }
            files = [{"type": "file", "path": FILE, "size": len(self.parquet_bytes), "oid": "0" * 40}]
            self._send(json.dumps(files if "/tree/" in path else about).encode(), "application/json")
        elif path.startswith("/datasets/ScalingIntelligence/KernelBench/resolve/") and path.endswith(FILE):
            self._send(self.parquet_bytes, "application/octet-stream")
        else:
            self.send_error(404)

    def _send(self, body, kind):
        self.send_response(200)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "X-Repo-Commit": COMMIT}
        for name, value in {**headers, "ETag": f'"{sha256(body).hexdigest()}"'}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path):
    table = {"code": [f"N = 1\n{SOURCE}", f"N = 23\n{SOURCE}"], "problem_id": [1, 23], "level": [1, 1]}
    parquet.write_table(arrow.table(table), tmp_path / "level.parquet")
    handler = type(
        "ThisHub", (Hub,), {"parquet_bytes": (tmp_path / "level.parquet").read_bytes(), "requests": []}
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def load(name, cache, port):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "KBOPT_"))}
    environment |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    command = [sys.executable, "-c", PROGRAM, name]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)


def test_a_level_is_downloaded_once_and_then_read_without_the_network(hub, tmp_path):
    port = hub.server_address[1]
    cache = tmp_path / "cache"

    first = load("level1/23", cache, port)

    assert first.stdout == f"softmax\nN = 23\n{SOURCE}", first.stderr
    assert [path for path in hub.RequestHandlerClass.requests if path.startswith("GET /datasets/")]
    hub.shutdown()
    hub.server_close()
    assert load("level1/1", cache, port).stdout == f"matmul/nn\nN = 1\n{SOURCE}"


def test_a_problem_that_the_dataset_lacks_is_answered_with_those_it_has(hub, tmp_path):
    done = load("level1/24", tmp_path / "cache", hub.server_address[1])

    assert done.returncode == 1
    assert "no problem level1/24 in the dataset ScalingIntelligence/KernelBench" in done.stderr
    assert "the problems 1, 23." in done.stderr


def test_a_level_that_the_dataset_lacks_is_named(hub, tmp_path):
    done = load("level3/1", tmp_path / "cache", hub.server_address[1])

    assert "the dataset ScalingIntelligence/KernelBench has no level 3" in done.stderr


def test_offline_and_uncached_names_both_ways_to_get_the_levels(tmp_path):
    done = load("level1/1", tmp_path / "cache", 9)

    assert done.returncode == 1
    assert "--kernelbench DIR or KBOPT_KERNELBENCH" in done.stderr
    assert "go online once" in done.stderr
    assert "Traceback" not in done.stderr
