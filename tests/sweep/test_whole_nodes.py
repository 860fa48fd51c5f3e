"""Hold how cells fill whole nodes: the jobs of workers, their states, and what the plan says."""

import dataclasses
import json
import pickle
from pathlib import Path

import pytest

from irnet_hpc.distributed import slurm_commands
from irnet_hpc.errors import UserError
from irnet_hpc.files import write_json
from irnet_hpc.runs.state_names import CellState
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.estimates import Estimate
from irnet_hpc.sweep.matrix.resources import Resources
from irnet_hpc.sweep.matrix.sites import WholeNodes, read_site
from irnet_hpc.sweep.whole_nodes import n_places, plan_nodes
from tests.sweep.stand_ins import LAST, MODELS, SMALL

NODE = WholeNodes(cores=64, memory_gb=256.0, gpus=4)
SITE = "whole_nodes: {gpus: 4, cores: 64, memory_gb: 256}\nsrun_args: [--hint=nomultithread]\n"


@pytest.fixture
def site(tmp_path) -> str:
    path = tmp_path / "whole.yaml"
    path.write_text(SITE)
    return str(path)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (Resources(), 4),  # a worker a GPU
        (Resources(gpus_per_rank=1, ranks_per_node=2), 2),
        (Resources(gpus_per_rank=8), 0),
        (Resources(cpu_only=True, memory_gb=2), 64),
        (Resources(cpu_only=True, cpus_per_rank=3, memory_gb=2), 21),
        (Resources(cpu_only=True, memory_gb=20), 12),
        (Resources(cpu_only=True, memory_gb=300), 0),
        (Resources(nodes=2), 0),
    ],
)
def test_a_node_takes_as_many_cells_as_its_scarcest_part_allows(resources, expected):
    assert n_places(NODE, resources) == expected
    if resources.gpus_per_rank:
        assert n_places(dataclasses.replace(NODE, gpus=0), resources) == 0


def planned(place, n_cells: int, minutes: float | None, **options):
    """The plan of copies of a cell, each of which takes so many minutes on one of four GPUs."""
    (cell, *_) = place.matrix.cells
    from irnet_hpc.sweep.cell_states import CellStatus

    statuses = [
        CellStatus(
            dataclasses.replace(cell, spec=dataclasses.replace(cell.spec, seed=i)),
            place.results,
            CellState.MISSING,
        )
        for i in range(n_cells)
    ]
    estimated = {s.name: Estimate(minutes=minutes) for s in statuses}
    return plan_nodes(NODE, statuses, estimated, **options)


def test_there_are_as_many_jobs_as_the_work_is_worth(place):
    """A job a node-hour, no more nodes than the cells fill, no more than --at-most."""
    few = planned(place, 8, 1.0)
    assert (few.n_jobs, few.node_hours, few.node_hours_alone) == (1, 2 / 60, 8 / 60)
    many = planned(place, 400, 12.0)
    assert (many.n_jobs, many.node_hours, many.node_hours_alone) == (20, 20.0, 80.0)
    assert many.minutes == 2 * 60 + 30  # twice the share, and a whole cell's limit
    assert planned(place, 400, 12.0, n_nodes=4).n_jobs == 5
    assert planned(place, 400, 12.0, n_nodes=2, at_most=7).n_jobs == 3
    long = planned(place, 4, 600.0)
    assert (long.n_jobs, long.node_hours, long.minutes) == (1, 10.0, 1230)
    assert planned(place, 400, 12.0, at_most=1).minutes == 1440  # the site's longest job
    unknown = planned(place, 4, None)
    assert (unknown.n_unknown, unknown.node_hours_alone) == (4, 2.0)  # 30 minutes each
    with pytest.raises(UserError, match=r"--at-most must be --pack-nodes \(2\) or more, got 1"):
        planned(place, 4, 1.0, n_nodes=2, at_most=1)


