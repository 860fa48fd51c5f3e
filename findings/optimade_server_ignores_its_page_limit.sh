#!/usr/bin/env bash
# optimade 1.5.0: the reference server ignores `page_limit` of its configuration, "Default number of resources per page". A
# request without page_limit gets 20 entries, the default that the query parameter itself has in the code, so the configured
# number never acts. `page_limit_max` does act: below 20, every request without page_limit is refused (403).
#
# Seen: with page_limit=5 a request gets all 17 entries of the test data; with page_limit_max=10 as well, the same request is
# answered 403.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check "optimade[server]==1.5.0" fastapi==0.165.0
cd "$folder"
NO_PROXY=127.0.0.1 OPTIMADE_LOG_LEVEL=critical "$folder/venv/bin/python" - 2>server.log <<'EOF'
import json
import socket
import threading
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

import uvicorn
from optimade.server import data
from optimade.server.config import ServerConfig
from optimade.server.create_app import create_app


def answer(**settings) -> tuple[int, int]:
    """Return the status and the number of entries of a request that states no page_limit."""
    config = ServerConfig(insert_test_data=False, log_dir=Path("log"), **settings)
    app = create_app(config)
    app.state.entry_collections["structures"].collection.drop()
    app.state.entry_collections["structures"].insert(
        [{**one, "id": one["task_id"]} for one in ENTRIES]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/structures"
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            return response.status, len(json.load(response)["data"])
    except urllib.error.HTTPError as error:
        return error.code, 0


ENTRIES = [{key: one[key] for key in one if key != "_id"} for one in data.structures]
few, fewer = answer(page_limit=5), answer(page_limit=5, page_limit_max=10)
print(version("optimade"), len(ENTRIES), few, fewer)
assert len(ENTRIES) == 17
assert few == (200, 17)
assert fewer[0] == 403
EOF
