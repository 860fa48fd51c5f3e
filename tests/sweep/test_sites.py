"""Hold how sites are read and what they add to jobs and to a shell."""

import shutil
import subprocess
from pathlib import Path

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.sweep import sbatch
from irnet_hpc.sweep.matrix import sites
from irnet_hpc.sweep.matrix.resources import Resources
from tests.sweep.stand_ins import ROOT, SMALL

ACTIVATE = """
set -eu
cd {}
unset IRNET_VENV
IRNET_SITE=here{}
source env/activate.sh
echo "$- $HERE $(command -v tool)"
echo $UNSET
"""


def activate(folder: Path, more: str = "") -> subprocess.CompletedProcess:
    """What a script with `set -eu` sees after env/activate.sh, with the repository at `folder`."""
    (folder / "env/sites").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "env/activate.sh", folder / "env")
    script = ACTIVATE.format(folder, more)
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
    )


def test_a_sites_shell_lines_may_fail_in_a_script_that_may_not(tmp_path):
    (tmp_path / "env/sites").mkdir(parents=True)
    (tmp_path / "env/sites/here.sh").write_text("x=$UNSET; false; export HERE=there\n")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").write_text("PATH=$IRNET_VENV/bin:$PATH\n")
    (tmp_path / ".venv/bin/tool").write_text("")
    (tmp_path / ".venv/bin/tool").chmod(0o755)
    done = activate(tmp_path)
    options, site, tool = done.stdout.split()
    assert {"e", "u"} <= set(options) and "UNSET: unbound variable" in done.stderr
    assert (site, tool) == ("there", str(tmp_path / ".venv/bin/tool"))


def test_a_conda_prefix_is_an_environment_and_an_empty_folder_is_none(tmp_path):
    (tmp_path / "conda/bin").mkdir(parents=True)
    assert (
        "error: no environment at " in activate(tmp_path, f"; IRNET_VENV={tmp_path}/conda").stderr
    )
    for name in ("python", "tool"):
        (tmp_path / "conda/bin" / name).write_text("")
        (tmp_path / "conda/bin" / name).chmod(0o755)
    done = activate(tmp_path, f"; HERE=; IRNET_VENV={tmp_path}/conda")
    assert done.stdout.split()[1:] == [str(tmp_path / "conda/bin/tool")]


def test_a_site_says_what_the_cluster_wants(place, slurm, tmp_path):
    site = tmp_path / "here.yaml"
    site.write_text("""
account: proj42
partition: gpu
qos: long
constraint: a100
gpus_per_task: 1
modules: [gcc/12]
setup: [export X=1]
srun_args: [--mpi=pmix]
sbatch: {reservation: us, exclusive: true, comment: theirs}
""")
    place.path.write_text(
        SMALL.replace("{minutes: 30}", "{minutes: 30, nodes: 2, ranks_per_node: 4, memory_gb: 1.5}")
    )
    assert place.sweep("submit", "--site", str(site), "--over-budget") == 0
    training, tables = slurm.scripts()[0], slurm.scripts()[-1]
    for line in (
        *(
            "account=proj42",
            "partition=gpu",
            "qos=long",
            "constraint=a100",
            "reservation=us",
            "exclusive",
            "requeue",
        ),
        *(
            "nodes=2",
            "ntasks-per-node=4",
            "cpus-per-task=1",
            "gpus-per-node=4",
            "mem=1536M",
            "time=30",
            "signal=USR2@120",
        ),
    ):
        assert f"#SBATCH --{line}\n" in training
    assert (
        training.index("module load gcc/12")
        < training.index("export X=1")
        < training.index("srun ")
    )
    assert "--mpi=pmix" in training
    assert "gpus" not in tables and "#SBATCH --account=proj42\n" in tables
    assert set(place.states().values()) == {"queued"}  # though the site has a comment of its own


def parameters(tmp_path, text: str) -> dict:
    """What a sweep tells submitit of a training, with a site of these lines."""
    site = tmp_path / "here.yaml"
    site.write_text(text)
    return sbatch.slurm_parameters(
        sites.read_site(str(site)), Resources(), name="x", token="t", after=None, is_training=True
    )


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        ("time: 12:30:00", "time", "12:30:00"),
        ("begin: 16:00", "begin", "16:00"),
        ("deadline: 010", "deadline", "010"),
        ("reservation: 0x10", "reservation", "0x10"),
        ("nice: 0", "nice", 0),
        ("priority: 1.5", "priority", 1.5),
    ],
)
def test_an_option_reaches_sbatch_as_it_was_typed(text, option, value, tmp_path):
    """YAML 1.1 makes 45000 of 12:30:00, which sbatch would take for minutes: 31 days."""
    stated = parameters(tmp_path, f"sbatch: {{{text}}}")["additional_parameters"]
    assert stated[option] == value and type(stated[option]) is type(value)


@pytest.mark.parametrize(
    ("text", "requeue", "no_requeue"),
    [
        ("", True, None),
        ("requeue: true", True, None),
        ("requeue: false", None, True),
        ("requeue: no", None, True),
        ("no-requeue: true", None, True),
        ("no-requeue: false", True, None),
        ("no-requeue: null", True, None),
        ("no_requeue: true", None, True),  # as submitit spells options
    ],
)
def test_a_site_may_forbid_that_its_jobs_are_requeued(text, requeue, no_requeue, tmp_path):
    stated = parameters(tmp_path, f"sbatch: {{{text}}}")["additional_parameters"]
    assert (stated.get("requeue"), stated.get("no-requeue")) == (requeue, no_requeue)
    assert "no_requeue" not in stated


@pytest.mark.parametrize("more", ["[]", "[--mpi=pmix]", "[--export=HOME]"])
def test_ranks_get_the_environment_of_a_job_that_has_none_from_outside(more, tmp_path):
    """Under `export: NONE` srun would pass on nothing; a site's own option comes last and wins."""
    text = f"sbatch: {{export: NONE}}\nsrun_args: {more}"
    found = [o for o in parameters(tmp_path, text)["srun_args"] if o.startswith("--export")]
    assert found[0] == "--export=ALL" and found[1:] == ["--export=HOME"] * ("HOME" in more)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("acount: x", "acount account constraint"),
        ("modules: gcc", "modules list gcc"),
        ("gpus_per_task: true", "gpus_per_task whole True"),
    ],
)
def test_a_site_that_is_wrong_is_one_sentence(tmp_path, text, words):
    (tmp_path / "here.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        sites.read_site(str(tmp_path / "here.yaml"))
    message = str(error.value)
    assert [word for word in words.split() if word not in message] == []
    assert "here.yaml" in message and "\n" not in message


def test_sites_go_by_name_and_by_variable(monkeypatch):
    assert sites.read_site("local_slurm").partition == "main"
    monkeypatch.setenv("IRNET_SITE", "local_slurm")
    assert sites.read_site(None).partition == "main"
    with pytest.raises(UserError, match=r"unknown site 'nowhere'; known: .*local_slurm"):
        sites.read_site("nowhere")
