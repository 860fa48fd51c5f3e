"""Whole trainings on stand-ins: alone, stopped and resumed, on several ranks, and predictions.

Kernels compute nothing, so that the numbers of these trainings mean nothing.
"""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fake_gpu.stand_in import StandIn, ended

pytestmark = pytest.mark.slow
RECIPE = "{name: t, base: onecycle, epochs: %d, batch: 64, norm_group: 32}"


def options(pack: Path, results: Path, epochs: int = 3, **changes) -> list[str]:
    """Return a command line of train."""
    chosen = {
        "pack": pack,
        "property": "mixing_enthalpy",
        "layers": "32BARx2-16BARx1-1",
        "recipe": RECIPE % epochs,
        "results": results,
        "device": "cuda",
    } | changes
    return ["-m", "irnet_hpc.train"] + [
        text for name, value in chosen.items() for text in (f"--{name}", str(value))
    ]


def result_of(results: Path) -> dict:
    """Return the only result below a folder."""
    (path,) = results.rglob("result.json")
    return json.loads(path.read_text())


def ranks(
    stand_in: StandIn, arguments: list, gpus: int = 2, own: Sequence[dict] = ({}, {}), **variables
) -> list[subprocess.Popen]:
    """Start two ranks, as torchrun would, with the variables of all and the own ones of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": "t",
        "GROUP_RANK": 0,
    }
    return [
        stand_in.start(*arguments, gpus=gpus, RANK=r, LOCAL_RANK=r, **common | variables | own[r])
        for r in range(2)
    ]


def test_a_training_ends_and_its_model_predicts(stand_in, alloys_pack, tmp_path):
    stand_in.run(*options(alloys_pack, tmp_path / "runs"))
    result = result_of(tmp_path / "runs")
    assert result["device"] == "stand-in GPU" and 0 < result["peak_memory_gb"] < 1
    table = tmp_path / "candidates.csv"
    table.write_text("formula\nAl2Ni\nFe\n")
    (model,) = (tmp_path / "runs").rglob("model.safetensors")
    out = tmp_path / "out.csv"
    stand_in.run("-m", "irnet_hpc.predict", model.parent, table, "--out", out)
    assert len(out.read_text().splitlines()) == 3


def test_a_node_without_a_compiler_trains_by_torchs_own_operations(stand_in, alloys_pack, tmp_path):
    nothing = tmp_path / "bin"
    nothing.mkdir()
    own = {"IRNET_FUSED": "yes", "TRITON_CACHE_DIR": tmp_path / "triton", "PATH": nothing}
    said = stand_in.run(*options(alloys_pack, tmp_path / "runs", epochs=1), **own).stderr
    assert "compiler" in said and result_of(tmp_path / "runs")["device"] == "stand-in GPU"


def test_kernels_that_compute_something_else_than_torch_are_not_used(
    stand_in, alloys_pack, tmp_path
):
    # Those of the stand-in compute nothing.
    arguments = options(alloys_pack, tmp_path, epochs=1)
    said = stand_in.run(*arguments, IRNET_FUSED="yes").stderr
    assert "differs from torch's" in said and result_of(tmp_path)["device"] == "stand-in GPU"


def stopped_in(process: subprocess.Popen, folder: Path, more_than: int) -> int:
    """Stop a training when its history has more epochs; return how many it has then."""
    while process.poll() is None and epochs(folder) <= more_than:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    ended(process, 75)
    return epochs(folder)


def epochs(folder: Path) -> int:
    """Count the epochs of the only history below a folder."""
    return sum(len(path.read_text().splitlines()) - 1 for path in folder.rglob("history.csv"))


def test_a_training_that_is_stopped_resumes(stand_in, alloys_pack, tmp_path):
    arguments = options(alloys_pack, tmp_path, epochs=100_000)
    first = stopped_in(stand_in.start(*arguments), tmp_path, 1)
    assert first > 1 and not list(tmp_path.rglob("result.json"))
    assert stopped_in(stand_in.start(*arguments), tmp_path, first) > first


@pytest.mark.parametrize("extra", [{}, {"seed": "0,1"}, {"data": "stream"}])
def test_two_ranks_train_over_nccl(stand_in, alloys_pack, tmp_path, extra):
    arguments = options(alloys_pack, tmp_path, engine="torch", **extra)
    said = [ended(process).stderr for process in ranks(stand_in, arguments)]
    assert "stand-in" not in "".join(said)  # as it begins each complaint
    results = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert len(results) == (2 if "seed" in extra else 1)
    assert {(r["attempts"][0]["size"], r["engine"]) for r in results} == {(2, "torch")}


# The stand-in, as NCCL does between the GPUs of a node, goes on waiting for a rank that is gone.
@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_whose_peer_is_killed_ends_with_a_sentence(stand_in, alloys_pack, tmp_path, killed):
    arguments = options(alloys_pack, tmp_path, epochs=100_000, engine="torch")
    processes = ranks(stand_in, arguments)
    while processes[1].poll() is None and epochs(tmp_path) < 2:
        time.sleep(0.2)
    processes[killed].kill()
    said = ended(processes[1 - killed], 1).stderr
    processes[killed].communicate()
    assert "a rank is gone" in said and "Traceback" not in said
    noted = [json.loads(path.read_text())["error"] for path in tmp_path.rglob("error.json")]
    assert ["a rank is gone" in error for error in noted] == [True] * (killed == 1)


# One GPU that both ranks take, and two instances (MIG) of one GPU.
@pytest.mark.parametrize("machine", [{"gpus": 1}, {"gpus": 2, "FAKE_GPU_MIG": 1}])
def test_two_ranks_on_one_gpu_are_one_sentence(stand_in, alloys_pack, tmp_path, machine):
    arguments = options(alloys_pack, tmp_path, engine="torch")
    said = [ended(process, 2).stderr for process in ranks(stand_in, arguments, **machine)]
    errors = [line for text in said for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "ranks 0 and 1 on one stand-in GPU" in errors[0]
    assert ("MIG" in errors[0]) == ("FAKE_GPU_MIG" in machine)
    assert not list(tmp_path.rglob("result.json"))


def test_a_driver_that_is_too_old_is_one_sentence(stand_in, alloys_pack, tmp_path):
    arguments = options(alloys_pack, tmp_path)
    said = stand_in.run(*arguments, status=2, FAKE_GPU_DRIVER=12040).stderr
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "12040" in error and "CUDA 13" in error and "Traceback" not in said
    assert not list(tmp_path.rglob("result.json"))


# Each rank sees both GPUs, or its own alone, or there is one for both.
@pytest.mark.parametrize(
    ("gpus", "visible", "device"),
    [(2, (None, None), "cuda"), (2, ("0", "1"), "cuda"), (1, (None, None), "cpu")],
)
def test_the_doctor_sums_on_gpus_where_each_rank_has_its_own(
    stand_in, tmp_path, gpus, visible, device
):
    probe = ["-m", "irnet_hpc.doctor.probes", "ranks", tmp_path, "--engine", "torch"]
    own = [{"CUDA_VISIBLE_DEVICES": one} if one else {} for one in visible]
    outs = [ended(process).stdout for process in ranks(stand_in, probe, gpus=gpus, own=own)]
    (facts,) = [json.loads(line) for out in outs for line in out.splitlines()]
    assert (facts["device"], facts["size"]) == (device, 2)


def test_the_benchmark_of_a_gpu_runs_to_its_end(stand_in):
    benchmark = stand_in.start("benchmarks/gpu.py", "--smoke", "--repeats", 1, gpus=2)
    done = ended(benchmark, None)
    # Kernels compute nothing, so that what it finds may be wrong.
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("--- to here") and "mean nothing" in done.stdout
    assert len([line for line in lines if line.startswith("| IRNet") or " cells" in line]) >= 7
    assert sum("both graphs are recorded" in line for line in lines) == 2
    assert "WRONG: losses" not in done.stdout  # nothing computed is equal to nothing computed
    (by_torch,) = [line for line in lines if "sums over 2 GPUs by torch" in line]
    assert "torch, cuda" in by_torch


def needs_horovod(stand_in: StandIn, has_nccl: bool) -> None:
    """Skip the test unless the stand-in's Python has a Horovod with, or without, NCCL."""
    probe = "import horovod.torch as hvd; print(int(hvd.nccl_built() > 0))"
    if ended(stand_in.start("-c", probe), None).stdout.split() != [str(int(has_nccl))]:
        kind = "with" if has_nccl else "without"
        pytest.skip(f"needs a Horovod that was built {kind} NCCL, in the Python of the stand-in")


