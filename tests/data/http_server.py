"""A real HTTP server on loopback that answers as the documented services do, faults included."""

import gzip
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import NamedTuple

# The environment of who asks: without much patience.
FAST = {
    "IRNET_OFFLINE": "",
    "IRNET_BACKOFF_S": "0.02",
    "IRNET_TIMEOUT_S": "0.5",
    "NO_PROXY": "127.0.0.1",
}


class Answer(NamedTuple):
    body: bytes
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    cut: int | None = (
        None  # bytes after which the connection is closed, whatever Content-Length says
    )
    wait_s: float = 0.0  # before the first byte


class Request(NamedTuple):
    path: str
    time: float  # monotonic
    headers: dict[str, str]


class Loopback:
    """Serve `answer(path with query)`; `faults[n]` changes the answer to request n, from 0."""

    def __init__(self, answer: Callable[[str, dict[str, str]], Answer]):
        self.answer = answer
        self.faults: dict[int, Callable[[Answer], Answer]] = {}
        self.requests: list[Request] = []
        self.completed: list[str] = []  # paths of the answers that were sent to their end
        self.hold = threading.Event()  # set: requests are answered
        self.hold.set()
        self.hold_from = 10**9  # request number, from which on they wait for `hold`
        self.lock = threading.Lock()
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                loopback.respond(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        with self.lock:
            number = len(self.requests)
            self.requests.append(Request(handler.path, time.monotonic(), dict(handler.headers)))
        answer = self.answer(handler.path, dict(handler.headers))
        if number in self.faults:
            answer = self.faults[number](answer)
        if number >= self.hold_from:
            self.hold.wait(60)
        time.sleep(answer.wait_s)
        try:
            handler.send_response(answer.status)
            headers = {
                "Content-Type": "application/json",
                "Content-Length": str(len(answer.body)),
                **answer.headers,
            }
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(answer.body[: answer.cut])
            handler.wfile.flush()
            if answer.cut is not None:
                handler.close_connection = True
            else:
                self.completed.append(handler.path)
        except OSError:
            handler.close_connection = True  # the client is gone

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()


def pages(paths: list[str]) -> list[int]:
    """The offsets, or page numbers, of requests."""
    found = [re.search(r"offset=(\d+)|paging\((\d+)", urllib.parse.unquote(path)) for path in paths]
    return [int(place[1] or place[2]) for place in found]


class Oqmd:
    """Answer as https://static.oqmd.org/static/docs/restful.html says."""

    def __init__(self, rows: list[dict], most: int = 10**9):
        self.rows, self.most, self.total = rows, most, None

    def __call__(self, path: str, _: dict[str, str]) -> Answer:
        split = urllib.parse.urlsplit(path)
        if split.path != "/oqmdapi/formationenergy":
            return Answer(b"<html>Not Found</html>", 404)
        asked = {key: value[0] for key, value in urllib.parse.parse_qs(split.query).items()}
        fields, limit, offset = (
            asked["fields"].split(","),
            min(int(asked["limit"]), self.most),
            int(asked["offset"]),
        )
        found = [
            {field: row[field] for field in fields} for row in self.rows[offset : offset + limit]
        ]
        total = len(self.rows) if self.total is None else self.total
        answer = {
            "links": {
                "next": None,
                "previous": None,
                "base_url": {"href": "x", "meta": {"_oqmd_version": "1.0"}},
            },
            "resource": {},
            "data": found,
            "meta": {
                "query": {"representation": path},
                "api_version": "1.0",
                "time_stamp": "2019-10-08 15:13:12",
                "data_returned": len(found),
                "data_available": total,
                "comments": "",
                "query_tree": "",
                "more_data_available": offset + limit < total,
            },
            "response_message": "OK",
        }
        return Answer(json.dumps(answer).encode())


class Aflux:
    """Answer as AFLUX does to `paging`; without `named` by a list, as to `$paging`."""

    def __init__(self, rows: list[dict], named: bool, most: int = 10**9):
        self.rows, self.named, self.most = rows, named, most

    def __call__(self, path: str, _: dict[str, str]) -> Answer:
        summons = urllib.parse.unquote(urllib.parse.urlsplit(path).query)
        page, size = map(
            int, re.search(r",paging\((\d+),(\d+)\),\$format\(json\)$", summons).groups()
        )
        size = min(size, self.most)
        assert summons.startswith("auid,compound,"), "entries are sorted by the first keyword"
        start = (page - 1) * size
        found = self.rows[start : start + size]
        if not self.named:
            return Answer(json.dumps(found).encode())
        keys = [f"{start + place} of {len(self.rows)}" for place in range(1, len(found) + 1)]
        return Answer(json.dumps(dict(zip(keys, found, strict=True))).encode())


class Files:
    """A file server that knows ranges, unless `ranges` is false."""

    def __init__(self, files: dict[str, bytes], ranges: bool = True):
        self.files, self.ranges = files, ranges

    def __call__(self, path: str, headers: dict[str, str]) -> Answer:
        if path not in self.files:
            return Answer(b"no such file", 404)
        body = self.files[path]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range", ""))
        if not asked or not self.ranges:
            return Answer(body, headers={"Content-Type": "application/gzip"})
        begin, end = int(asked[1]), min(int(asked[2] or len(body)), len(body) - 1)
        if begin >= len(body):
            return Answer(b"", 416)
        return Answer(
            body[begin : end + 1], 206, {"Content-Range": f"bytes {begin}-{end}/{len(body)}"}
        )


def packed(answer: Answer) -> Answer:
    return answer._replace(body=gzip.compress(answer.body), headers={"Content-Encoding": "gzip"})


# CsCl: 73.2 Å³ over two atoms.
CSCL = {
    "name": "CsCl",
    "entry_id": 1,
    "delta_e": -2.05739610121138,
    "stability": -0.0125,
    "band_gap": 5.255,
    "natoms": 2,
    "volume": 73.2,
    "unit_cell": [[4.1822, 0, 0], [0, 4.1822, 0], [0, 0, 4.1822]],
    "sites": ["Cs @ 0 0 0", "Cl @ 0.5 0.5 0.5"],
}
METALS = ("Li", "Na", "K", "Rb", "Mg", "Ca", "Sr", "Ba", "Zn", "Cd")


def some_rows(count: int) -> list[dict]:
    """CsCl, and others that are like it but for formula, id and energy."""
    names = [f"{metal}{other}" for other in ("Cl", "Br", "I", "F", "O", "S") for metal in METALS]
    rest = [
        CSCL | {"name": names[n], "entry_id": n + 2, "delta_e": -1 - n / 100}
        for n in range(count - 1)
    ]
    return [CSCL, *rest]
