"""Hold the states of cells to what the disk, the journals and the queue say."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time

import pytest

from irnet_hpc.distributed.processes import process_name
from irnet_hpc.errors import UserError
from irnet_hpc.files import write_json
from irnet_hpc.runs.recipes import RECIPES
from irnet_hpc.runs.state_names import Cause
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.cell_states import read_ledger
from irnet_hpc.sweep.hand_over import arrays_of
from irnet_hpc.sweep.jobs import train_options
from tests.builders import write_result
from tests.runs.test_lease import lose
from tests.sweep.stand_ins import MODELS, ROOT, SMALL, leave_checkpoint


def test_states_are_what_the_disk_says(place):
    place.finish("plain-10")
    place.finish("plain-17", key="of something else")
    write_json(
        place.run_folder("plain-24") / "error.json",
        {"error": "it hurts", "time": "2026-01-01T00:00:00+00:00"},
    )
    (place.run_folder("irnet-10") / "result.json").parent.mkdir(parents=True)
    (place.run_folder("irnet-10") / "result.json").write_text("{")
    assert place.states() == {
        "plain-10": "done",
        "plain-17": "stale",
        "plain-24": "failed",
        "irnet-10": "stale",
        "irnet-17": "missing",
        "irnet-24": "missing",
    }
    details = place.details()
    assert details["plain-10"] == "MAE 0.125 eV/atom"
    assert details["plain-24"] == "it hurts"
    assert "is not JSON" in details["irnet-10"]


def test_an_unreadable_result_is_stale_and_replaced_when_asked(place, stand_in):
    place.finish("plain-10")
    path = place.run_folder("plain-10") / "result.json"
    whole = json.loads(path.read_text())
    for damaged, why in (
        (path.read_text()[:50], "is not JSON"),
        (json.dumps({"mae": 1}), "is not a result of this version"),
        (json.dumps(whole | {"recipe": 5}), "recipe and pack_identity must be of type dict"),
        (
            json.dumps(whole | {"test_mae": "0.1"}),
            "test_mae",
        ),
        (json.dumps(whole | {"test_mae": None}), "test_mae and device_hours must be numbers"),
        (
            json.dumps(whole | {"device_hours": 1e300}),
            "device_hours must be a number of at most 1e+100",
        ),
    ):
        path.write_text(damaged)
        assert place.states()["plain-10"] == "stale"
        assert why in place.details()["plain-10"]
    (entry, *_) = read_ledger(place.matrix, place.results).to_do(stale=True)
    assert entry.folder == path.parent and "--force" in train_options(entry, place.results, None)
    assert place.sweep("run") == 0 and place.states()["plain-10"] == "stale"
    assert place.sweep("run", "--stale", "--yes") == 0 and place.states()["plain-10"] == "done"


def test_a_stale_result_says_what_has_changed(place):
    place.finish("plain-10")
    place.pack(source_sha256="1" * 64)
    assert place.details()["plain-10"] == "trained on another pack: source_sha256"
    recipe = dataclasses.asdict(RECIPES["onecycle"]) | {"batch": 7, "ema": 0.5}
    place.finish("plain-17", recipe=recipe, key="other")
    assert place.details()["plain-17"] == "trained with another recipe: batch, ema"
    place.finish("plain-24", key="other")
    assert place.details()["plain-24"].startswith("trained by another version")
    assert [state for state in place.states().values() if state != "missing"] == ["stale"] * 3


def test_a_result_whose_recipe_was_fitted_by_an_earlier_rule_is_stale(place):
    """100 // 16 = 6, so the earlier rule gave batches of 4, and the present one gives 8."""
    place.finish("plain-10", n_train=100, fitted_recipe={"batch": 4, "norm_group": 4})
    place.finish("plain-17", n_train=100, fitted_recipe={"batch": 8, "norm_group": 8})
    assert (place.states()["plain-10"], place.states()["plain-17"]) == ("stale", "done")


def test_a_result_outlives_its_pack(place):
    place.finish("plain-10")
    (place.packs / "alloys-magpie.h5").unlink()
    assert place.states()["plain-10"] == "done"


