"""Hold that journals are read as far as they go, in their order."""

import json
import os
import socket

import pytest

from irnet_hpc.distributed.processes import process_name
from irnet_hpc.sweep import journal


def test_a_journal_cut_short_by_a_kill_is_read_as_far_as_it_goes(place):
    path = journal.begin(place.results, "mine", "local", process_name(os.getpid()))
    place_name = str(place.run_folder("plain-10").relative_to(place.results))
    journal.note(path, [{"cell": place_name}])
    with path.open("a") as file:
        file.write('{"cell": "some')
    assert place.states()["plain-10"] == "queued"
    assert place.states()["plain-17"] == "missing"


def test_the_last_submission_is_the_last_though_a_clock_was_set_back(place, slurm):
    name = str(place.run_folder("plain-10").relative_to(place.results))
    first = journal.begin(
        place.results, "mine", "slurm", token="feed", events=[{"cell": name, "job": "1"}]
    )
    first.rename(first.with_name("29990101T000000.000000-feed.jsonl"))
    journal.begin(place.results, "mine", "slurm", token="beef", events=[{"cell": name, "job": "2"}])
    (slurm.folder / "queue").write_text("2|PENDING|Priority|irnet:mine|beef\n")
    assert (
        place.details()["plain-10"] == "job 2 (Priority)" and place.states()["plain-10"] == "queued"
    )


ODD_LINES = (
    '"cell"',
    "7",
    "[" * 3000,
    '{"cell": ["x"], "job": "1"}',
    '{"cell": "NAME", "process": 7}',
    '{"cell": "NAME", "log": []}',
)


@pytest.mark.parametrize("line", ODD_LINES)
def test_a_line_of_a_journal_that_is_not_ours_says_nothing(place, line):
    path = journal.begin(place.results, "mine", "local", process_name(os.getpid()))
    name = str(place.run_folder("plain-10").relative_to(place.results))
    with path.open("a") as file:
        file.write(
            line.replace("NAME", str(place.run_folder("plain-17").relative_to(place.results)))
            + "\n"
        )
    journal.note(path, [{"cell": name}])
    assert place.states()["plain-10"] == "queued" and place.states()["plain-17"] == "missing"
    head = {"cluster": "local", "host": socket.gethostname(), "driver": [line]}
    path.with_name("20260101T000000.000000-odd.jsonl").write_text(json.dumps(head))
    assert place.sweep("prune", "--yes") == 0
