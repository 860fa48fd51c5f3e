import subprocess
import sys
from pathlib import Path

from irnet_hpc.console import ExitStatus
from irnet_hpc.doctor import cli
from irnet_hpc.doctor.report import GROUPS
from tests.doctor.test_cluster import NO_CLUSTER

ROOT = Path(__file__).parents[2]


def test_a_users_mistake_is_one_sentence_and_status_2(put_on_path):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "irnet_hpc.doctor", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)

    unknown = run("--site", "nowhere")
    assert unknown.returncode == ExitStatus.USER_ERROR
    assert "'nowhere'" in unknown.stderr and unknown.stderr.count("\n") == 1
    put_on_path(scontrol=NO_CLUSTER)
    no_cluster = run("--slurm", "--only", "machine")
    assert no_cluster.returncode == ExitStatus.USER_ERROR and "--slurm" in no_cluster.stderr
    assert run("--only", "nothing").returncode == ExitStatus.USER_ERROR


def test_a_warning_has_a_line_below_it_with_a_command_to_type(put_on_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "9999")
    assert cli.main(["--only", "machine"]) in (ExitStatus.OK, ExitStatus.FAILED)
    lines = capsys.readouterr().out.splitlines()
    (place,) = (n for n, line in enumerate(lines) if line.startswith("warning  threads"))
    assert lines[place + 1].strip().startswith("-> unset OMP_NUM_THREADS")
    assert lines[-2].startswith("7 checks in ") and " warning" in lines[-2]
    assert lines[-1].endswith("next: python -m irnet_hpc.pack --source alloys") or (
        "when that is corrected" in lines[-1]
    )


def test_the_column_of_names_holds_the_longest_name():
    names = [check.name for group in GROUPS.values() for check in group] + ["two nodes"]
    assert max(map(len, names)) == cli.NAME_WIDTH