def test_a_process_counts_while_it_lives_and_its_number_is_not_enough(place):
    name = str(place.run_folder("plain-10").relative_to(place.results))
    child = subprocess.Popen(["sleep", "60"])
    path = journal.begin(place.results, "mine", "local", "999999999@1")
    journal.note(path, [{"cell": name}])
    assert place.states()["plain-10"] == "missing"  # never started, and the driver is dead
    journal.note(path, [{"cell": name, "process": process_name(child.pid)}])
    assert place.states()["plain-10"] == "running"  # it has outlived its driver
    child.kill()
    child.wait()
    assert place.states()["plain-10"] == "failed"
    assert place.details()["plain-10"] == "killed, without a result"
    journal.note(path, [{"cell": name, "process": f"{os.getpid()}@1"}])
    assert place.states()["plain-10"] == "failed"  # the number lives on, as another process
    place.finish("plain-10")
    assert place.states()["plain-10"] == "done"


def test_a_sweep_on_another_host_is_believed_while_it_is_heard_of(place, monkeypatch):
    name = str(place.run_folder("plain-10").relative_to(place.results))
    path = journal.begin(place.results, "mine", "local", "999999999@1")
    journal.note(path, [{"cell": name}])
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert place.states()["plain-10"] == "queued"
    assert place.details()["plain-10"].startswith("process 999999999 on ")
    os.utime(path, (time.time() - 200,) * 2)
    assert place.states()["plain-10"] == "missing"


def test_only_a_job_that_left_no_result_is_submitted_again(place, slurm):
    place.sweep("submit")
    slurm.set_state("101_1", "RUNNING")
    slurm.forget("101_0", "101_2", **{"101_0": "CANCELLED by 0", "101_[2-3]": "TIMEOUT"})
    found = place.states()
    assert [found[model] for model in MODELS] == [
        "failed",
        "running",
        "failed",
        "queued",
        "queued",
        "queued",
    ]
    assert place.details()["plain-10"] == "job 101_0 CANCELLED by 0, without a result"
    assert place.details()["plain-24"] == "job 101_2 TIMEOUT, without a result"
    assert place.details()["irnet-10"] == "job 101_3 (Priority)"
    assert place.sweep("submit") == 0
    assert "#SBATCH --array=0-1%2\n" in slurm.scripts()[-3]


def test_error_json_is_the_reason_unless_it_is_older_than_the_job(place, slurm):
    folder = place.run_folder("plain-10")
    write_json(folder / "error.json", {"error": "old", "time": "2020-01-01T00:00:00+00:00"})
    place.sweep("submit")
    slurm.forget("101_0", **{"101_0": "NODE_FAIL"})
    assert place.details()["plain-10"] == "job 101_0 NODE_FAIL, without a result"
    write_json(folder / "error.json", {"error": "new", "time": "2100-01-01T00:00:00+00:00"})
    assert place.details()["plain-10"] == "new"


def test_cells_whose_pack_could_not_be_built_say_so(place, slurm):
    (place.packs / "alloys-magpie.h5").unlink()
    place.sweep("submit")
    assert read_ledger(place.matrix, place.results).pack_jobs == {"alloys-magpie": "101"}
    (slurm.folder / "queue").write_text("")
    (slurm.folder / "accounts").write_text("101|1:0|FAILED\n102_[0-3]|0:0|CANCELLED\n")
    assert place.details()["plain-10"] == "its pack alloys-magpie was not built: job 101 FAILED"
    assert place.sweep("submit") == 0
    assert slurm.names()[5:6] == ["irnet:pack:alloys-magpie"]


@pytest.mark.parametrize("command", ["plan", "status", "submit"])
def test_the_queue_is_asked_once_however_many_cells(place, slurm, command):
    place.sweep("submit")
    (slurm.folder / "asked").write_text("")
    place.sweep(command)
    assert len((slurm.folder / "asked").read_text().splitlines()) == 1


def test_a_job_of_the_same_number_on_a_new_cluster_is_not_ours(place, slurm):
    place.sweep("submit")
    text = (slurm.folder / "queue").read_text()
    token = text.splitlines()[0].rpartition("|")[2]
    (slurm.folder / "queue").write_text(text.replace(token, "another"))
    assert set(place.states().values()) == {"failed"}


