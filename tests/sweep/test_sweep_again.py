"""What a sweep does about cells that are held, killed, failed or unwanted: leases in the ledger, retry, reconcile, prune.

Stand-ins for SLURM and for trainings are those of test_sweep.py; at the end real trainings contend for real.
"""
# ruff: noqa: F811  fixtures are imported by their names

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from irnet_hpc.console import ExitStatus, exit_status
from irnet_hpc.distributed.processes import process_name
from irnet_hpc.errors import UserError
from irnet_hpc.files import write_json
from irnet_hpc.runs import lease
from irnet_hpc.runs.spec import run_key
from irnet_hpc.sweep import cli as sweep
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.ledger import read_ledger
from irnet_hpc.sweep.matrix.matrix import read_matrix
from irnet_hpc.sweep.matrix.resources import Resources, Retry, with_more
from irnet_hpc.sweep.submit import _arrays
from irnet_hpc.train import cli as train
from irnet_hpc.train import run_writer as folder
from tests.builders import write_result
from tests.runs.test_lease import lose, start
from tests.sweep.test_sweep import (  # noqa: F401
    LAST,
    MODELS,
    ROOT,
    SMALL,
    command,
    place,
    slurm,
    stand_in,
    wait_until,
)

HOLD = """
import sys
from irnet_hpc.runs import lease as holding
with holding.released_after():
    holding.take(sys.argv[1])
    print("holds", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(place):
    """A process that trains plain-10, though no sweep has started it."""
    process = start(HOLD, place.run_folder("plain-10"))
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.communicate()


def leave_checkpoint(place, model: str, key: str | None = None) -> None:
    cell, run = place.cell(model), place.run_folder(model)
    own = run_key(cell.spec, cell.recipe, place.matrix.packs[0].identity)
    write_json(
        run / "run.json", {"spec": dataclasses.asdict(cell.spec), "key": key or own, "attempts": []}
    )
    write_json(run / "checkpoint" / "a.json", {"key": key or own})


# --------------------------------------------------------------------------------------------------------------- states


def test_a_training_that_no_sweep_has_started_is_running_while_it_holds_its_lease(
    place, holder, capsys
):
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
        and "(job 17_3), heard of " in place.details()["plain-10"]
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
    late = {"error": "out of time after 30 min", "time": "2026-01-01T00:00:00+00:00"}
    write_json(place.run_folder("irnet-10") / "error.json", late)
    found = place.states()
    assert [found[model] for model in MODELS[:4]] == ["preempted", "missing", "failed", "preempted"]
    assert place.details()["irnet-10"] == "out of time after 30 min"
    assert place.sweep("run") == 0
    assert set(place.states().values()) == {"done"}


def test_what_ended_by_a_signal_is_preempted_and_what_took_too_much_memory_has_failed(
    place, slurm, capsys
):
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
    assert place.details()["plain-10"] == "job 101_0 TIMEOUT, with a checkpoint to go on from"
    assert place.details()["irnet-10"] == "job 101_3 FAILED: RuntimeError: the reason"
    capsys.readouterr()
    place.sweep("status")
    shown = capsys.readouterr().out
    assert (
        f"irnet-10/onecycle/honest/seed0: job 101_3 FAILED: RuntimeError: the reason; log {log}\n"
        in shown
    )


def test_of_a_rank_that_is_gone_slurm_knows_why(place, slurm):
    """The others can only say that it is; that sentence would hide a lost node, or memory that a second try may double."""
    place.sweep("submit")
    how = {"101_0": "NODE_FAIL", "101_1": "OUT_OF_MEMORY", "101_2": "FAILED"}
    slurm.forget(*how, **how)
    for model in MODELS[:3]:
        leave_checkpoint(place, model)
        folder.failed(
            place.run_folder(model), "a rank is gone, so this one stops: Connection reset by peer"
        )
    entries = {
        entry.cell.spec.model: entry for entry in read_ledger(place.matrix, place.results).cells
    }
    assert [(entries[model].state, entries[model].cause) for model in MODELS[:3]] == [
        ("preempted", ""),
        ("failed", "memory"),
        ("preempted", ""),
    ]
    assert entries[MODELS[0]].detail == "job 101_0 NODE_FAIL, with a checkpoint to go on from"


COUNTED = """
import sys
from irnet_hpc.sweep import cli as sweep
results, seen = sys.argv[sys.argv.index("--results") + 1], {"open": 0, "os.scandir": 0}
def count(event, arguments):
    if event in seen and str(arguments[0]).startswith(results):
        seen[event] += 1
