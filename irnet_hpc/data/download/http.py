"""Send requests to a service over HTTP, with limits, checks and retries.

No other module imports requests. This one uses a single connection, a User-Agent that names the
project, time-outs and verified TLS. A transient failure (a lost connection, an incomplete answer, a
server error, too many requests) is retried. The waits between attempts grow, or are as long as the
service asks (Retry-After, RFC 9110, section 10.2.3). Other failures become a one-sentence error.

urllib3's own Retry is not used, because it covers only the headers. Whether an answer is complete
and of the right kind is known only after its body has been read.

    IRNET_OFFLINE=1        forbids the network
    IRNET_TIMEOUT_S=60     how long a service may be silent
    IRNET_BACKOFF_S=2      how long the first wait is; each further one is twice as long
"""

import contextlib
import datetime
import email.utils
import itertools
import logging
import math
import os
import random
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from irnet_hpc import __version__
from irnet_hpc.errors import UserError

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)
T = TypeVar("T")
USER_AGENT = (
    f"irnet_hpc/{__version__} "
    "(tables for materials informatics; one connection, waits between requests)"
)
# Unpacked bytes. The pages that we request are far smaller; in memory a page takes twenty times
# its size.
MAX_PAGE_BYTES = 64 * 2**20
# Bytes that are unpacked and counted at a time. They stay few even if an answer is a bomb, which
# grows a thousandfold when unpacked.
CHUNK = 64 * 2**10
MAX_REASON_CHUNKS = 16  # of the body of a refusal, which are read for its reason
# Statuses that another attempt may avoid, besides every 5xx.
TRANSIENT_STATUSES = (408, 425, 429)


class HttpLimits(NamedTuple):
    """Times, in seconds, and the number of attempts."""

    silence_s: float = 60.0  # after this long without data, the connection counts as lost
    backoff_s: float = 2.0  # wait before the second attempt; it doubles for each further attempt
    attempts: int = 6
    connect_s: float = 15.0
    answer_s: float = 1800.0  # for one whole answer, however slowly it arrives
    max_wait_s: float = 900.0  # the longest wait that a service may ask for

    @property
    def pause_s(self) -> float:
        """Return the pause between requests, which leaves the service time for other users."""
        return self.backoff_s / 8


class Connection(NamedTuple):
    """An open session and its limits."""

    session: "requests.Session"
    limits: HttpLimits


class RefusedError(UserError):
    """Signal that a service refuses a request, as with 404: another attempt would not help."""

    def __init__(self, problem: str, status: int, reason: str = ""):
        super().__init__(problem)
        self.status = status
        self.reason = reason  # in the service's own words, if it gives one


class TransientError(Exception):
    """Signal a failure that may not happen again at the next attempt.

    The service may ask for a wait of `wait_s` seconds before that attempt.
    """

    def __init__(self, problem: str, wait_s: float = 0.0):
        super().__init__(problem)
        self.wait_s = wait_s


def http_limits() -> HttpLimits:
    """Read limits from the environment, else take the defaults. Raises UserError if one is bad."""
    stated: dict[str, float] = {}
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
    return HttpLimits(**stated)  # type: ignore[arg-type]  # no key is that of attempts


@contextlib.contextmanager
def connect() -> Iterator[Connection]:
    """Open a session that uses a single connection."""
    import requests

    with requests.Session() as session:
        adapter = requests.adapters.HTTPAdapter(
            pool_connections=1, pool_maxsize=1, max_retries=0, pool_block=True
        )
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        session.headers["User-Agent"] = USER_AGENT
        yield Connection(session, http_limits())


