"""bin/vulnerabilities beside a local server that speaks as osv.dev does."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not (_ROOT / "build/pip-audit/bin/pip-audit").exists(),
    reason="bin/vulnerabilities has not installed pip-audit, or cannot",
)


class _Osv(BaseHTTPRequestHandler):
    """Knows of one weakness: of sunflower before 1.3."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        package = {"name": "sunflower", "ecosystem": "PyPI"}
        events = [{"introduced": "0"}, {"fixed": "1.3"}]
        ranges = [{"type": "ECOSYSTEM", "events": events}]
        known = {"id": "PYSEC-1", "affected": [{"package": package, "ranges": ranges}]}
        hit = asked["package"]["name"] == "sunflower" and asked["version"] == "1.2"
        answer = json.dumps({"vulns": [known]} if hit else {}).encode()
        self.send_response(500 if asked["package"]["name"] == "unlucky" else 200)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Osv) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        server.shutdown()


def _look(folder: Path, service: str, pins: str) -> tuple[int, str]:
    requirements = folder / "requirements.txt"
    requirements.write_text(pins)
    done = subprocess.run(
        [_ROOT / "bin/vulnerabilities", requirements],
        env=os.environ | {"OSV_URL": service},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_nothing_is_known(tmp_path: Path, service: str) -> None:
    said = "vulnerabilities: 0 of 2 packages have known ones.\n"
    assert _look(tmp_path, service, "sunflower==1.3\nrose==2.0\n") == (0, said)


def test_a_vulnerability_fails(tmp_path: Path, service: str) -> None:
    code, said = _look(tmp_path, service, "rose==2.0\nsunflower==1.2\n")
    assert code == 1
    assert said.splitlines() == [
        "vulnerabilities: sunflower 1.2: PYSEC-1, mended in 1.3",
        "vulnerabilities: 1 of 2 packages have known ones.",
    ]


@pytest.mark.parametrize(("pins", "there"), [("rose==2.0\n", False), ("unlucky==1.0\n", True)])
def test_no_answer_is_told_in_a_line(tmp_path: Path, service: str, pins: str, there: bool) -> None:
    address = service if there else "http://127.0.0.1:9/v1/query"
    code, said = _look(tmp_path, address, pins)
    assert code == 0
    assert said.startswith(f"vulnerabilities: not looked for: no answer from {address} (")
    assert said.count("\n") == 1


def test_a_file_that_is_no_list_of_pins_is_an_error(tmp_path: Path, service: str) -> None:
    code, said = _look(tmp_path, service, "rose>=2.0\n")
    assert code == 2
    assert "rose" in said