sys.addaudithook(count)
sweep.main(sys.argv[1:])
print(seen["open"], seen["os.scandir"], file=sys.stderr)
"""


def test_ten_thousand_cells_are_one_question_to_squeue_and_sacct_one_look_at_each_folder_and_a_file_for_each_result(
    place, slurm
):
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
            "--allocations --noheader --parsable2 --format=JobID,State --jobs 1"
        ]
        n_opened, n_listed = map(int, done.stderr.split())
        assert n_opened == 21  # the results and the journal
        assert n_listed <= 10_000 + 2
    arrays = [array for _, array in _arrays([(entry,) for entry in entries], {}, 1001)]
    assert [len(array) for array in arrays] == [1001] * 9 + [991]


# ------------------------------------------------------------------------------------------------------------------ run


def test_run_does_not_take_up_what_is_being_trained_already(place, stand_in, holder, capsys):
    assert place.sweep("run") == 0
    assert "mine: 5 cells done, 0 failures, in" in capsys.readouterr().out
    assert place.states() == dict.fromkeys(MODELS, "done") | {"plain-10": "running"}


def test_what_another_process_takes_up_meanwhile_is_left_to_it_and_trained_at_the_end_if_it_is_gone(
    place, stand_in, tmp_path, capsys
):
    """plain-10's training starts a process that takes plain-17, and irnet-24's ends it again."""
    hold = tmp_path / "hold.py"
    hold.write_text(
        HOLD.replace(
            "sys.stdin.read()", "open(sys.argv[2], 'w').write('x'); import time; time.sleep(600)"
        )
    )
    prepared = {
        cell.spec.model: write_result(place.matrix, cell, tmp_path / "prepared")
        for cell in place.matrix.cells
    }
    target, held = place.run_folder("plain-17"), tmp_path / "held"
    env = f"PYTHONPATH={ROOT} exec {sys.executable} {hold} {target} {held}"
    stand_in["plain-10"] = (
        f"setsid sh -c '{env}' >/dev/null 2>&1 & echo $! >{tmp_path}/pid; "
        f"until [ -e {held} ]; do sleep 0.05; done; cp {prepared['plain-10']} {place.run_folder('plain-10')}"
    )
    stand_in["irnet-24"] = (
        f"kill -9 $(cat {tmp_path}/pid); cp {prepared['irnet-24']} {place.run_folder('irnet-24')}"
    )
    assert place.sweep("run") == 0
    shown = capsys.readouterr().out
    assert (
        "[2/6] alloys-magpie/mixing_enthalpy/plain-17/onecycle/honest/seed0 is being trained elsewhere, by "
        in shown
    )
    assert "looking again at 1 cells\n[1/1] alloys-magpie/mixing_enthalpy/plain-17" in shown
    assert "mine: 6 cells done, 0 failures, in" in shown


def test_a_training_that_is_killed_for_its_memory_is_tried_once_more_at_the_end(
    place, stand_in, capsys
):
    stand_in["plain-10"] = f"echo try >>{place.folder}/tries; kill -9 $$"
    stand_in["plain-17"] = (
        f"[ -e {place.folder}/full ] || {{ touch {place.folder}/full; kill -9 $$; }}; exit 3"
    )
    assert place.sweep("run") == 1
    shown = capsys.readouterr().out
    assert (place.folder / "tries").read_text() == "try\n" * 2
    assert "looking again at 2 cells" in shown and "mine: 4 cells done, 2 failures" in shown
    found = place.states()
    assert (found["plain-10"], found["plain-17"]) == ("failed", "failed")
    assert [entry.cause for entry in read_ledger(place.matrix, place.results).cells][:2] == [
        "memory",
        "",
    ]


# ---------------------------------------------------------------------------------------------------------------- retry


def fail(place, *models: str) -> list[Path]:
    paths = [place.run_folder(model) / "error.json" for model in models]
    for path in paths:
        write_json(path, {"error": "it hurts", "time": "2026-01-01T00:00:00+00:00"})
    return paths


def answers(monkeypatch, text: str) -> list[str]:
    asked = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: (asked.append(question), text)[1])
    return asked


def test_retry_trains_the_failed_cells_alone_once_it_is_agreed_to(
    place, stand_in, monkeypatch, capsys
):
    paths = fail(place, "plain-10", "irnet-10")
    with pytest.raises(UserError, match=r"2 failed cells have reasons .* add --yes for yes"):
        place.sweep("retry", "--failed", "--cluster", "local")
    asked = answers(monkeypatch, "")
    assert place.sweep("retry", "--failed", "--cluster", "local") == 0
    assert asked == ["2 failed cells have reasons that will be removed; train them again? [y/N] "]
    assert all(path.exists() for path in paths) and "nothing was started" in capsys.readouterr().out
    answers(monkeypatch, "y")
    assert place.sweep("retry", "--failed", "--cluster", "local") == 0
    done = {"plain-10": "done", "irnet-10": "done"}
    assert place.states() == dict.fromkeys(MODELS, "missing") | done
    assert not any(path.exists() for path in paths)
    assert place.sweep("retry", "--failed", "--cluster", "local") == 0
    assert "nothing to run" in capsys.readouterr().out


def test_retry_goes_through_slurm_where_there_is_one(place, slurm):
    fail(place, "plain-10", "irnet-10")
    assert place.sweep("retry", "--failed", "--yes") == 0
    assert slurm.names() == ["irnet:mine", *LAST]
    assert "#SBATCH --array=0-1%2\n" in slurm.scripts()[0]
    assert place.states() == dict.fromkeys(MODELS, "missing") | {
        "plain-10": "queued",
        "irnet-10": "queued",
    }


def test_a_stale_result_is_replaced_only_where_somebody_says_yes(place, stand_in, monkeypatch):
    place.finish("plain-10", key="other")
    before = (place.run_folder("plain-10") / "result.json").read_bytes()
    with pytest.raises(UserError, match="1 stale cells have results that will be replaced"):
        place.sweep("run", "--stale")
    answers(monkeypatch, "n")
    assert place.sweep("run", "--stale") == 0
    assert (place.run_folder("plain-10") / "result.json").read_bytes() == before
    assert set(place.states().values()) == {"stale", "missing"}  # nothing at all was started
    answers(monkeypatch, "yes")
    assert place.sweep("run", "--stale") == 0
    assert place.states()["plain-10"] == "done"


# ------------------------------------------------------------------------------------------------------------ reconcile


def end_trainings(place, slurm, **how: str) -> str:
    """The trainings leave the queue, and the job that waits for them begins. Returns the token of their submission."""
    (path,) = (place.results / ".sweep").glob("*.jsonl")
    slurm.forget(*(f"101_{i}" for i in range(4)), "102_0", "102_1", **how)
    (slurm.folder / "scontrol").write_text(
        f'#!/bin/sh\necho "$*" >>{slurm.folder}/told; echo "MaxArraySize = 4"'
    )
    return journal.token_of(path)


def test_what_lacked_memory_or_time_is_submitted_once_more_with_more_before_the_tables(
    place, slurm, monkeypatch, capsys
):
    place.path.write_text(SMALL.replace("{minutes: 30}", "{minutes: 30, memory_gb: 8}"))
    place.sweep("submit")
    how = {"101_0": "OUT_OF_MEMORY", "101_1": "TIMEOUT", "101_2": "FAILED", "101_3": "COMPLETED"}
    token = end_trainings(place, slurm, **how, **{"102_0": "CANCELLED by 0", "102_1": "COMPLETED"})
    place.finish("irnet-10", "irnet-24")
    write_json(
        place.run_folder("irnet-17") / "error.json",
        {"error": "CUDA out of memory. Tried", "time": "2100-01-01T00:00:00+00:00"},
    )
    monkeypatch.setenv("SLURM_JOB_ID", "103")
    capsys.readouterr()
    assert place.sweep("reconcile", "--token", token) == 0
    shown = capsys.readouterr().out
    assert (
        "plain-10/onecycle/honest/seed0: job 101_0 OUT_OF_MEMORY, without a result; memory_gb 8 -> 16\n"
        in shown
    )
    assert (
        "plain-17/onecycle/honest/seed0: job 101_1 TIMEOUT, without a result; minutes 30 -> 60\n"
        in shown
    )
    assert "irnet-17/onecycle/honest/seed0: CUDA out of memory. Tried; memory_gb 8 -> 16\n" in shown
    memory, minutes = slurm.scripts()[4:]
    assert (
        "#SBATCH --mem=16384M\n" in memory
        and "#SBATCH --time=30\n" in memory
        and "--array=0-1%2" in memory
    )
    assert (
        "#SBATCH --mem=8192M\n" in minutes
        and "#SBATCH --time=60\n" in minutes
        and "--array" not in minutes
    )
    told = (slurm.folder / "told").read_text().splitlines()
    assert (
        told[-1] == "update JobId=104 Dependency=afterany:105:106:103"
    )  # what is new, and this very job
    found = place.states()
    assert [found[model] for model in MODELS] == [
        "queued",
        "queued",
        "failed",
        "done",
        "queued",
        "done",
    ]
    assert place.sweep("reconcile", "--token", token) == 0
    assert "nothing has ended" in capsys.readouterr().out and len(slurm.scripts()) == 6


@pytest.mark.parametrize(
    ("cause", "limits", "more"),
    [
        ("memory", Retry(), Resources(memory_gb=16, minutes=60)),
        ("memory", Retry(memory_gb=12, minutes=1), Resources(memory_gb=12, minutes=60)),
        ("memory", Retry(memory_gb=8), None),
        ("time", Retry(memory_gb=8), Resources(memory_gb=8, minutes=120)),
        ("time", Retry(minutes=90), Resources(memory_gb=8, minutes=90)),
        ("time", Retry(minutes=30), None),
    ],
)
def test_more_is_twice_as_much_and_never_beyond_the_limit(cause, limits, more):
    assert with_more(Resources(memory_gb=8, minutes=60), cause, limits) == more


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "retry: {memory: 64}",
            "unknown key of retry 'memory' (did you mean 'memory_gb'?); known: memory_gb, minutes",
        ),
        ("retry: {minutes: 0}", "minutes must be a whole number from 1 to 1,000,000, however: 0"),
        ("retry: 3", "retry must be a mapping, however: 3"),
    ],
)
def test_limits_that_are_wrong_are_one_sentence(place, text, sentence):
    place.path.write_text(SMALL + text)
    with pytest.raises(UserError) as error:
        read_matrix(place.path, place.packs)
    assert str(error.value) == f"{place.path}: {sentence}"


def test_a_matrix_may_want_nothing_tried_again(place, slurm):
    place.path.write_text(SMALL + "retry: false\n")
    place.sweep("submit")
    assert slurm.names() == ["irnet:mine", "irnet:mine", "irnet:tables:mine"]
    assert "#SBATCH --dependency=afterany:101:102\n" in slurm.scripts()[-1]


# ---------------------------------------------------------------------------------------------------------------- prune


@pytest.fixture
def littered(place, tmp_path):
    """Results with one thing of each kind that may go, and one like each that may not."""
    place.finish("plain-10", "plain-17")
    leave_checkpoint(place, "plain-10")  # of a finished run
    leave_checkpoint(place, "plain-24")  # which a preempted one wants
    unwanted = place.folder / "other.yaml"
    unwanted.write_text(SMALL.replace("[10, 17, 24]", "[48]"))
    for cell in read_matrix(unwanted, place.packs).cells:
        write_result(read_matrix(unwanted, place.packs), cell, place.results)
    (place.results / "notes").mkdir()
    (place.results / "notes/mine.txt").write_text("not a run")
    outside = tmp_path / "outside"
    outside.mkdir()
    write_json(outside / "result.json", {})
    (place.results / "linked").symlink_to(outside)
    old, new = (
        place.run_folder("irnet-17") / f".model.{digit * 8}.tmp.safetensors" for digit in "01"
    )
    old.parent.mkdir(parents=True)
    for path in (old, new):
        path.write_bytes(b"x" * 1000)
    os.utime(old, (time.time() - 7200,) * 2)
    path = journal.begin(place.results, "mine", "local", "999999999@1")
    for token in (journal.token_of(path), "another"):
        write_json(tmp_path / f"state/submitit/mine-{token}/1_submitted.json", {})
    return place


def tree(place) -> set[str]:
    # the state's own folder is made when it is asked for
    return {
        str(path.relative_to(place.folder)) for path in place.folder.rglob("*") if path.is_file()
    }


def test_prune_removes_what_nobody_wants_and_nothing_else(littered, monkeypatch, capsys):
    place, before = littered, tree(littered)
    with pytest.raises(UserError, match="add --yes for yes"):
        place.sweep("prune")
    answers(monkeypatch, "n")
    assert place.sweep("prune") == 0
    assert tree(place) == before and "nothing was removed" in capsys.readouterr().out
    (token,) = [journal.token_of(path) for path in (place.results / ".sweep").glob("*.jsonl")]
    assert place.sweep("prune", "--yes") == 0
    shown = capsys.readouterr().out
    base = "results/alloys-magpie/mixing_enthalpy"
    assert before - tree(place) == {
        f"{base}/plain-48/onecycle/honest/seed0/result.json",
        f"{base}/irnet-48/onecycle/honest/seed0/result.json",
        f"{base}/plain-10/onecycle/honest/seed0/checkpoint/a.json",
        f"{base}/irnet-17/onecycle/honest/seed0/.model.00000000.tmp.safetensors",
        f"state/submitit/mine-{token}/1_submitted.json",
    }
    assert "    0.001 MB  temporary file " in shown and "removed 5 of 5" in shown
    assert not (place.results / "alloys-magpie/mixing_enthalpy/plain-48").exists()
    assert place.sweep("prune", "--yes") == 0
    assert "nothing to prune" in capsys.readouterr().out


def test_prune_keeps_what_another_matrix_wants_and_what_is_being_trained(littered, capsys):
    place = littered
    other = place.folder / "other.yaml"
    run = place.results / "alloys-magpie/mixing_enthalpy/plain-48/onecycle/honest/seed0"
    process = start(HOLD, run)
    assert process.stdout.readline() == "holds\n"
    assert place.sweep("prune", "--yes") == 0
    assert (run / "result.json").exists()
    process.communicate()
    assert place.sweep("prune", "--yes") == 0  # it has been given back, and nobody wants it
    assert not run.exists()
    for cell in read_matrix(other, place.packs).cells:
        write_result(read_matrix(other, place.packs), cell, place.results)
    run.parents[2].rename(
        run.parents[2].with_name("kept")
    )  # not where a run of its kind belongs: somebody's copy
    capsys.readouterr()
    assert sweep.main(["prune", str(other), *place.command("prune")[1:]]) == 0
    assert "nothing to prune" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------------- for real


TINY = "{name: tiny, base: onecycle, precision: fp32, batch: 64, norm_group: 32, epochs: 2}"


@pytest.mark.parametrize(
    "model", [["--layers", "32BAx2-1", "--recipe", TINY], ["--architecture", "linear"]]
)
def test_a_second_train_of_a_held_run_ends_as_held_and_leaves_nothing_there(
    tmp_path, alloys_pack, capsys, model
):
    options = [
        "--pack",
        str(alloys_pack),
        "--property",
        "mixing_enthalpy",
        *model,
        "--results",
        str(tmp_path),
    ]
    assert exit_status(lambda: train.main(options)) == 0
    (result,) = tmp_path.rglob("result.json")
    assert not (result.parent / lease.LEASE_FILE).exists()
    result.unlink()
    process = start(HOLD, result.parent)
    assert process.stdout.readline() == "holds\n"
    before = sorted(path.name for path in result.parent.iterdir())
    assert exit_status(lambda: train.main(options)) == ExitStatus.HELD
    assert sorted(path.name for path in result.parent.iterdir()) == before
    assert f"is being trained by process {process.pid} on " in capsys.readouterr().err
    process.communicate()
    assert exit_status(lambda: train.main(options)) == 0


def test_an_error_of_any_kind_is_left_in_one_line_and_the_lease_given_back(
    tmp_path, alloys_pack, monkeypatch
):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried\nto allocate")

    monkeypatch.setattr(folder, "write_history", broken)
    options = [
        "--pack",
        str(alloys_pack),
        "--property",
        "mixing_enthalpy",
        "--layers",
        "32BAx2-1",
        "--recipe",
        TINY,
    ]
    with pytest.raises(RuntimeError):
        train.main([*options, "--results", str(tmp_path)])
    (path,) = tmp_path.rglob("error.json")
    assert json.loads(path.read_text())["error"] == "RuntimeError: CUDA out of memory. Tried"
    assert not (path.parent / lease.LEASE_FILE).exists()


TWELVE = f"""
packs: [alloys-small]
properties: [mixing_enthalpy, size_mismatch]
models: [64BARx2-1, 32BAx2-1]
recipes: [{TINY}]
seeds: [0, 1, 2]
"""


@pytest.mark.slow
def test_of_two_real_sweeps_at_once_each_cell_is_trained_by_one_though_the_journal_is_lost(
    tmp_path, alloys_pack
):
    """With it the second would find nothing to run (test_sweep.py): here only the leases stand between the two."""
    (tmp_path / "twelve.yaml").write_text(TWELVE)
    results = tmp_path / "results"
    places = ["--results", results, "--pack-dir", alloys_pack.parent]
    again = [sys.executable, "-m", "irnet_hpc.sweep", "run", tmp_path / "twelve.yaml", *places]
    two = [subprocess.Popen(again, cwd=ROOT, stdout=subprocess.PIPE, text=True)]
    wait_until(lambda: list(results.rglob(lease.LEASE_FILE)))
    for path in (results / ".sweep").glob("*.jsonl"):
        path.unlink()
    two.append(subprocess.Popen(again, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    shown = [process.communicate(timeout=600)[0] for process in two]
    assert [process.returncode for process in two] == [0, 0], shown
    logs = [path.read_text() for path in results.rglob("train.log")]
    assert len(logs) == 12 and all(log.count("\nwrote ") == 1 for log in logs)
    runs = [json.loads(path.read_text()) for path in results.rglob("result.json")]
    assert [len(run["attempts"]) for run in runs] == [1] * 12
    assert "is being trained elsewhere, by process " in "".join(shown)


@pytest.mark.slow
def test_a_training_that_is_stopped_and_wakes_up_late_leaves_the_new_ones_run_alone(
    tmp_path, alloys_pack
):
    options = [
        "--pack",
        str(alloys_pack),
        "--property",
        "mixing_enthalpy",
        "--layers",
        "64BARx2-1",
        "--results",
    ]
    recipe = TINY.replace("epochs: 2", "epochs: 3000")
    again = [sys.executable, "-m", "irnet_hpc.train", *options, str(tmp_path), "--recipe", recipe]
    environment = os.environ | {"IRNET_LEASE_S": "2"}
    late = subprocess.Popen(
        again,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: list(tmp_path.rglob("history.csv")))
    late.send_signal(signal.SIGSTOP)
    (history,) = tmp_path.rglob("history.csv")
    of_late = history.stat().st_ino
    time.sleep(2.5)
    new = subprocess.Popen(again, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    wait_until(lambda: lease.read_lease(history.parent).lease.process == process_name(new.pid))
    wait_until(
        lambda: history.stat().st_ino != of_late and len(history.read_text().splitlines()) > 3
    )
    late.send_signal(signal.SIGCONT)
    _, said = late.communicate(timeout=600)
    assert late.returncode == 2
    assert f"error: process {new.pid} on " in said and "has taken over" in said
    new.send_signal(signal.SIGTERM)
    assert new.wait(600) == train.PREEMPTED
    epochs = [int(line.split(",")[0]) for line in history.read_text().splitlines()[1:]]
    assert epochs == list(range(len(epochs)))  # the late one has added none
    assert (
        not (history.parent / "error.json").exists()
        and not (history.parent / lease.LEASE_FILE).exists()
    )