def test_the_plan_compares_node_hours_with_one_job_a_cell(place, site, capsys):
    assert place.sweep("plan", "--site", site) == 0
    shown = capsys.readouterr().out
    (line,) = (line for line in shown.splitlines() if line.startswith("whole nodes ("))
    assert "workers train 6 cells" in line and "with one job a cell it is" in line
    assert place.sweep("plan", "--site", site, "--pack-nodes", "2", "--json") == 0
    facts = json.loads(capsys.readouterr().out)["whole_nodes"]
    assert facts["nodes_per_job"] == 2 and facts["cells"] == 6
    assert facts["node_hours_of_one_job_a_cell"] == pytest.approx(4 * facts["node_hours"])
    assert place.sweep("plan") == 0
    assert "whole nodes" not in capsys.readouterr().out


def test_a_site_of_whole_nodes_gets_a_job_of_workers_for_all_cells(place, slurm, site, tmp_path):
    assert place.sweep("submit", "--site", site, "--at-most", "1") == 0
    assert slurm.names() == ["irnet:mine", *LAST]
    script = slurm.scripts()[0]
    for line in ("nodes=1", "ntasks-per-node=1", "gpus-per-node=4", "exclusive", "mem=0"):
        assert f"#SBATCH --{line}\n" in script
    assert "--array" not in script and "\nsrun" not in script and "requeue" in script
    assert "#SBATCH --dependency=afterany:101\n" in slurm.scripts()[-2]
    assert place.states() == dict.fromkeys(MODELS, "queued")
    (job,) = (
        job
        for path in (tmp_path / "state").rglob("*.pkl")
        if hasattr(job := pickle.loads(path.read_bytes()).function, "srun_args")
    )
    assert job.srun_args == ["--hint=nomultithread"]
    assert job.command[2:5] == ["-m", "irnet_hpc.sweep", "work"]
    (token,) = (Path(path).stem.rpartition("-")[2] for path in journals(place))
    assert job.command[-2:] == ["--token", token]


def journals(place) -> list[Path]:
    return list((place.results / ".sweep").glob("[0-9]*.jsonl"))


def test_cells_of_workers_wait_while_any_of_the_jobs_lives(place, slurm, site):
    """A worker's end is no failure of the cells that it left; a reason of its own is one."""
    long = "recipes: [{name: long, base: onecycle, batch: 32, norm_group: 32, "
    long += "epochs: 1000000}]\nretry: false\n"
    place.path.write_text(SMALL + long)
    place.sweep("submit", "--site", site, "--over-budget", "--pack-nodes", "1")
    jobs = [line.split("|")[0] for line in (slurm.folder / "queue").read_text().splitlines()][:-1]
    assert jobs == ["101_0", "101_1"]
    slurm.set_state("101_0", "RUNNING")
    assert set(place.states().values()) == {"queued"}
    assert place.details()["plain-10"] == "for the workers of job 101, 1 at work"
    place.finish("plain-10")
    write_json(
        place.run_folder("plain-17") / "error.json",
        {"error": "it hurts", "time": "2099-01-01T00:00:00+00:00"},
    )
    slurm.forget("101_0", **{"101_0": "NODE_FAIL"})
    expected = {"plain-10": "done", "plain-17": "failed"} | dict.fromkeys(MODELS[2:], "queued")
    assert place.states() == expected
    slurm.forget("101_1", **{"101_1": "COMPLETED"})
    assert place.states() == expected | dict.fromkeys(MODELS[2:], "missing")
    assert place.details()["irnet-24"] == "the workers of job 101 ended before its turn"


def test_a_cell_whose_worker_died_is_queued_while_the_jobs_live(place, slurm, site):
    """The worker's own journal is newer than that of the submission."""
    place.sweep("submit", "--site", site)
    name = str(place.run_folder("plain-10").relative_to(place.results))
    lost = {"cell": name, "process": "1@1", "ended": None, "status": None}
    journal.begin(place.results, "mine", journal.WORKER, "1@1", events=[lost])
    assert set(place.states().values()) == {"queued"}
    slurm.forget("101", **{"101": "COMPLETED"})
    assert set(place.states().values()) == {"missing"}
    assert place.details()["plain-10"].endswith(", was killed")


