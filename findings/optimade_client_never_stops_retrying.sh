#!/usr/bin/env bash
# optimade 1.5.0 (with httpx2 2.16.2): `max_attempts` of OptimadeClient, the maximum number of times to repeat a failing query, is
# not kept. The count of attempts is set to 0 again before each request, so it never exceeds 1. The client asks again every second
# whatever Retry-After says, for as long as the service answers 429 Too Many Requests.
#
# Seen: with max_attempts=1, a service that answers 429 with `Retry-After: 60` to the first four requests is asked five times
# within 60 s, and get() returns the structure of the fifth answer without an error.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check "optimade[http-client]==1.5.0" httpx2==2.16.2
cd "$folder"
NO_PROXY=127.0.0.1 "$folder/venv/bin/python" - <<'EOF'
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

from optimade.client import OptimadeClient

REFUSALS = 4
times = []


class Service(BaseHTTPRequestHandler):
    def do_GET(self):
        times.append(time.monotonic())
        is_refused = len(times) <= REFUSALS
        entry = {"id": "a", "type": "structures", "attributes": {}}
        answer = {"data": [entry], "meta": {"data_available": 1}, "links": {"next": None}}
        body = b"{}" if is_refused else json.dumps(answer).encode()
        self.send_response(429 if is_refused else 200)
        self.send_header("Content-Length", str(len(body)))
        if is_refused:
            self.send_header("Retry-After", "60")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
client = OptimadeClient(base_urls=[url], max_attempts=1, use_async=False, silent=True)
found = client.get()["structures"][""][url]
print(version("optimade"), len(times), round(times[-1] - times[0], 1), found["errors"])
assert len(times) == REFUSALS + 1
assert times[-1] - times[0] < 60
assert [entry["id"] for entry in found["data"]] == ["a"] and not found["errors"]
EOF
