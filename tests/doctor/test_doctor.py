"""The doctor's verdicts: on real machinery where there is some, and on commands and files that are broken on purpose."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from irnet_hpc.distributed.engines import Alone
from irnet_hpc.doctor import cli as doctor
from irnet_hpc.doctor import cluster, engine, machine
from irnet_hpc.doctor import filesystem as place
from irnet_hpc.doctor import probes as child
from irnet_hpc.doctor.checks import Check, Settings, ask, examine, ok, reason
from tests.slurm.test_slurm import absent

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(tmp_path / "results", "0123abcd")


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Puts scripts on PATH, before or instead of what is there; each is a line of shell."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(alone: bool = False, **scripts: str) -> None:
        for name, line in scripts.items():
            path = folder / name
            path.write_text(f"#!/bin/sh\n{line}\n")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder) if alone else f"{folder}:{os.environ['PATH']}")

    cluster.configuration.cache_clear()
    for variable in ("IRNET_SITE", "IRNET_SRUN_ARGS", "SLURM_JOB_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("IRNET_STATE", str(tmp_path / "state"))
    yield put
    cluster.configuration.cache_clear()


def run(capsys, *arguments: object) -> tuple[int, dict[str, dict]]:
    """Exit status, and check -> its verdict; whatever is wrong comes with a command to type."""
    status = doctor.main([*map(str, arguments), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["would_run"] == (status == 0)
    for verdict in found["checks"].values():
        assert verdict["found"] and (verdict["todo"] or verdict["level"] in ("ok", "note"))
    return status, found["checks"]


# ------------------------------------------------------------------------------------- what is asked cannot hang or crash us


def test_a_command_is_ended_with_all_that_it_started_where_it_does_not_answer(tmp_path):
    before = {process.pid for process in psutil.process_iter()}
    # The grandchild has left for a session of its own, and holds the output.
    answer = ask(
        ["sh", "-c", f"setsid sleep 987 & echo said; echo $$ >{tmp_path}/pid; sleep 987"], 0.5
    )
    assert answer.trouble == "sh did not answer within 0 s: said" and answer.out == "said\n"
    left = [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] == ["sleep", "987"]
    ]
    assert (
        not {process.pid for process in left if process.status() != psutil.STATUS_ZOMBIE} - before
    )


def test_a_command_that_is_not_there_fails_or_is_killed_is_part_of_a_sentence(tmp_path):
    (tmp_path / "broken").write_text("no program")
    (tmp_path / "broken").chmod(0o755)
    assert ask(["no-such-command"]).trouble == "there is no no-such-command on PATH"
    assert ask([tmp_path / "broken"]).trouble == "broken cannot be run: Exec format error"
    assert (
        ask(["sh", "-c", "echo first; echo 'sh: error: why' >&2; exit 3"]).trouble
        == "sh ended with status 3: sh: error: why"
    )
    assert ask(["sh", "-c", "kill -SEGV $$"]).trouble == "sh was ended by SIGSEGV"
    assert ask(["true"]).trouble == ""


@pytest.mark.parametrize(
    ("said", "line"),
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
def test_of_many_lines_the_telling_one_is_shown(said, line):
    assert reason(said) == line


def test_a_check_that_hangs_or_breaks_is_a_verdict(settings):
    def hang(_):
        threading.Event().wait(30)

    def crash(_):
        raise KeyError("x")

    hung = examine(Check("hangs", hang, 0.2, "ls {results}"), settings)
    assert (hung.level, hung.found) == ("failure", "no answer within 0 s")
    assert hung.todo == f"see what this says: ls {settings.results}"
    broken = examine(Check("breaks", crash, 5, "true"), settings)
    assert broken.level == "failure" and broken.found.startswith("KeyError: 'x' (test_doctor.py:")
    assert examine(Check("works", lambda _: ok("fine"), 5, "true"), settings).level == "ok"


# ------------------------------------------------------------------------------------------------------------ this machine


def test_what_is_pinned_is_new_enough_and_nothing_required_is_not_pinned():
    least, pins = machine.required(), machine.pinned()
    assert {"torch", "numpy", "submitit"} <= least.keys() <= pins.keys()
    assert [
        name for name in least if machine.numbers(pins[name]) < machine.numbers(least[name])
    ] == []


@pytest.mark.parametrize(
    ("library", "version", "level", "words"),
    [
        ("tqdm", "4.1.0", "failure", "tqdm must be at least 4.64, however: 4.1.0"),
        ("tqdm", "99.0", "warning", "not as tested: tqdm 99.0 ("),
        ("torch", "2.11.0+cu126", "ok", "torch 2.11.0+cu126 is this machine's own"),
    ],
)
def test_versions_are_compared_with_what_is_installed(
    tmp_path, monkeypatch, settings, library, version, level, words
):
    about = tmp_path / f"{library}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: {version}\n")
    monkeypatch.setattr(
        machine, "pinned", lambda: {name: machine.installed(name) for name in machine.required()}
    )
    tested = machine.pinned()  # as if this machine had exactly the pins
    monkeypatch.setattr(machine, "pinned", lambda: tested)
    assert machine.versions(settings).level == "ok"
    monkeypatch.syspath_prepend(tmp_path)
    found = machine.versions(settings)
    assert (found.level, words in found.found) == (level, True), found
    assert found.facts["versions"][library] == version


def test_a_missing_library_is_named(monkeypatch, settings):
    monkeypatch.setattr(machine, "required", lambda: {"no-such-library": "1"})
    found = machine.versions(settings)
    assert found.level == "failure" and "no-such-library is missing" in found.found


def test_what_the_cgroup_allows_is_the_least_of_all_levels(tmp_path):
    second = tmp_path / "two" / "job" / "step"
    second.mkdir(parents=True)
    (second / "cpu.max").write_text("max 100000\n")
    (second.parent / "cpu.max").write_text("150000 100000\n")
    (second / "memory.max").write_text("3000000000\n")
    (second.parent / "memory.max").write_text("2000000000\n")
    assert machine.cgroup_limits("0::/job/step\n", tmp_path / "two") == (1.5, 2.0)
    first = tmp_path / "one"
    for controller, file, text in (
        ("cpu,cpuacct", "cpu.cfs_quota_us", "50000"), ("cpu,cpuacct", "cpu.cfs_period_us", "100000"),
        ("memory", "memory.limit_in_bytes", "4000000000"),
    ):  # fmt: skip
        (first / controller).mkdir(parents=True, exist_ok=True)
        (first / controller / file).write_text(text)
    text = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n"  # in a container the path is not to be seen
    assert machine.cgroup_limits(text, first) == (0.5, 4.0)
    assert machine.cgroup_limits("0::/\n", tmp_path) == (None, None)


@pytest.mark.parametrize(
    ("stated", "level"),
    [("1", "ok"), ("1,4", "ok"), ("0", "warning"), ("all", "warning"), ("9999", "warning")],
)
def test_threads_that_cannot_be_meant_are_warned_of(settings, stated, level):
    assert machine.threads(settings, {"OMP_NUM_THREADS": stated}).level == level
    assert machine.threads(settings, {}).level == "ok"


def test_bf16_is_what_the_processor_says(settings):
    assert (
        machine.processor(settings, "model name : X\nflags\t: fpu avx512_bf16\n").found
        == "X computes in bf16 (AVX512-BF16)"
    )
    assert machine.processor(settings, "Features\t: fp asimd bf16\n").level == "ok"
    assert machine.processor(settings, "model name : Y\nflags\t: fpu avx2\n").level == "note"


def test_gpus_are_what_nvidia_smi_says(settings, commands):
    commands(**{"nvidia-smi": "echo 'NVIDIA H100 80GB HBM3, 9.0, 81559'"})
    assert (
        machine.gpu(settings).found == "NVIDIA H100 80GB HBM3 (capability 9.0, 80 GiB), with bf16"
    )
    commands(**{"nvidia-smi": "echo 'Tesla V100, 7.0, 16384'"})
    assert machine.gpu(settings).level == "warning"
    commands(
        **{"nvidia-smi": 'echo "NVIDIA-SMI has failed because it couldn\'t communicate"; exit 9'}
    )
    assert machine.gpu(settings).level == "warning"
    commands(**{"nvidia-smi": "echo 'No devices were found'; exit 6"})
    assert machine.gpu(settings).level == "note"


# --------------------------------------------------------------------------------------------------------------- the engine


def test_a_sum_that_is_wrong_anywhere_is_found(monkeypatch):
    class Deaf(Alone):
        """Of two ranks that do not hear each other: each has its own numbers for the sum."""

        size = 2

    class Careless(Alone):
        def sum_(self, tensor):
            tensor[-1:] += 1  # one number of five million
            return tensor

    monkeypatch.setattr(child, "N_SUMMED", 5000)
    assert child.allreduce(Alone())["right"]
    assert not child.allreduce(Deaf())["right"]
    assert not child.allreduce(Careless())["right"]


def test_verdicts_on_sums():
    facts = {
        "engine": "horovod (gloo)",
        "size": 2,
        "device": "cpu",
        "right": True,
        "mb_per_s": 1500.0,
    }
    assert engine.of_sum(facts, 2, "x").level == "ok"
    assert engine.of_sum(facts | {"right": False}, 2, "x").level == "failure"
    assert (
        engine.of_sum(facts | {"size": 1}, 2, "x").found
        == "2 ranks were started, however: the engine found 1"
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            f"horovod.torch: {Path(sys.executable).name} was ended by SIGSEGV",
        ),
        (
            "raise ImportError('undefined symbol: _ZN3c10')",
            "ImportError: undefined symbol: _ZN3c10",
        ),
    ],
)
def test_a_horovod_that_crashes_or_is_of_another_torch_is_a_verdict(
    settings, tmp_path, monkeypatch, line, words
):
    cuda = "class cuda:\n    is_available = staticmethod(lambda: False)\nclass version:\n    cuda = None\n"
    for package, text in (
        ("torch", f"__version__ = '9'\n{cuda}"),
        ("horovod", ""),
        ("horovod/torch", line),
    ):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    engine.libraries.cache_clear()
    found = engine.horovod(settings)
    engine.libraries.cache_clear()
    assert found.level == "failure" and words in found.found
    assert "bash env/setup.sh" in found.todo
    assert found.facts["torch"] == "9"


@pytest.mark.parametrize(
    ("libmpi", "level"),
    [
        (["/a/libmpi.so.40"], "ok"),
        (["/a/libmpi.so.40", "/b/libmpi.so.12"], "failure"),
        ([], "failure"),
    ],
)
def test_one_mpi_library_is_shared(settings, monkeypatch, libmpi, level):
    facts = {"mpi": "Open MPI v4.1.4", "built": {"mpi": True}, "libmpi": libmpi}
    monkeypatch.setattr(engine, "libraries", lambda: (facts, ""))
    assert engine.mpi(settings).level == level


@pytest.mark.slow
def test_two_real_ranks_sum_rightly_and_libraries_agree(settings):
    if shutil.which("horovodrun") is None:
        pytest.skip("horovodrun is not installed")
    assert engine.horovod(settings).facts["torch"] == torch.__version__
    found = engine.over_gloo(settings)
    assert found.level == "ok", found
    assert (
        found.facts["engine"] == "horovod (gloo)"
        and found.facts["size"] == 2
        and found.facts["right"]
    )
    assert found.facts["mb_per_s"] > 0


# ----------------------------------------------------------------------------------------- the file system of the results


def test_a_good_file_system_passes_and_nothing_stays(tmp_path, capsys):
    status, found = run(capsys, "--only", "results", "--results", tmp_path / "not" / "yet")
    assert status == 0
    assert {name: verdict["level"] for name, verdict in found.items() if name not in ("space", "results")} == {
        "names": "ok", "HDF5": "ok", "clock": "ok",
    }  # fmt: skip
    assert found["results"]["found"].endswith("will be made")
    assert found["HDF5"]["facts"]["same"] and found["HDF5"]["facts"]["locks"]
    assert not list(tmp_path.iterdir())


def test_results_that_are_no_folder_are_a_failure(tmp_path, capsys):
    (tmp_path / "file").touch()
    status, found = run(capsys, "--only", "results", "--results", tmp_path / "file")
    assert status == 1 and "file cannot be written: Not a directory" in found["results"]["found"]
    assert found.keys() == {"results", "space"}  # the others have nothing to look at


def mounted(options: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    """The doctor in a mount namespace of its own, with a small file system in memory on `folder`."""
    script = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"'
    command = [
        sys.executable,
        "-m",
        "irnet_hpc.doctor",
        "--only",
        "results",
        "--results",
        folder,
        "--json",
        *arguments,
    ]
    whole = ["unshare", "--mount", "sh", "-c", script, "sh", options, folder, *command]
    return subprocess.run(
        [str(part) for part in whole], cwd=ROOT, capture_output=True, text=True, timeout=600
    )


needs_mounts = pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0,
    reason="this machine does not let this user mount",
)


@needs_mounts
def test_a_file_system_that_is_read_only_is_a_failure_with_its_sentence(tmp_path):
    done = mounted("ro", tmp_path)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)["checks"]["results"]
    assert found["found"] == f"{tmp_path} cannot be written: Read-only file system (tmpfs)"
    assert found["todo"].startswith(f"ls -ld {tmp_path}; python -m irnet_hpc.doctor --results DIR")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_others_is_a_failure_with_its_sentence(tmp_path, capsys):
    tmp_path.chmod(0o555)
    status, found = run(capsys, "--only", "results", "--results", tmp_path / "results")
    assert status == 1 and "cannot be written: Permission denied" in found["results"]["found"]


@needs_mounts
def test_a_disk_that_is_full_is_a_failure_in_every_check_that_needs_room(tmp_path):
    done = mounted("size=96k", tmp_path)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)["checks"]
    assert found["space"]["level"] == "failure" and found["space"]["found"].startswith(
        "0.0 GB free"
    )
    assert (
        found["HDF5"]["level"] == "failure"
        and "has no room for a pack of 2 MiB" in found["HDF5"]["found"]
    )
    assert (
        found["names"]["level"] == "failure"
        and "No space left on device" in found["names"]["found"]
    )
    assert found["clock"]["level"] == "ok"


def test_a_file_system_without_locks_is_warned_of(settings, monkeypatch, tmp_path):
    found = {"same": True, "locks": False, "hdf5_locks": False}
    monkeypatch.setattr(place, "child", lambda what: (found, ""))
    assert (
        place.hdf5(settings).level == "warning"
        and "HDF5_USE_FILE_LOCKING=FALSE" in place.hdf5(settings).todo
    )
    found["locks"] = True
    assert (
        place.hdf5(settings).level == "note"
        and "HDF5_USE_FILE_LOCKING=FALSE" in place.hdf5(settings).todo
    )


def test_a_rename_that_is_not_atomic_is_found(settings, monkeypatch):
    @contextlib.contextmanager
    def in_place(path, sync):  # as if rename were a copy
        temporary = path.with_name("temporary")
        yield temporary
        path.write_bytes(b"")
        path.write_bytes(temporary.read_bytes())

    monkeypatch.setattr(place.files, "replacing", in_place)
    monkeypatch.setattr(place, "N_RENAMED", 200)
    found = place.names(settings)
    assert found.level == "failure" and "is not whole at every moment" in found.found


def test_the_kind_of_a_file_system_is_that_of_the_mount_that_is_nearest():
    mounts = "\n".join(
        f"{number} 1 0:{number} / {where} rw - {kind} none rw"
        for number, (where, kind) in enumerate(
            [("/", "ext4"), ("/home", "nfs4"), (r"/home/a\040b", "lustre"), ("/home", "xfs")]
        )
    )
    kinds = {
        path: place.file_system(Path(path), mounts)
        for path in ("/homes", "/home/c", "/home/a b/results", "/")
    }
    assert kinds == {"/homes": "ext4", "/home/c": "xfs", "/home/a b/results": "lustre", "/": "ext4"}


@pytest.mark.parametrize(("late_s", "level"), [(0, "ok"), (-3600, "warning"), (90, "warning")])
def test_a_clock_that_is_not_the_file_systems_is_warned_of(settings, monkeypatch, late_s, level):
    monkeypatch.setattr(place.time, "time", lambda real=time.time: real() + late_s)
    assert place.clock(settings).level == level


# -------------------------------------------------------------------------------------------------------------------- SLURM

CONFIG = "echo 'MaxArraySize = 1001'; echo 'JobRequeue = 1'; echo 'ClusterName = big'; echo 'PreemptMode = OFF'"
LIST = "echo 'MPI plugin types are...' >&2; for t in none pmi2 pmix; do echo \" $t\" >&2; done"
GOOD = {
    "scontrol": CONFIG, "squeue": "true", "sacct": "echo '1|COMPLETED'", "srun": LIST,
    "sbatch": "echo 'sbatch: Job 7 to start at 2026-11-25T12:00:00 using 1 processors' >&2; echo \"$@\" >$0.asked",
}  # fmt: skip


def slurm(capsys, *more: str) -> tuple[int, dict[str, dict]]:
    return run(capsys, "--only", "slurm", *more)


def test_a_slurm_that_works_passes_with_its_limits(commands, capsys, tmp_path):
    site = tmp_path / "mine.yaml"
    site.write_text(
        "account: ours\npartition: gpu\nsbatch: {exclusive: true, mail-type: FAIL}\nsrun_args: [--mpi=pmix]\n"
    )
    commands(**GOOD)
    status, found = slurm(capsys, "--site", str(site))
    assert status == 0 and {verdict["level"] for verdict in found.values()} == {"ok"}
    assert found["arrays"]["facts"] == {"max_array_size": 1001}
    assert (
        found["srun --mpi"]["found"]
        == "srun offers none, pmi2, pmix; ranks meet over MPI by --mpi=pmix"
    )
    asked = (tmp_path / "bin" / "sbatch.asked").read_text()
    assert (
        "--test-only" in asked
        and "--account=ours --partition=gpu --exclusive --mail-type=FAIL" in asked
    )


@pytest.mark.parametrize(
    ("broken", "check", "level", "words"),
    [
        ({"scontrol": "echo 'Unable to contact slurm controller' >&2; exit 1"}, "SLURM", "failure", "Unable to contact slurm"),
        ({"scontrol": "sleep 300"}, "SLURM", "failure", "scontrol did not answer within 2 s"),
        ({"squeue": "echo 'squeue: error: no permission' >&2; exit 1"}, "SLURM", "failure", "squeue: error: no permission"),
        ({"srun": "exit 1"}, "srun --mpi", "failure", "srun ended with status 1"),
        ({"sbatch": "echo 'sbatch: error: Invalid account' >&2; exit 1"}, "sbatch", "failure", "Invalid account"),
        ({"sacct": "echo 'Slurm accounting storage is disabled' >&2; exit 1"}, "accounting", "warning", "disabled"),
        ({"scontrol": "echo 'MaxArraySize = 0'"}, "arrays", "failure", "there are no job arrays"),
        ({"scontrol": "echo 'MaxArraySize = 9'; echo 'JobRequeue = 0'"}, "requeue", "note", "JobRequeue is 0"),
        ({"scontrol": "echo 'MaxArraySize = 9'; echo 'PreemptMode = CANCEL'"}, "requeue", "note", "not requeued"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_slurm_is_said(
    commands, capsys, monkeypatch, broken, check, level, words
):
    monkeypatch.setattr("irnet_hpc.doctor.checks.ANSWER_S", 2.0)
    commands(**(GOOD | broken))
    status, found = slurm(capsys)
    assert (found[check]["level"], words in found[check]["found"]) == (level, True), found[check]
    assert status == (level == "failure")


def test_an_mpi_that_srun_does_not_know_is_a_failure(commands, capsys, monkeypatch):
    commands(**GOOD)
    monkeypatch.setenv("IRNET_SRUN_ARGS", "--mpi=pmi9")
    status, found = slurm(capsys)
    assert status == 1 and "the site's srun options say --mpi=pmi9" in found["srun --mpi"]["found"]


def test_no_slurm_is_a_note_and_half_of_one_a_failure(commands, capsys):
    commands(alone=True)
    assert slurm(capsys)[1]["SLURM"]["level"] == "note"
    commands(alone=True, sbatch="true")
    cluster.configuration.cache_clear()
    status, found = slurm(capsys)
    assert (
        status == 1
        and found["SLURM"]["found"] == "srun, scontrol, squeue not on PATH beside sbatch"
    )


def test_a_slurm_of_no_cluster_is_a_note(commands, capsys):
    commands(
        **(
            GOOD
            | {
                "scontrol": "echo 'scontrol: fatal: Could not establish a configuration source' >&2; exit 1"
            }
        )
    )
    status, found = slurm(capsys)
    assert status == 0 and found.keys() == {"SLURM"} and found["SLURM"]["level"] == "note"


# -------------------------------------------------------------------------------------------------------------- the command


def test_a_users_mistakes_are_one_sentence_and_status_2(commands, tmp_path):
    def typed(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "irnet_hpc.doctor", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)

    done = typed("--site", "nowhere")
    assert (
        done.returncode == 2
        and "unknown site 'nowhere'" in done.stderr
        and done.stderr.count("\n") == 1
    )
    commands(
        scontrol="echo 'scontrol: fatal: Could not establish a configuration source' >&2; exit 1"
    )
    done = typed("--slurm", "--only", "machine")
    assert done.returncode == 2 and done.stderr.startswith(
        "error: --slurm needs SLURM's commands on PATH"
    )
    assert typed("--only", "nothing").returncode == 2


def test_lines_appear_one_by_one_with_what_to_do(commands, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "9999")
    assert doctor.main(["--only", "machine"]) in (0, 1)
    lines = capsys.readouterr().out.splitlines()
    (place,) = (number for number, line in enumerate(lines) if line.startswith("warning  threads"))
    assert lines[place + 1].strip().startswith("-> unset OMP_NUM_THREADS")
    assert lines[-2].startswith("7 checks in ") and " warning" in lines[-2]


needs_slurm = pytest.mark.skipif(bool(absent()), reason=absent() or "-")


@pytest.mark.slurm
@needs_slurm
def test_nodes_with_different_numbers_of_ranks_sum_together(tmp_path):
    command = [
        "srun",
        "-N2",
        "-n3",
        "--kill-on-bad-exit=1",
        sys.executable,
        "-m",
        "irnet_hpc.doctor.probes",
    ]
    done = ask([*command, "ranks", tmp_path / "folder", "--engine", "auto"], 120)
    assert not done.trouble
    facts = engine.said(done)
    assert (facts["engine"], facts["size"], facts["right"]) == ("horovod (gloo)", 3, True)


@pytest.mark.slurm
@needs_slurm
def test_a_job_of_two_nodes_proves_the_way_of_a_sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IRNET_STATE", str(tmp_path / "state"))
    cluster.configuration.cache_clear()
    results = tmp_path / "results"
    status, found = run(
        capsys, "--only", "slurm", "--slurm", "--site", "local_slurm", "--results", results
    )
    assert status == 0, found
    two = found["two nodes"]
    assert two["facts"]["sum"]["size"] == 2 and two["facts"]["sum"]["right"]
    assert {node["host"] for node in two["facts"]["nodes"]} == {"n1", "n2"}
    assert [node["trouble"] for node in two["facts"]["nodes"]] == ["", ""]
    assert sum(node["won"] for node in two["facts"]["nodes"]) == 1
    assert not results.exists() and not list((tmp_path / "state" / "submitit").iterdir())

    site = tmp_path / "other.yaml"
    site.write_text("partition: main\nsetup: [export HOROVOD_GLOO_IFACE=none9]\n")
    status, found = run(capsys, "--only", "slurm", "--slurm", "--site", site, "--results", results)
    assert (
        status == 1 and "no interface 'none9' with an IPv4 address" in found["two nodes"]["found"]
    )
    assert not list(tmp_path.glob(".doctor*"))
    assert not subprocess.run(
        ["squeue", "-h", "-n", "irnet:doctor"], capture_output=True, text=True
    ).stdout