def test_cells_over_several_nodes_keep_jobs_of_their_own(place, slurm, site):
    wide = "resources: [{minutes: 30}, {for: {depth: 24}, nodes: 2}]"
    place.path.write_text(SMALL.replace("resources: {minutes: 30}", wide))
    assert place.sweep("submit", "--site", site, "--over-budget", "--at-most", "3") == 0
    assert slurm.names() == ["irnet:mine", "irnet:mine", *LAST]
    workers, own = slurm.scripts()[:2]
    assert "#SBATCH --mem=0\n" in workers and "#SBATCH --nodes=2\n" in own
    # --at-most holds for both kinds together.
    assert "afterany:101" in own
    assert set(place.states().values()) == {"queued"}


def test_workers_wait_for_packs_but_not_for_their_success(place, slurm, site):
    (place.packs / "alloys-magpie.h5").unlink()
    place.sweep("submit", "--site", site)
    assert slurm.names()[:2] == ["irnet:pack:alloys-magpie", "irnet:mine"]
    assert "#SBATCH --dependency=afterany:101\n" in slurm.scripts()[1]
    slurm.forget("101", "102", **{"101": "FAILED", "102": "COMPLETED"})
    assert set(place.states().values()) == {"failed"}
    assert place.details()["plain-10"].startswith("its pack alloys-magpie was not built: job 101")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("whole_nodes: {gpus: 4}", "whole_nodes must state cores, got ['gpus']"),
        ("whole_nodes: {cores: 0, memory_gb: 8}", "cores of whole_nodes must be"),
        ("whole_nodes: {cores: 8, memory_gb: 8, gpu: 1}", "gpus"),
        ("whole_nodes: 4", "whole_nodes must be"),
    ],
)
def test_a_wrong_node_is_one_sentence(text, words, tmp_path):
    path = tmp_path / "here.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_site(str(path))
    assert words in str(error.value)


SINFO = """#!/bin/sh
case "$*" in *--partition=gpu*) echo "64|256000|gpu|gpu:a100:4(S:0-1),shard:16";; *)
echo "64|256000|gpu|gpu:a100:4(S:0-1)"; echo "32|128000|cpu*|(null)"; echo "28|131072|cpu*|(null)"
esac
"""


def test_slurm_says_how_large_a_node_is_where_the_site_does_not(place, slurm, capsys):
    with pytest.raises(UserError, match="--pack-nodes needs the size of a node"):
        (slurm.folder / "sinfo").write_text("#!/bin/sh\nexit 1\n")
        (slurm.folder / "sinfo").chmod(0o755)
        place.sweep("submit", "--pack-nodes", "1")
    (slurm.folder / "sinfo").write_text(SINFO)
    assert slurm_commands.smallest_node() == (28, 125.0, 0)
    assert slurm_commands.smallest_node("gpu") == (64, 250.0, 4)
    assert place.sweep("submit", "--pack-nodes", "1") == 0
    assert "gpus-per-node" not in slurm.scripts()[0] and "mem=0" in slurm.scripts()[0]


def test_without_slurm_whole_nodes_are_refused(place):
    with pytest.raises(UserError, match="--pack-nodes 1 needs SLURM"):
        place.sweep("submit", "--pack-nodes", "1", "--cluster", "local")


@pytest.mark.parametrize(
    ("gres", "expected"),
    [("gpu:4", 4), ("gpu:3090:2(S:0)", 2), ("shard:8,gpu:a100:4(S:0-1)", 4), ("(null)", 0)],
)
def test_gpus_are_counted_in_every_notation(gres, expected):
    assert slurm_commands._n_gpus(gres) == expected
