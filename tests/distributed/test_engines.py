"""An experiment depends neither on the number of ranks nor on the engine; with real processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from irnet_hpc.train.cli import collectives_are_rare, parser
from tests.distributed.train_on_ranks import numbers

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "train_on_ranks.py"
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}
LAUNCHERS = {
    "horovod (gloo)": (["horovodrun", "--gloo", "-np", "2"], "horovod"),
    "horovod (mpi)": (["mpirun", "-np", "2"], "horovod"),
    "torch": (["mpirun", "-np", "2"], "torch"),
}


@pytest.fixture(scope="module")
def one_rank(alloys_pack, gaps_pack, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "out.json"
    command = [sys.executable, SCRIPT, "none", alloys_pack, out, gaps_pack]
    subprocess.run(command, env=ENVIRONMENT, check=True, timeout=600)
    return json.loads(out.read_text())


@pytest.mark.parametrize("engine", LAUNCHERS)
def test_two_ranks_give_the_losses_and_weights_of_one(
    engine, one_rank, alloys_pack, gaps_pack, tmp_path
):
    launcher, name = LAUNCHERS[engine]
    if shutil.which(launcher[0]) is None:
        pytest.skip(f"{launcher[0]} is not installed")
    out = tmp_path / "out.json"
    subprocess.run(
        [*launcher, sys.executable, SCRIPT, name, alloys_pack, out, gaps_pack],
        env=ENVIRONMENT,
        check=True,
        timeout=600,
    )
    two = json.loads(out.read_text())
    assert (two["engine"], two["size"], one_rank["size"]) == (engine, 2, 1)
    assert two["stream"] == two["resident"]  # bit for bit, whatever moves the numbers
    for case in one_rank.keys() - {"engine", "size", "sums", "stream", "resident"}:
        tolerance = 2e-2 if "bf16" in case else 1e-4 if case.startswith("fp32") else 1e-9
        assert one_rank[case]["steps"] == two[case]["steps"] >= 50
        # In fp32 only the losses: a bias before a normalisation has no gradient but rounding,
        # and Adam amplifies it.
        for what in ("losses",) if case.startswith("fp32") else ("losses", "weights", "statistics"):
            np.testing.assert_allclose(
                two[case][what], one_rank[case][what], rtol=tolerance, err_msg=f"{case}: {what}"
            )
    assert (
        one_rank["local groups"]["losses"] != one_rank["spanning groups"]["losses"]
    )  # the group is part of the recipe
    assert not np.allclose(
        two["fp32, bf16 allreduce"]["losses"], two["fp32, local groups"]["losses"], rtol=1e-6
    )
    assert (
        one_rank["fp32, bf16 allreduce"]["losses"] == one_rank["fp32, local groups"]["losses"]
    )  # it sends nothing
    # Each rank's numbers are rounded to 8 bits, so is their sum, and the two at the end are not:
    # the bits of any engine.
    for sums in two["sums"]:
        first, second = (numbers(rank, len(sums)) for rank in (0, 1))
        expected = (
            (first.bfloat16().double() + second.bfloat16().double()).float().bfloat16().float()
        )
        expected[-2:] = (first + second)[-2:]
        np.testing.assert_array_equal(sums, expected)


@pytest.fixture
def start_rank():
    """Start one rank of two, without MPI, ssh or PMI, as submitit's local executor does."""
    started = []

    def start(rank: int, arguments: list) -> subprocess.Popen:
        started.append(_process(rank, 2, arguments))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def _process(rank: int, size: int, arguments: list) -> subprocess.Popen:
    variables = {
        "SUBMITIT_LOCAL_GLOBALID": str(rank), "SUBMITIT_LOCAL_LOCALID": str(rank),
        "SUBMITIT_LOCAL_NTASKS": str(size),
        "SUBMITIT_LOCAL_JOB_ID": f"test{os.getpid()}",
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "irnet_hpc.train", *map(str, arguments)],
        env=ENVIRONMENT | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["horovod", "torch"])
def test_a_killed_rank_ends_the_other_with_a_message(engine, alloys_pack, tmp_path, start_rank):
    arguments = [
        "--pack", alloys_pack, "--property", "mixing_enthalpy", "--layers", "64BARx3-1",
        "--results", tmp_path / "results",
        "--recipe", "{name: long, base: onecycle, epochs: 100000, batch: 64, norm_group: 32}",
        "--engine", engine,
    ]  # fmt: skip
    ranks = [start_rank(rank, arguments) for rank in (0, 1)]
    for line in ranks[0].stdout:
        if line.startswith("epoch"):
            break
    ranks[1].kill()
    _, errors = ranks[0].communicate(timeout=600)
    assert ranks[0].returncode == 1
    assert "a rank is gone" in errors
    failure = json.loads(next((tmp_path / "results").rglob("error.json")).read_text())
    assert "a rank is gone" in failure["error"]


def test_ranks_stopped_by_a_signal_save_together_and_go_on_to_the_same_end(
    alloys_pack, tmp_path, start_rank
):
    """SIGTERM to one rank: rank 0 saves, both leave with 75, and the rerun ends undisturbed."""

    def arguments(results: str) -> list:
        return [
            "--pack", alloys_pack, "--property", "mixing_enthalpy", "--layers", "64BARx3-1",
            "--results", tmp_path / results, "--recipe",
            "{name: p, base: onecycle, epochs: 100, batch: 64, norm_group: 32, precision: fp32}",
        ]  # fmt: skip

    ranks = [start_rank(rank, arguments("a")) for rank in (0, 1)]
    for line in ranks[0].stdout:
        if line.startswith("epoch"):
            break
    ranks[1].send_signal(signal.SIGTERM)
    for rank in ranks:
        _, errors = rank.communicate(timeout=600)
        assert rank.returncode == 75, errors
    assert len(list((tmp_path / "a").rglob("checkpoint/*.safetensors"))) == 1
    results = {}
    for name in ("a", "b"):
        ranks = [start_rank(rank, arguments(name)) for rank in (0, 1)]
        printed = [rank.communicate(timeout=600) for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], printed
        assert ("resuming" in printed[0][0]) == (name == "a")
        results[name] = json.loads(next((tmp_path / name).rglob("result.json")).read_text())
    assert len(results["a"]["attempts"]) == 2
    assert results["a"]["test_mae"] == pytest.approx(results["b"]["test_mae"], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [
        ("--architecture irnet --depth 17", 2, True),  # onecycle: 512 rows in groups of 256
        (
            "--architecture irnet --depth 17",
            4,
            False,
        ),  # 128 rows a rank: a group lies on two of them
        ("--architecture irnet --depth 17 --recipe paper", 2, False),  # 32 rows, one group
        ("--architecture random_forest", 2, True),
        ("--architecture irnet --depth 17 --recipe pepper", 2, False),  # an error that comes later
    ],
)
def test_ranks_that_share_no_group_of_rows_talk_once_a_step(options, size, expected):
    arguments = parser().parse_args(["--pack", "p", "--property", "band_gap", *options.split()])
    assert collectives_are_rare(arguments, size) is expected
