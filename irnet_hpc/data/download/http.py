"""Fetching: answers over HTTP, asked for politely, checked, bounded, and asked for again where that may help.

The only module that imports requests. One connection, a User-Agent that names the project, time-outs, TLS verified; what
may pass (a lost connection, a cut answer, a server error, too many requests) is tried again after waits that grow or that
the service names (Retry-After, RFC 9110, section 10.2.3). Anything else is one sentence.

    IRNET_OFFLINE=1        forbids the network
    IRNET_TIMEOUT_S=60     how long a service may be silent
    IRNET_BACKOFF_S=2      how long the first wait is; each further one is twice as long
"""

import contextlib
import datetime
import email.utils
import hashlib
import math
import os
import random
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tqdm import tqdm

from irnet_hpc import __version__
from irnet_hpc.errors import UserError

if TYPE_CHECKING:
    import requests


T = TypeVar("T")
USER_AGENT = f"irnet_hpc/{__version__} (tables for materials informatics; one connection, waits between requests)"
LARGEST_PAGE = (
    64 * 2**20
)  # bytes, unpacked; a page of ours has a few, and becomes twenty times as many in memory
CHUNK = (
    64 * 2**10
)  # bytes; even a bomb of a thousand times its size stays small until it has been counted
PASSING = (408, 425, 429)  # and every 5xx: statuses that another attempt may not meet


class Manners(NamedTuple):
    """How long to wait for what. Seconds."""

    silence_s: float = 60.0  # without a byte, after which the connection counts as lost
    backoff_s: float = 2.0  # before the second attempt; twice as long before each further one
    attempts: int = 6
    connect_s: float = 15.0
    answer_s: float = 1800.0  # for one whole answer, however steadily it drips
    longest_wait_s: float = 900.0  # that a service may ask for

    @property
    def pause_s(self) -> float:
        """Between two answers, so that a service has room for others."""
        return self.backoff_s / 8


class Connection(NamedTuple):
    session: "requests.Session"
    manners: Manners


class Passing(Exception):
    """A failure that another attempt may not meet; `wait_s` is what the service asks for."""

    def __init__(self, problem: str, wait_s: float = 0.0):
        super().__init__(problem)
        self.wait_s = wait_s


def manners() -> Manners:
    """The defaults, or as the environment says. Raises UserError."""
    stated = {}
    for field, variable in (("silence_s", "IRNET_TIMEOUT_S"), ("backoff_s", "IRNET_BACKOFF_S")):
        if text := os.environ.get(variable):
            try:
                stated[field] = float(text)
            except ValueError:
                stated[field] = math.nan
            if not 0 < stated[field] <= 3600:
                raise UserError(
                    f"{variable} must be a number of seconds above 0, at most 3600, got {text!r}"
                )
    return Manners(**stated)


@contextlib.contextmanager
def connect() -> Iterator[Connection]:
    """A session of one connection."""
    import requests

    with requests.Session() as session:
        adapter = requests.adapters.HTTPAdapter(
            pool_connections=1, pool_maxsize=1, max_retries=0, pool_block=True
        )
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        session.headers["User-Agent"] = USER_AGENT
        yield Connection(session, manners())


def get(
    connection: Connection, url: str, accept: Callable[[bytes], T], largest: int = LARGEST_PAGE
) -> T:
    """What `accept` makes of the answer, which is at most `largest` bytes unpacked.

    `accept` raises ValueError for an answer that is not what was asked for, which is then asked for again. Raises UserError
    where nothing helps.
    """

    def attempt() -> T:
        with answer(
            connection, url, {"Accept-Encoding": "gzip, deflate", "Accept": "application/json"}
        ) as response:
            if response.status_code != 200:
                raise Passing(f"answers {status_of(response)}")
            body = b"".join(chunks(connection, response, url, largest))
        try:
            return accept(body)
        except (ValueError, RecursionError) as error:
            raise Passing(
                f"answers what was not asked for ({error}); it begins {body[:60]!r}"
            ) from None

    return persistently(connection, url, attempt)


def say(text: str) -> None:
    """Print a line, at once, and above a progress bar where there is one."""
    tqdm.write(text)
    sys.stdout.flush()


