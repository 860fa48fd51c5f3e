"""Run other programs with a time limit, and find the line that explains a failure."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

DEFAULT_LIMIT_S = 15.0
MAX_OUTPUT_BYTES = 1 << 20

_running: set[subprocess.Popen] = set()


class Answer(NamedTuple):
    """The output of a command, and in `trouble` why it failed (empty after exit status 0)."""

    out: str
    err: str
    trouble: str
    is_missing: bool = False  # there is no such program


def ask(
    command: Sequence[object],
    limit_s: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """Run a command and return its output; at the time limit, stop it and its descendants.

    The output is written to files. With pipes, this function would also wait for grandchildren that
    outlive the command.

    Args:
        command: The program and its arguments.
        limit_s: The time limit in seconds; None: `DEFAULT_LIMIT_S`.
        environment: The environment variables of the command; None: those of this process.

    Returns:
        The output, and the reason if the command failed.
    """
    words, limit_s = [str(word) for word in command], limit_s or DEFAULT_LIMIT_S
    name = Path(words[0]).name
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
            )
        except FileNotFoundError:
            return Answer("", "", f"there is no {name} on PATH", is_missing=True)
        except OSError as error:
            return Answer("", "", f"{name} cannot be run: {error.strerror}")
        _running.add(process)
        try:
            trouble = _describe_status(process.wait(limit_s))
        except subprocess.TimeoutExpired:
            trouble = f"did not answer within {limit_s:.0f} s"
        finally:
            stop(process)
        stdout, stderr = _read_output(out), _read_output(err)
    if trouble:
        why = telling_line(stderr) or telling_line(stdout)
        trouble = f"{name} {trouble}: {why}" if why else f"{name} {trouble}"
    return Answer(stdout, stderr, trouble)


def _read_output(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MAX_OUTPUT_BYTES).decode(errors="replace")


def _describe_status(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}" if status else ""


def telling_line(output: str) -> str:
    """Find the line of an output that best explains a failure.

    This is a line about an error: the last one if the output has a traceback, otherwise the first
    one. If no line is about an error, it is the first line. Lines that ranks wrote are preferred to
    lines of launchers, which only report that a rank failed.
    """
    of_ranks = re.findall(r"^\[\d+\]<std(?:out|err)>:(.*)", output, re.MULTILINE)
    # Only lines whose first word has a letter or digit: this drops rulers and quoted code.
    lines = [line for line in of_ranks or output.splitlines() if re.match(r"\S*\w", line)]
    lines = [line for line in lines if not is_launcher_line(line)] or lines
    errors = [line for line in lines if re.search(r"error|fatal|what\(\)", line, re.IGNORECASE)]
    if errors:
        line = errors[-1 if "Traceback" in output else 0]
    else:
        line = lines[0] if lines else ""
    return " ".join(line.split())[:300]


def is_launcher_line(line: str) -> bool:
    """Return True if a line was written by SLURM's launcher and not by a rank."""
    return line.startswith(("srun:", "slurmstepd"))


def stop(process: subprocess.Popen) -> None:
    """Stop a command and its descendants with SIGTERM, then SIGKILL. Wait at most a few seconds."""
    if process.poll() is None:
        descendants = []
        with contextlib.suppress(Exception):  # without psutil, only the process group is stopped
            import psutil

            # The ranks of horovodrun have sessions of their own.
            descendants = psutil.Process(process.pid).children(recursive=True)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
        for descendant in descendants:
            with contextlib.suppress(Exception):
                descendant.kill()
        if descendants:
            psutil.wait_procs(descendants, 2)  # they end a moment after the signal
    _running.discard(process)


def stop_all() -> None:
    """Stop the commands that are still running because their check exceeded its time limit."""
    for process in list(_running):
        stop(process)
