import psutil
import pytest

from irnet_hpc.doctor.commands import ask, telling_line


def test_a_command_is_stopped_with_all_its_descendants(tmp_path):
    """Also a grandchild in a session of its own, which holds the output open."""
    before = {process.pid for process in psutil.process_iter()}
    script = f"setsid sleep 987 & echo begun; echo $$ >{tmp_path}/pid; sleep 987"
    answer = ask(["sh", "-c", script], 2.0)
    assert answer.trouble and answer.out == "begun\n"
    alive = {
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["cmdline"] == ["sleep", "987"]
        and process.info["status"] != psutil.STATUS_ZOMBIE
    }
    assert not alive - before


def test_what_went_wrong_with_a_command_is_named(tmp_path):
    (tmp_path / "broken").write_text("no program")
    (tmp_path / "broken").chmod(0o755)
    missing = ask(["no-such-command"])
    assert missing.is_missing and "no-such-command" in missing.trouble
    assert "Exec format error" in ask([tmp_path / "broken"]).trouble
    failed = ask(["sh", "-c", "echo first; echo 'sh: error: why' >&2; exit 3"])
    assert "status 3" in failed.trouble and failed.trouble.endswith("sh: error: why")
    assert "SIGSEGV" in ask(["sh", "-c", "kill -SEGV $$"]).trouble
    assert ask(["true"]).trouble == ""


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (
            "one\nsbatch: error: Batch job submission failed\nthree",
            "sbatch: error: Batch job submission failed",
        ),
        (
            "Traceback (most recent call last):\n  raise ValueError(x)\nValueError: two\n",
            "ValueError: two",
        ),
        (
            "[0]<stderr>:ImportError: no\n[1]<stdout>:\nRuntimeError: some process exited",
            "ImportError: no",
        ),
        ("0: step\nsrun: error: n2: task 1: Killed", "0: step"),
        ("srun: error: Unable to allocate", "srun: error: Unable to allocate"),
        ("-----\nmpirun has detected root.\nMore words.\n-----", "mpirun has detected root."),
        ("", ""),
    ],
)
def test_the_line_that_explains_a_failure_is_found_among_many(output, line):
    assert telling_line(output) == line