def get(
    connection: Connection,
    url: str,
    accept: Callable[[bytes], T],
    max_bytes: int = MAX_PAGE_BYTES,
    explain: Callable[[bytes], str] | None = None,
) -> T:
    """Request an address until `accept` can parse the answer, or the attempts are used up.

    Args:
        connection: from `connect`.
        url: the address.
        accept: parses the body. It raises ValueError if the body is not the expected answer.
        max_bytes: the largest size allowed for the unpacked body.
        explain: finds the reason in the body of a refusal; empty if there is none.

    Returns:
        What `accept` returns.

    Raises:
        RefusedError: if the service refuses.
        UserError: if no attempt succeeds.
    """

    def attempt() -> T:
        headers = {"Accept-Encoding": "gzip, deflate", "Accept": "application/json"}
        with open_response(connection, url, headers, explain) as response:
            if response.status_code != 200:
                raise TransientError(f"answers {status_of(response)}")
            body = b"".join(body_chunks(connection, response, url, max_bytes))
        try:
            return accept(body)
        except (ValueError, RecursionError) as error:
            raise TransientError(
                f"sends an answer of the wrong form ({error}), which begins {body[:60]!r}"
            ) from None

    return retry(connection, url, attempt)


def check_url(url: str, name: str = "--url") -> None:
    """Check the address that a user gives for a service, as `name`.

    Raises UserError if it cannot be used.
    """
    rule = f"{name} must be http:// or https://, a host and a path"
    try:
        parts = urllib.parse.urlsplit(url)
        is_sound = (
            parts.scheme in ("http", "https")
            and parts.hostname
            and not parts.query
            and not parts.fragment
        )
    except ValueError:
        raise UserError(f"{rule}, got {url!r}") from None
    # The address is written down beside the table, where no password should stand.
    if "@" in parts.netloc:
        raise UserError(f"{rule}; a name and a password for it belong in ~/.netrc")
    if not is_sound:
        raise UserError(f"{rule}, got {url!r}")


def is_offline() -> bool:
    """Tell whether IRNET_OFFLINE forbids the network."""
    return os.environ.get("IRNET_OFFLINE", "") not in ("", "0")


def retry(connection: Connection, url: str, attempt: Callable[[], T]) -> T:
    """Call `attempt` until it succeeds. Raises UserError if the last attempt fails, too.

    Only a TransientError leads to another attempt.
    """
    if is_offline():
        raise UserError(
            f"IRNET_OFFLINE forbids the network, which {url} would need; "
            "unset it, or bring the table here"
        )
    n_attempts = connection.limits.attempts
    for number in range(1, n_attempts + 1):
        try:
            return attempt()
        except TransientError as error:
            failure = error
        if number < n_attempts:
            # Jitter: clients that lost a service at the same moment should not return together.
            backoff_s = connection.limits.backoff_s * 2 ** (number - 1) * random.uniform(0.5, 1)
            wait_s = max(failure.wait_s, backoff_s)
            logger.info(
                "%s %s; attempt %d of %d in %.3g s",
                _host(url), failure, number + 1, n_attempts, wait_s,
            )  # fmt: skip
            time.sleep(wait_s)
    raise UserError(f"{url} {failure}, {n_attempts} times; the same command resumes from here")


@contextlib.contextmanager
def open_response(
    connection: Connection,
    url: str,
    headers: dict[str, str],
    explain: Callable[[bytes], str] | None = None,
) -> Iterator["requests.Response"]:
    """Send a request, and yield the response before its body is read.

    Arguments are those of `get`.

    Raises:
        TransientError: if the request, or reading the body, fails in a way that another attempt may
            avoid.
        UserError: for all other failures.
    """
    from requests import exceptions

    timeout = (connection.limits.connect_s, connection.limits.silence_s)
    failure = "cannot be reached"
    try:
        with connection.session.get(url, headers=headers, timeout=timeout, stream=True) as response:
            failure = "breaks off"
            _check_encrypted(url, response)
            _check_status(connection, url, response, explain)
            yield response
    except exceptions.SSLError as error:
        raise UserError(
            f"{url} has no valid certificate ({_root_cause(error)}); "
            "give another address with --url"
        ) from None
    except exceptions.Timeout:
        raise TransientError(f"is silent for {timeout[1]:g} s") from None
    except (
        exceptions.ConnectionError,
        exceptions.ChunkedEncodingError,
        exceptions.ContentDecodingError,
    ) as error:
        # requests raises a ConnectionError if the service falls silent within a body.
        if "timed out" in _root_cause(error):
            raise TransientError(f"is silent for {timeout[1]:g} s") from None
        raise TransientError(f"{failure}: {_root_cause(error)}") from None
    except exceptions.RequestException as error:
        raise UserError(
            f"{url} cannot be fetched: {_root_cause(error)}; give another address with --url"
        ) from None
    except ValueError as error:
        # requests and urllib3 do not wrap some errors: a chunk of -5 bytes, a redirect to http://[
        raise TransientError(f"{failure}: {_root_cause(error)}") from None