def test_while_slurm_is_silent_nothing_is_taken_for_lost(place, slurm):
    place.sweep("submit")
    (slurm.folder / "down").touch()
    assert set(place.states().values()) == {"queued"}
    assert "SLURM does not answer" in read_ledger(place.matrix, place.results).notes[0]
    place.path.write_text(SMALL + "seeds: [0, 1]\nprotocols: [honest]\n".replace("3", "30"))
    with pytest.raises(UserError, match="SLURM does not answer"):
        place.sweep("submit", "--over-budget")


def test_a_training_started_by_hand_is_running_while_it_holds_its_lease(place, holder, capsys):
    assert place.states() == {"plain-10": "running"} | dict.fromkeys(MODELS[1:], "missing")
    assert place.details()["plain-10"].startswith(f"process {holder.pid} on ")
    place.sweep("status", "--json")
    told = json.loads(capsys.readouterr().out)["cells"][0]
    assert told["lease"]["process"] == process_name(holder.pid)
    holder.kill()
    holder.wait()
    assert place.states()["plain-10"] == "missing"
    leave_checkpoint(place, "plain-10")
    assert place.states()["plain-10"] == "preempted"


def test_a_lease_of_another_machine_counts_until_it_is_old(place):
    lose(place.run_folder("plain-10"), machine="another", job="17_3")
    assert (
        place.states()["plain-10"] == "running"
        and "(job 17_3), last sign of life " in place.details()["plain-10"]
    )
    lose(place.run_folder("plain-10"), age_s=200, machine="another")
    assert place.states()["plain-10"] == "missing"


def test_preempted_is_a_checkpoint_of_this_very_run_and_no_error(place, stand_in):
    for model in MODELS[:4]:
        leave_checkpoint(place, model, "another recipe's" if model == "plain-17" else None)
    write_json(
        place.run_folder("plain-24") / "error.json",
        {"error": "it hurts", "time": "2026-01-01T00:00:00+00:00"},
    )
    late = {"error": "out of time after 30 min", "cause": Cause.TIME}
    late |= {"time": "2026-01-01T00:00:00+00:00"}
    write_json(place.run_folder("irnet-10") / "error.json", late)
    found = place.states()
    assert [found[model] for model in MODELS[:4]] == ["preempted", "missing", "failed", "preempted"]
    assert place.details()["irnet-10"] == "out of time after 30 min"
    assert place.sweep("run") == 0
    assert set(place.states().values()) == {"done"}


def test_a_signal_preempts_and_a_lack_of_memory_fails_a_cell(place, slurm, capsys):
    place.sweep("submit")
    for model in MODELS[:3]:
        leave_checkpoint(place, model)
    how = {"101_0": "TIMEOUT", "101_1": "NODE_FAIL", "101_2": "OUT_OF_MEMORY", "101_3": "FAILED"}
    slurm.forget(*how, **how)
    log = place.run_folder("irnet-10") / "train.log"
    log.parent.mkdir(parents=True)
    log.write_text("words\n[0]<stderr>:RuntimeError: the reason\nhorovodrun: more words\n")
    found = place.states()
    assert [found[model] for model in MODELS[:4]] == ["preempted", "preempted", "failed", "failed"]
    assert place.details()["plain-10"] == "job 101_0 TIMEOUT; it can continue from its checkpoint"
    assert place.details()["irnet-10"] == "job 101_3 FAILED: RuntimeError: the reason"
    capsys.readouterr()
    place.sweep("status")
    shown = capsys.readouterr().out
    assert (
        f"irnet-10/onecycle/honest/seed0: job 101_3 FAILED: RuntimeError: the reason; log {log}\n"
        in shown
    )


