"""Sessions: what a failed training leaves, by the type of what ended it."""

import pytest
import torch

from irnet_hpc.distributed.engines import Alone
from irnet_hpc.errors import PeerLost, UserError
from irnet_hpc.files import read_json
from irnet_hpc.runs.lease import RunIsHeld
from irnet_hpc.runs.state_names import Cause
from irnet_hpc.train import networks
from irnet_hpc.train.session import failure_noted
from tests.builders import StopAfter, run_of
from tests.train.trainings import command


def out_of_memory_here() -> None:
    try:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")
    except torch.cuda.OutOfMemoryError as error:
        raise UserError("a network and its batch must fit in the device's memory") from error


def allocate_on_cpu() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def fail_with(error: Exception):
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("fail", "cause"),
    [
        (fail_with(torch.cuda.OutOfMemoryError("CUDA out of memory")), Cause.MEMORY),
        (fail_with(MemoryError()), Cause.MEMORY),
        (out_of_memory_here, Cause.MEMORY),
        (allocate_on_cpu, Cause.MEMORY),
        (fail_with(PeerLost("reworded")), Cause.PEER_LOST),
        (fail_with(RunIsHeld("reworded")), Cause.HELD),
        (fail_with(UserError("this sentence says out of memory")), Cause.OTHER),
        (fail_with(ValueError("anything")), Cause.OTHER),
    ],
)
def test_the_cause_follows_from_the_type_of_the_error(tmp_path, fail, cause):
    run = run_of(None, None, tmp_path)
    with pytest.raises(BaseException), failure_noted([run], Alone()):  # noqa: B017 (any)
        fail()
    error = run.folder.error()
    assert error.cause == cause and error.message
    assert read_json(run.folder.error_json).keys() == {"error", "cause", "time"}


def test_the_end_of_the_job_is_noted_as_a_lack_of_time(alloys_pack, tmp_path, monkeypatch):
    from irnet_hpc.console import ExitStatus, exit_status
    from irnet_hpc.train import cli

    class Late(StopAfter):
        is_late = True

    monkeypatch.setattr(networks, "stop_request", lambda options, comm: Late(2))
    arguments = command(alloys_pack, tmp_path)[3:]
    assert exit_status(lambda: cli.main(arguments)) == ExitStatus.PREEMPTED
    (path,) = tmp_path.rglob("error.json")
    assert read_json(path)["cause"] == Cause.TIME and (path.parent / "checkpoint").exists()