def check_url(url: str) -> None:
    """Raises UserError where what a user gives as the address of a service cannot be one."""
    rule = "--url must be http:// or https://, a host and a path"
    try:
        parts = urllib.parse.urlsplit(url)
        sound = (
            parts.scheme in ("http", "https")
            and parts.hostname
            and not parts.query
            and not parts.fragment
        )
    except ValueError:
        raise UserError(f"{rule}, got {url!r}") from None
    if "@" in parts.netloc:  # it would be written down with the table
        raise UserError(f"{rule}; a name and a password for it belong in ~/.netrc")
    if not sound:
        raise UserError(f"{rule}, got {url!r}")


def forbidden() -> bool:
    """Whether IRNET_OFFLINE forbids the network."""
    return os.environ.get("IRNET_OFFLINE", "") not in ("", "0")


def persistently(connection: Connection, url: str, attempt: Callable[[], T]) -> T:
    """`attempt()`, as often as manners allow."""
    if forbidden():
        raise UserError(
            f"IRNET_OFFLINE forbids the network, which {url} would need; unset it, or bring the table here"
        )
    most = connection.manners.attempts
    for number in range(1, most + 1):
        try:
            return attempt()
        except Passing as failure:
            problem, asked_s = failure, failure.wait_s
        if (
            number < most
        ):  # jitter: those whom a service lost at one moment should not come back at one moment
            wait_s = max(
                asked_s, connection.manners.backoff_s * 2 ** (number - 1) * random.uniform(0.5, 1)
            )
            say(f"{_host(url)} {problem}; attempt {number + 1} of {most} in {wait_s:.3g} s")
            time.sleep(wait_s)
    raise UserError(f"{url} {problem}, {most} times; the same command, later, goes on from here")


@contextlib.contextmanager
def answer(
    connection: Connection, url: str, headers: dict[str, str]
) -> Iterator["requests.Response"]:
    """An answer whose body is still to come. Raises Passing or UserError, also for what goes wrong while it is read."""
    from requests import exceptions

    timeout = (connection.manners.connect_s, connection.manners.silence_s)
    failure = "cannot be reached"
    try:
        with connection.session.get(url, headers=headers, timeout=timeout, stream=True) as response:
            failure = "breaks off"
            ways = [way.url for way in (*response.history, response)]
            if url.startswith("https:") and (
                open_ways := [way for way in ways if not way.startswith("https:")]
            ):
                raise UserError(
                    f"{url} leads to {open_ways[0]}, which is not encrypted; give another address with --url"
                )
            _check_status(connection, url, response)
            yield response
    except exceptions.SSLError as error:
        raise UserError(
            f"{url} does not prove who it is ({_cause(error)}); give another address with --url"
        ) from None
    except exceptions.Timeout:
        raise Passing(f"is silent for {timeout[1]:g} s") from None
    except (
        exceptions.ConnectionError,
        exceptions.ChunkedEncodingError,
        exceptions.ContentDecodingError,
    ) as error:
        if "timed out" in _cause(error):  # which is what requests makes of silence within a body
            raise Passing(f"is silent for {timeout[1]:g} s") from None
        raise Passing(f"{failure}: {_cause(error)}") from None
    except exceptions.RequestException as error:
        raise UserError(
            f"{url} cannot be fetched: {_cause(error)}; give another address with --url"
        ) from None
    except ValueError as error:  # which requests and urllib3 let through: a chunk of -5 bytes, a redirect to http://[
        raise Passing(f"{failure}: {_cause(error)}") from None


def _check_status(connection: Connection, url: str, response: "requests.Response") -> None:
    status = response.status_code
    if status >= 500 or status in PASSING:
        wait_s = _retry_after(response) if status in (429, 503) else 0.0
        longest = connection.manners.longest_wait_s
        if wait_s > longest:
            raise UserError(
                f"{url} answers {status_of(response)} and asks to wait {wait_s:,.0f} s, more than {longest:g} s; "
                "the same command after that goes on from here"
            )
        raise Passing(f"answers {status_of(response)}", wait_s)
    if status >= 400 and status != 416:
        raise UserError(
            f"{url} answers {status_of(response)}; give the service's present address with --url"
        )


def status_of(response: "requests.Response") -> str:
    return plain(f"{response.status_code} {response.reason}")