def _check_encrypted(url: str, response: "requests.Response") -> None:
    """Refuse a redirect from https to http."""
    addresses = [step.url for step in (*response.history, response)]
    plain = [address for address in addresses if not address.startswith("https:")]
    if url.startswith("https:") and plain:
        raise UserError(
            f"{url} redirects to {plain[0]}, which is not encrypted; "
            "give another address with --url"
        )


def _check_status(
    connection: Connection,
    url: str,
    response: "requests.Response",
    explain: Callable[[bytes], str] | None,
) -> None:
    status = response.status_code
    if status >= 500 or status in TRANSIENT_STATUSES:
        wait_s = _retry_after(response) if status in (429, 503) else 0.0
        max_wait_s = connection.limits.max_wait_s
        if wait_s > max_wait_s:
            raise UserError(
                f"{url} answers {status_of(response)} and asks to wait {wait_s:,.0f} s, "
                f"more than {max_wait_s:g} s; repeat the command after that time to resume"
            )
        raise TransientError(f"answers {status_of(response)}", wait_s)
    if status >= 400 and status != 416:
        start = itertools.islice(response.iter_content(CHUNK), MAX_REASON_CHUNKS)
        reason = explain(b"".join(start)) if explain else ""
        rest = f": {reason}" if reason else "; give the service's present address with --url"
        raise RefusedError(f"{url} answers {status_of(response)}{rest}", status, reason)


def status_of(response: "requests.Response") -> str:
    """Return the status and its reason, such as `404 Not Found`."""
    return printable_line(f"{response.status_code} {response.reason}")


def _retry_after(response: "requests.Response") -> float:
    """Return the number of seconds that the service asks to wait; 0 if it does not ask.

    A date is compared with the service's own clock.
    """
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


def body_chunks(
    connection: Connection, response: "requests.Response", url: str, max_bytes: int
) -> Iterator[bytes]:
    """Yield the unpacked body in chunks.

    Raises:
        UserError: if the body has more than `max_bytes` bytes.
        TransientError: if the body is incomplete or takes too long.
    """
    began, n_bytes = time.monotonic(), 0
    for chunk in response.iter_content(CHUNK):
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise UserError(
                f"{url} sends more than {max_bytes / 2**20:,.0f} MiB, "
                "which is more than any correct answer"
            )
        if time.monotonic() - began > connection.limits.answer_s:
            raise TransientError(
                f"takes more than {connection.limits.answer_s:g} s over one answer"
            )
        yield chunk
    # Older versions of urllib3 accept a body that is shorter than stated.
    stated = response.headers.get("Content-Length", "")
    if stated.isdigit() and response.raw.tell() < int(stated):
        raise TransientError(f"breaks off: {response.raw.tell():,} of {int(stated):,} bytes")


def _root_cause(error: BaseException) -> str:
    """Return the text of the innermost error in a chain of errors, which is the clearest one."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return printable_line(str(error))[:200] or type(error).__name__


def printable_line(text: str) -> str:
    """Return text from a service as one line, without control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _host(url: str) -> str:
    return url.split("/")[2] if url.count("/") >= 2 else url
