"""Requests: faults that pass, waits, bounds, addresses, encryption."""

import email.utils
import json
import logging
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from irnet_hpc.data.download import http
from irnet_hpc.data.download.obtain import fetch
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from tests.data.download.services import in_pages_of, read
from tests.data.http_server import Answer, Oqmd, packed, pages, some_rows

ROOT = Path(__file__).parents[3]


def test_answers_may_be_packed(serve, tmp_path):
    service = Oqmd(some_rows(3))
    server = serve(lambda path, headers: packed(service(path, headers)))
    assert len(read(fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi"))) == 3
    assert "gzip" in server.requests[0].headers["Accept-Encoding"]


FAULTS = {
    "silent": lambda answer: answer._replace(wait_s=0.9),  # above the 0.5 s of FAST
    "a 500": lambda answer: Answer(b"oops", 500),
    "a 502 without a body": lambda answer: Answer(b"", 502),
    "cut before the headers' promise": lambda answer: answer._replace(cut=100),
    "cut at once": lambda answer: answer._replace(cut=0),
    "half of the JSON, with a fitting length": lambda answer: answer._replace(
        body=answer.body[:-40]
    ),
    "a chunk of negative length": lambda answer: answer._replace(
        body=b"-5\r\nx", headers={"Transfer-Encoding": "chunked"}, cut=6
    ),
    "a redirect to an address that is none": lambda answer: Answer(
        b"", 302, {"Location": "http://["}
    ),
    "more rows than there are": lambda answer: Answer(
        json.dumps(json.loads(answer.body) | {"data": json.loads(answer.body)["data"] * 2}).encode()
    ),
    "meta of another kind": lambda answer: Answer(
        json.dumps(json.loads(answer.body) | {"meta": [1]}).encode()
    ),
    "HTML instead of JSON": lambda answer: Answer(b"<html><body>maintenance</body></html>"),
    "JSON of another kind": lambda answer: Answer(b"[1, 2]"),
    "an empty page before the end": lambda answer: Answer(
        json.dumps(json.loads(answer.body) | {"data": []}).encode()
    ),
    "a page that lacks a row": lambda answer: Answer(
        json.dumps(json.loads(answer.body) | {"data": json.loads(answer.body)["data"][1:]}).encode()
    ),
    "packed, and cut": lambda answer: packed(answer)._replace(cut=60),
    "said to be packed, but is not": lambda answer: answer._replace(
        headers={"Content-Encoding": "gzip"}
    ),
    "nested too deep": lambda answer: Answer(b"[" * 100_000),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_may_pass_is_asked_for_again_and_the_table_is_whole(
    serve, tmp_path, monkeypatch, fault, caplog
):
    caplog.set_level(logging.INFO)
    in_pages_of(monkeypatch, 4)
    server = serve(Oqmd(some_rows(10)))
    server.faults[1] = FAULTS[fault]
    table = fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    assert [row["material_id"] for row in read(table)] == [f"oqmd-{n}" for n in range(1, 11)]
    assert pages([request.path for request in server.requests]) == [0, 4, 4, 8]
    assert "attempt 2 of 6" in caplog.text


def test_a_service_that_stays_broken_is_one_sentence_and_the_pages_so_far_are_kept(
    serve, tmp_path, monkeypatch
):
    in_pages_of(monkeypatch, 4)
    server = serve(Oqmd(some_rows(10)))
    server.faults |= dict.fromkeys(range(1, 7), FAULTS["a 500"])
    with pytest.raises(UserError, match=r"offset=4&format=json answers 500 .*, 6 times"):
        fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    assert not list(tmp_path.glob("*.csv.xz"))
    assert len(read(fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi"))) == 10
    assert pages(server.completed[7:]) == [4, 8]  # the first page was not fetched again


@pytest.mark.parametrize(
    ("status", "asked", "least_s"),
    [
        (429, lambda: "1", 1.0),
        (
            503,
            lambda: email.utils.formatdate(time.time() + 2, usegmt=True),
            1.0,
        ),  # in whole seconds: between 1 and 2
        (429, lambda: email.utils.formatdate(time.time() - 60, usegmt=True), 0.0),
    ],
)
def test_a_service_that_asks_to_wait_is_waited_for(serve, tmp_path, status, asked, least_s):
    server = serve(Oqmd(some_rows(2)))
    server.faults[0] = lambda answer: Answer(b"", status, {"Retry-After": asked()})
    fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    first, second = (request.time for request in server.requests)
    assert least_s <= second - first < least_s + 1.5


def test_a_service_that_asks_for_an_hour_is_not_waited_for(serve, tmp_path):
    server = serve(Oqmd(some_rows(2)))
    server.faults[0] = lambda answer: Answer(b"", 429, {"Retry-After": "3600"})
    with pytest.raises(
        UserError,
        match=r"answers 429 .* asks to wait 3,600 s, more than 900 s; repeat the command after",
    ):
        fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    assert len(server.requests) == 1


def test_a_service_that_asks_to_wait_no_time_is_not_asked_at_once(serve, tmp_path):
    server = serve(Oqmd(some_rows(2)))
    server.faults |= dict.fromkeys(range(4), lambda answer: Answer(b"", 429, {"Retry-After": "0"}))
    fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    times = [request.time for request in server.requests]
    assert times[4] - times[0] > 0.5 * 0.02 * (1 + 2 + 4 + 8)


def test_what_a_service_says_does_not_steer_the_terminal(serve, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    server = serve(Oqmd(some_rows(2)))
    server.faults[0] = lambda answer: Answer(b"\x1b[2J\n", 200)
    server.faults[1] = lambda answer: Answer(b"", 302, {"Location": "http://[\x1b[2J"})
    fetch(resolve_source("oqmd", tmp_path), server.url + "/oqmdapi")
    said = caplog.text
    assert "attempt 3 of 6" in said
    assert "\x1b" not in said


def test_waits_grow_and_are_not_all_alike(monkeypatch):
    waits = []
    monkeypatch.setattr(http.time, "sleep", waits.append)
    monkeypatch.delenv("IRNET_OFFLINE", raising=False)
    with (
        http.connect() as connection,
        pytest.raises(UserError, match=r"127\.0\.0\.1:9/ cannot be reached: .*, 6 times"),
    ):
        http.get(connection, "http://127.0.0.1:9/", bytes)  # nothing listens there
    assert len(waits) == 5
    for number, wait in enumerate(waits):
        assert (
            0.5 * 2 * 2**number <= wait <= 2 * 2**number
        )  # the backoff of 2 s, doubled, times 0.5 to 1


@pytest.mark.parametrize("bomb", [True, False])
def test_an_answer_that_is_too_large_is_not_taken_in(serve, tmp_path, monkeypatch, bomb):
    answer = Answer(b" " * 40 * 2**20)
    answer = (
        packed(answer) if bomb else answer
    )  # here, since it takes longer than the patience of FAST on a busy machine
    server = serve(lambda *_: answer)
    with (
        http.connect() as connection,
        pytest.raises(UserError, match="sends more than 4 MiB"),
    ):
        http.get(connection, server.url, bytes, max_bytes=4 * 2**20)
    assert len(server.requests) == 1


def test_an_answer_that_drips_for_ever_is_given_up(serve, monkeypatch):
    monkeypatch.setattr(http, "CHUNK", 16)
    server = serve(lambda *_: Answer(b" " * 1000))
    with (
        http.connect() as connection,
        pytest.raises(UserError, match="takes more than 0 s over one answer"),
    ):
        hasty = connection._replace(limits=connection.limits._replace(answer_s=0, attempts=2))
        http.get(hasty, server.url, bytes)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("oqmd.org", "--url must be http:// or https://, a host and a path, got 'oqmd.org'"),
        ("", "got ''"),
        ("file:///etc/passwd", "got 'file:///etc/passwd'"),
        ("http://[", r"got 'http://\['"),
        ("http://127.0.0.1:9/x?y=1", r"got 'http://127.0.0.1:9/x\?y=1'"),
        (
            "http://me:secret@127.0.0.1:9/x",
            "a host and a path; a name and a password for it belong in ~/.netrc$",
        ),
    ],
)
def test_an_address_that_is_none_is_one_sentence(serve, tmp_path, url, sentence):
    with pytest.raises(UserError, match=sentence):
        fetch(resolve_source("oqmd", tmp_path), url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value"), [("IRNET_TIMEOUT_S", "soon"), ("IRNET_BACKOFF_S", "-1")]
)
def test_a_wait_that_is_no_number_is_one_sentence(serve, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(
        UserError, match=f"{variable} must be a number of seconds above 0, at most 3600, got "
    ):
        http.http_limits()


@pytest.fixture
def encrypted(tmp_path, serve):
    """Start a server that speaks TLS with its own certificate; return it and the certificate."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("no openssl here to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 "
    command += "-addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )

    def start(answer):
        server = serve(answer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
        server.url = server.url.replace("http:", "https:")
        return server

    return start, certificate


def test_a_service_must_prove_who_it_is_and_may_not_lead_to_one_that_need_not(
    encrypted, serve, tmp_path, monkeypatch
):
    start, certificate = encrypted
    service = Oqmd(some_rows(3))
    server = start(service)
    with pytest.raises(
        UserError,
        match=r"has no valid certificate \(.*certificate.*\); give another address with --url",
    ):
        fetch(resolve_source("oqmd", tmp_path / "data"), server.url + "/oqmdapi")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert len(read(fetch(resolve_source("oqmd", tmp_path / "data"), server.url + "/oqmdapi"))) == 3
    plain = serve(service)
    leads = start(lambda path, _: Answer(b"", 302, {"Location": plain.url + path}))
    with pytest.raises(UserError, match=r"redirects to http://127\..*, which is not encrypted"):
        fetch(resolve_source("oqmd", tmp_path / "other"), leads.url + "/oqmdapi")
    back = serve(lambda path, _: Answer(b"", 302, {"Location": server.url + path}))
    leads = start(lambda path, _: Answer(b"", 302, {"Location": back.url + path}))
    with pytest.raises(
        UserError, match=r"redirects to http://127\..*, which is not encrypted"
    ):  # though it comes back
        fetch(resolve_source("oqmd", tmp_path / "other"), leads.url + "/oqmdapi")