HOROVODRUN = ("-m", "horovod.runner.launch", "--gloo", "-np", 2)


def test_a_horovod_without_nccl_sums_through_the_cpu(stand_in, alloys_pack, tmp_path):
    needs_horovod(stand_in, has_nccl=False)
    arguments = options(alloys_pack, tmp_path, engine="horovod")
    stand_in.run(*HOROVODRUN, stand_in.python, *arguments, gpus=2)
    result = result_of(tmp_path)
    assert (result["attempts"][0]["size"], result["device"]) == (2, "stand-in GPU")


@pytest.mark.parametrize("extra", [{}, {"seed": "0,1"}])
def test_two_ranks_train_over_horovods_nccl_without_waits(stand_in, alloys_pack, tmp_path, extra):
    needs_horovod(stand_in, has_nccl=True)
    arguments = options(alloys_pack, tmp_path, engine="horovod", **extra)
    said = stand_in.run(*HOROVODRUN, stand_in.python, *arguments, gpus=2).stderr
    assert "stand-in" not in said  # as it begins each complaint, such as one of a wrong order
    results = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert len(results) == (2 if "seed" in extra else 1)
    assert {r["engine"] for r in results} == {"horovod (nccl)"}


def test_a_rank_over_horovods_nccl_whose_peer_is_killed_ends(stand_in, alloys_pack, tmp_path):
    needs_horovod(stand_in, has_nccl=True)
    arguments = options(alloys_pack, tmp_path, epochs=100_000, engine="horovod")
    job = {"SUBMITIT_LOCAL_NTASKS": 2, "SUBMITIT_LOCAL_JOB_ID": f"gpu{os.getpid()}"}
    processes = [
        stand_in.start(
            *arguments, gpus=2, SUBMITIT_LOCAL_GLOBALID=r, SUBMITIT_LOCAL_LOCALID=r, **job
        )
        for r in range(2)
    ]
    while processes[0].poll() is None and epochs(tmp_path) < 2:
        time.sleep(0.2)
    processes[1].kill()
    assert "a rank is gone" in ended(processes[0], 1).stderr
    processes[1].communicate()
