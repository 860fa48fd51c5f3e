"""RunFolder reads what a run has left, also where it is older than its fields or damaged."""

import json

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.files import exclusive, read_json
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.state_names import Cause

YESTERDAY, TODAY = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
JAN_1 = 1767225600.0  # by `date`


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def test_an_empty_folder_has_nothing(folder):
    assert folder.result() is folder.error() is folder.spec() is folder.lease() is None
    assert folder.history() == [] and not folder.has_checkpoint()
    assert RunFolder(folder.path / "none").names() == frozenset()


def test_an_error_comes_back_with_its_cause_and_leaves_no_lease(folder):
    folder.write_error("a sentence", Cause.TIME)
    error = folder.error()
    assert (error.message, error.cause) == ("a sentence", Cause.TIME)
    assert read_json(folder.error_json)["cause"] == "time"
    assert folder.lease() is None


@pytest.mark.parametrize("cause", ["unheard of", 7, None, ["time"]])
def test_an_unknown_cause_is_other(folder, cause):
    folder.error_json.write_text(json.dumps({"error": "out of memory", "cause": cause}))
    assert folder.error().cause == Cause.OTHER


def test_an_error_of_an_earlier_attempt_counts_as_none(folder):
    folder.error_json.write_text(json.dumps({"error": "old", "time": YESTERDAY}))
    assert folder.error().time == JAN_1
    assert folder.error(since=JAN_1).message == "old"
    assert folder.error(since=JAN_1 + 1) is None


def test_a_damaged_error_file_is_an_error_of_any_time(folder):
    folder.error_json.write_text("{")
    assert folder.error(since=JAN_1).cause == Cause.OTHER


def test_a_result_that_is_none_is_refused(folder):
    folder.result_json.write_text("{}")
    with pytest.raises(UserError):
        folder.result()


def test_a_lock_whose_holder_removed_its_folder_is_taken_anew(tmp_path):
    """The file that was locked has no name any more: another process would lock a new one."""
    lock_file = tmp_path / "work/lock"
    with exclusive(lock_file):
        inode = lock_file.stat().st_ino
        lock_file.unlink()
        lock_file.parent.rmdir()
        with exclusive(lock_file, remove=True):
            assert lock_file.exists() and inode
    assert not lock_file.exists()


def test_a_waiting_process_may_give_up_and_learns_the_holder(tmp_path):
    def refuse(holder: str) -> None:
        raise UserError(holder)

    with (
        exclusive(tmp_path / "lock"),
        pytest.raises(UserError, match=r"process [0-9]+ on "),
        exclusive(tmp_path / "lock", refuse),
    ):
        raise AssertionError