def test_a_training_that_slurm_saw_killed_lacked_memory_and_a_log_of_headings_says_nothing(
    place, slurm
):
    """A batch script that ended with 137 is `FAILED 9:0` for SLURM 22.05, a killed shell `0:9`."""
    place.sweep("submit")
    leave_checkpoint(place, MODELS[1])
    how = {"101_0": "9:0|FAILED", "101_1": "0:9|FAILED", "101_2": "12:0|FAILED", "101_3": "FAILED"}
    slurm.forget(*how, **how)
    for model in MODELS[:4]:
        log = place.run_folder(model) / "train.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("--- job 101_0 on n1, Sat Nov 28 19:00:00 2026\n")
    found = {cell.cell.spec.model: cell for cell in read_ledger(place.matrix, place.results).cells}
    assert [found[model].state for model in MODELS[:4]] == ["failed"] * 4
    causes = [found[model].cause for model in MODELS[:4]]
    assert causes == [Cause.MEMORY, Cause.MEMORY, Cause.TIME, Cause.OTHER]
    assert not any("---" in found[model].detail for model in MODELS[:4])


def test_of_a_rank_that_is_gone_slurm_knows_why(place, slurm):
    """Their own sentence would hide a lost node, or a lack of memory that a second try may mend."""
    place.sweep("submit")
    how = {"101_0": "NODE_FAIL", "101_1": "OUT_OF_MEMORY", "101_2": "FAILED"}
    slurm.forget(*how, **how)
    for model in MODELS[:3]:
        leave_checkpoint(place, model)
        error = {"error": "a rank is gone: Connection reset by peer", "cause": Cause.PEER_LOST}
        error |= {"time": "2100-01-01T00:00:00+00:00"}
        write_json(place.run_folder(model) / "error.json", error)
    entries = {
        entry.cell.spec.model: entry for entry in read_ledger(place.matrix, place.results).cells
    }
    assert [(entries[model].state, entries[model].cause) for model in MODELS[:3]] == [
        ("preempted", ""),
        ("failed", "memory"),
        ("preempted", ""),
    ]
    assert entries[MODELS[0]].detail == "job 101_0 NODE_FAIL; it can continue from its checkpoint"


COUNTED = """
import sys
from irnet_hpc.sweep import cli
results, seen = sys.argv[sys.argv.index("--results") + 1], {"open": 0, "os.scandir": 0}
def count(event, arguments):
    if event in seen and str(arguments[0]).startswith(results):
        seen[event] += 1
sys.addaudithook(count)
cli.main(sys.argv[1:])
print(seen["open"], seen["os.scandir"], file=sys.stderr)
"""


def test_ten_thousand_cells_are_read_with_one_question_to_slurm(place, slurm):
    place.path.write_text(
        SMALL.replace("[10, 17, 24]", "[10, 17]") + f"seeds: {list(range(2500))}\nretry: false\n"
    )
    place.path.write_text(place.path.read_text().replace("hours: 3", "hours: 9999"))
    cells = place.matrix.cells
    entries = read_ledger(place.matrix, place.results).cells
    path = journal.begin(place.results, "mine", "slurm", token="feed")
    journal.note(
        path, [{"cell": entry.name, "job": f"1_{i}"} for i, entry in enumerate(entries[25:])]
    )
    queue = "".join(f"1_{i}|PENDING|Priority|irnet:mine|feed\n" for i in range(5, 9975))
    (slurm.folder / "queue").write_text(queue)
    for cell in cells[:20]:
        write_result(place.matrix, cell, place.results)
    for name in ("plan", "status"):
        for what in ("asked", "accounted"):
            (slurm.folder / what).write_text("")
        counted = [sys.executable, "-c", COUNTED, *place.command(name)]
        done = subprocess.run(counted, capture_output=True, text=True, cwd=ROOT, timeout=600)
        assert "10000 cells: 20 done, 9970 queued, 5 failed, 5 missing" in done.stdout, done.stderr
        asked, accounted = (
            (slurm.folder / what).read_text().splitlines() for what in ("asked", "accounted")
        )
        assert len(asked) == 1 and accounted == [
            "--allocations --noheader --parsable2 --format=JobID,ExitCode,State --jobs 1"
        ]
        n_opened, n_listed = map(int, done.stderr.split())
        # The results and the journal; `status` looks for a board of workers, too.
        assert n_opened == 21 + (name == "status")
        assert n_listed <= 10_000 + 2
    arrays = [array for _, array in arrays_of([(entry,) for entry in entries], {}, 1001)]
    assert [len(array) for array in arrays] == [1001] * 9 + [991]