def _retry_after(response: "requests.Response") -> float:
    """Seconds that the service asks to wait: a number of them, or a date, which is read by the service's own clock."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    with contextlib.suppress(TypeError, ValueError):
        until = email.utils.parsedate_to_datetime(text)
        now = datetime.datetime.now(datetime.UTC)
        with contextlib.suppress(TypeError, ValueError):
            now = email.utils.parsedate_to_datetime(response.headers.get("Date", ""))
        return max(0.0, (until - now).total_seconds())
    return 0.0


def chunks(
    connection: Connection, response: "requests.Response", url: str, largest: int
) -> Iterator[bytes]:
    """The body, unpacked. Raises UserError above `largest` bytes, Passing where it is cut or takes too long."""
    began, n_bytes = time.monotonic(), 0
    for chunk in response.iter_content(CHUNK):
        n_bytes += len(chunk)
        if n_bytes > largest:
            raise UserError(
                f"{url} answers more than {largest / 2**20:,.0f} MiB, which no answer of it should have"
            )
        if time.monotonic() - began > connection.manners.answer_s:
            raise Passing(f"takes more than {connection.manners.answer_s:g} s over one answer")
        yield chunk
    stated = response.headers.get("Content-Length", "")
    if stated.isdigit() and response.raw.tell() < int(
        stated
    ):  # which older versions of urllib3 let pass
        raise Passing(f"breaks off: {response.raw.tell():,} of {int(stated):,} bytes")


def _cause(error: BaseException) -> str:
    """The last and plainest of a chain of errors."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return plain(str(error))[:200] or type(error).__name__


def plain(text: str) -> str:
    """What a service said, as it may be shown on a terminal: one line, and nothing that steers it."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _host(url: str) -> str:
    return url.split("/")[2] if url.count("/") >= 2 else url


def beginning(connection: Connection, url: str, n_bytes: int) -> tuple[bytes, int | None]:
    """The first bytes of a file, and its size where the service says it."""

    def attempt() -> tuple[bytes, int | None]:
        headers = {"Accept-Encoding": "identity", "Range": f"bytes=0-{n_bytes - 1}"}
        with answer(connection, url, headers) as response:
            body = next(response.iter_content(n_bytes), b"")
            size = response.headers.get(
                "Content-Range" if response.status_code == 206 else "Content-Length", ""
            )
            size = size.rpartition("/")[2]
            return body, int(size) if size.isdigit() else None

    return persistently(connection, url, attempt)


def save(connection: Connection, url: str, path: Path, sha256: str, largest: int) -> None:
    """Fetch a file. It appears under its name when it is whole and has this hash; until then it is `<name>.part`.

    What is there of it is not fetched again where the service offers ranges (RFC 9110, section 14). Raises UserError.
    """
    part = path.with_name(f"{path.name}.part")

    def attempt() -> None:
        there = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={there}-"} if there else {})
        with answer(connection, url, headers) as response:
            if (
                response.status_code == 416
            ):  # there is nothing behind what is there: it is whole, or not of this file
                return
            if response.status_code not in (200, 206):
                raise Passing(f"answers {status_of(response)}")
            goes_on = response.status_code == 206
            if goes_on and not response.headers.get("Content-Range", "").startswith(
                f"bytes {there}-"
            ):
                part.unlink()
                raise Passing(
                    f"answers another range than asked for: {plain(response.headers.get('Content-Range', ''))!r}"
                )
            there = there if goes_on else 0
            stated = response.headers.get("Content-Length", "")
            total = there + int(stated) if stated.isdigit() else None
            bar = tqdm(
                total=total, initial=there, unit="B", unit_scale=True, disable=None
            )  # None: only on a terminal
            with part.open("ab" if goes_on else "wb") as file, bar:
                for chunk in chunks(connection, response, url, largest - there):
                    file.write(chunk)
                    bar.update(len(chunk))
                file.flush()
                os.fsync(file.fileno())

    resumed = part.exists()
    persistently(connection, url, attempt)
    found = file_hash(part)
    if found != sha256 and resumed:  # the beginning was of another file, or went bad
        part.unlink()
        persistently(connection, url, attempt)
        found = file_hash(part)
    if found != sha256:
        part.unlink()
        raise UserError(
            f"{url} is not the file that was expected: its sha256 is {found}, not {sha256}; it has changed, or a mirror is wrong"
        )
    part.replace(path)


def file_hash(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
