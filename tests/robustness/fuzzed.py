"""Read spoiled files as the commands do, in a process of its own, which may die.

    python tests/robustness/fuzzed.py KIND FOLDER FIRST N    spoil and read N times, from FIRST on

If FIRST is 0, a fork writes the sound files first: the process that reads has not made them. It
prints a line of JSON a file: its number and the outcome (same, read, refused, or the
traceback); and at the end by how much the memory grew. A file that takes longer than LIMIT_S ends
the process with the traceback of where it hangs.
"""

import faulthandler
import json
import os
import resource
import sys
import traceback
from pathlib import Path

from irnet_hpc.errors import UserError
from tests.robustness import (
    fuzzed_packs,
    fuzzed_runs,
    fuzzed_structures,
    fuzzed_sweeps,
    fuzzed_tables,
)
from tests.robustness.kinds import Kind

LIMIT_S = 600
ROOM = 2**30  # bytes of address space above what the process has at the start
KINDS: dict[str, Kind] = {
    **fuzzed_packs.KINDS,
    **fuzzed_runs.KINDS,
    **fuzzed_structures.KINDS,
    **fuzzed_sweeps.KINDS,
    **fuzzed_tables.KINDS,
}


def outcome(kind: Kind, folder: Path, sound: object) -> dict:
    """Read a spoiled file and say what came of it."""
    try:
        read = kind.read(folder)
    except UserError as error:
        message = str(error)
        is_sentence = message and "\n" not in message
        return {"is": "refused" if is_sentence else "no sentence", "said": message}
    except OSError as error:
        return {"is": "refused" if error.strerror else "broken", "said": str(error)}
    except BaseException:
        return {"is": "broken", "said": traceback.format_exc()[-3000:]}
    if kind.exact and read != sound:
        return {"is": "wrong", "said": f"{read} instead of {sound}"[:500]}
    return {"is": "same" if kind.exact else "read", "said": ""}


def make(kind: Kind, folder: Path) -> None:
    """Write the sound files in a process of its own, which starts with the libraries loaded."""
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"the sound files were not written, status {status}")
        return
    status = 1
    try:
        kind.make(folder)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def main() -> None:
    kind, folder = KINDS[sys.argv[1]], Path(sys.argv[2])
    first, n = map(int, sys.argv[3:])
    if first == 0:
        make(kind, folder)
    for path in folder.rglob("*.sound"):  # another process may have died with one of them spoiled
        path.with_suffix("").write_bytes(path.read_bytes())
    sound = kind.read(folder) if kind.exact else None
    outcome(kind, folder, sound)  # whatever is imported is imported now
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, resource.RLIM_INFINITY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(first, first + n):
        print(json.dumps({"number": number}), flush=True)
        faulthandler.dump_traceback_later(LIMIT_S, exit=True)
        kind.spoil(folder, number)
        print(json.dumps({"number": number} | outcome(kind, folder, sound)), flush=True)
    faulthandler.cancel_dump_traceback_later()
    print(
        json.dumps(
            {"grown_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
