"""Stop with a sentence and without half a file, whatever a disk or a stranger does wrong."""

import ast
import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
import torch

from irnet_hpc.distributed import rendezvous
from irnet_hpc.distributed.engines import Alone
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, write_json
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.runs.spec import RunSpec, model_of
from irnet_hpc.train.dataset import epoch_order, load
from irnet_hpc.train.model_file import read_tensors, write_tensors
from irnet_hpc.train.warm_start import check_features, read_origin
from tests import builders

ROOT = Path(__file__).parents[2]
LAYERS = "64BARx2-32BAx2R-1"
QUICK = "{name: quick, base: onecycle, epochs: 2, batch: 64, norm_group: 32, precision: fp32}"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def train_command(pack: Path, results: Path) -> list[str]:
    options = f"--property mixing_enthalpy --layers {LAYERS} --engine none".split()
    options += ["--pack", str(pack), "--results", str(results), "--recipe", QUICK]
    return [sys.executable, "-m", "irnet_hpc.train", *options]


def run(command: list[str], **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=ENVIRONMENT, **more
    )


@pytest.fixture(scope="module")
def finished(alloys_pack, tmp_path_factory) -> Path:
    """The folder of a finished run."""
    results = tmp_path_factory.mktemp("finished")
    done = run(train_command(alloys_pack, results))
    assert done.returncode == 0, done.stderr
    return next(results.rglob("result.json")).parent


# -------------------------------------------------------------------------- what is trained on


def test_a_pack_whose_checksum_fails_trains_nothing(alloys_pack, tmp_path):
    damaged = Path(shutil.copy(alloys_pack, tmp_path / "alloys-small.h5"))
    with h5py.File(damaged) as file:
        at = file["x"].id.get_chunk_info(0).byte_offset + 1000
    content = bytearray(damaged.read_bytes())
    content[at] ^= 1
    damaged.write_bytes(content)
    done = run(train_command(damaged, tmp_path / "results"))
    assert done.returncode == 2
    assert (
        done.stderr.startswith(f"error: {damaged} cannot be read as a pack; it is damaged")
        and done.stderr.count("\n") == 1
    )
    assert not list(tmp_path.rglob("result.json"))
    assert "is damaged" in read_json(next(tmp_path.rglob("error.json")))["error"]


def test_features_of_another_version_are_not_those_that_a_model_was_trained_on(
    finished, alloys_pack, tmp_path
):
    with open_pack(alloys_pack) as pack:
        check_features(read_origin(finished), pack)
        other = shutil.copytree(finished, tmp_path / "other")
        result = read_json(other / "result.json")
        result["pack_identity"]["feature_versions"]["elements"] += 1
        write_json(other / "result.json", result)
        with pytest.raises(
            UserError,
            match=r"was trained on version 2 of feature set elements, pack alloys-small has 1",
        ):
            check_features(read_origin(other), pack)


def test_a_loss_that_is_not_finite_stops_with_its_step_its_rows_and_the_rate(alloys_pack, tmp_path):
    """One target is infinite: the step is the one whose batch has that row."""
    recipe = resolve({"name": "t", "base": "paper", "batch": 8, "norm_group": 8, "epochs": 3})
    spec = RunSpec("pack", "mixing_enthalpy", **model_of("8BARx1-1"), recipe="t", seed=5)
    with open_pack(alloys_pack) as pack:
        data = load(pack, spec, recipe, torch.device("cpu"))
    culprit = 100
    data.train.y[culprit] = torch.inf
    place = int(np.flatnonzero(epoch_order(data.train.row, 5, 0) == culprit)[0])
    rows = data.train.row[epoch_order(data.train.row, 5, 0)[place // 8 * 8 : place // 8 * 8 + 8]]
    assert data.train.row[culprit] in rows
    with pytest.raises(UserError) as stopped:
        builders.train(spec, recipe, "key", data, tmp_path, Alone(), torch.device("cpu"))
    assert (
        f"the loss is no longer finite at step {place // 8 + 1} (epoch 1) of {spec.model} "
        "on mixing_enthalpy, learning rate 0.0001, "
        f"rows {', '.join(map(str, rows))} of pack;"
    ) in str(stopped.value)


def test_one_bit_of_a_model_is_not_another_prediction(tmp_path):
    path, tensors = (
        tmp_path / "m.safetensors",
        {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3), "b": torch.ones(2).bfloat16()},
    )
    facts = {"layers": "4-1", "clip": 6.0}
    write_tensors(path, tensors, facts)
    again = tmp_path / "again.safetensors"
    write_tensors(again, tensors, facts)
    assert again.read_bytes() == path.read_bytes()
    found, said = read_tensors(path)
    assert said == facts and all(torch.equal(found[name], tensors[name]) for name in tensors)
    content = path.read_bytes()
    for at in (len(content) - 1, len(content) - 20, content.index(b"4-1")):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(UserError, match=r"m\.safetensors: it is damaged"):
            read_tensors(path)


# --------------------------------------------------------------------------- disks that say no

UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
can_mount = (
    shutil.which("unshare") is not None
    and subprocess.run(
        [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True
    ).returncode
    == 0
)
# Fault -> a shell command that prepares the folder $D with room for $KB, and what is then said.
FAULTS = {
    "full": (
        "mount -t tmpfs -o size=${KB}k tmpfs $D",
        "No space left on device|has no room for a pack|cannot write",
    ),
    "read-only": ("mount -t tmpfs tmpfs $D && mount -o remount,ro $D", "Read-only file system"),
    "forbidden": ("chmod 555 $D", "Permission denied"),
    "quota": ("ulimit -f $KB", "File too large|has no room for a pack|cannot write"),
}
COMMANDS = {
    "pack": "-m irnet_hpc.pack --source alloys --rows 600 --features elements --workers 1 "
    "--pack-dir $D/packs",
    "train": f"-m irnet_hpc.train --property mixing_enthalpy --layers {LAYERS} --engine none "
    "--pack $PACK --results $D/results "
    f"--recipe '{QUICK}'",
    "aggregate": "-m irnet_hpc.aggregate $RUNS --tables $D/tables",
    "predict": "-m irnet_hpc.predict $RUN $CSV -o $D/predictions.csv",
    "sweep": "-m irnet_hpc.sweep run $MATRIX --pack-dir $PACKS --results $D/results",
}


# All of them: IRNET_FUZZ=1. In the suite each fault once or twice, and each command.
SHORT = (
    "pack full",
    "train full",
    "train read-only",
    "aggregate forbidden",
    "predict quota",
    "sweep full",
)
PAIRS = [f"{command} {fault}" for command in COMMANDS for fault in FAULTS]


@pytest.mark.parametrize("pair", PAIRS if os.environ.get("IRNET_FUZZ") else SHORT)
def test_a_disk_that_says_no_is_one_sentence_and_no_half_file(
    pair, finished, alloys_pack, tmp_path
):
    if not can_mount:
        pytest.skip("no file system can be mounted here")
    command, fault = pair.split()
    first, sentence = FAULTS[fault]
    (tmp_path / "D").mkdir()
    (tmp_path / "candidates.csv").write_text("formula,note\n" + f"Fe2O3,{'x' * 900}\n" * 200)
    matrix = tmp_path / "tiny.yaml"
    matrix.write_text(
        "packs: [alloys-small]\nproperties: [mixing_enthalpy]\n"
        f'models: ["{LAYERS}"]\nrecipes: [{QUICK}]\n'
    )
    variables = {
        "D": tmp_path / "D",
        "PACK": alloys_pack,
        "PACKS": alloys_pack.parent,
        "RUN": finished,
        "RUNS": finished.parents[5],
    }
    variables |= {
        "CSV": tmp_path / "candidates.csv",
        "MATRIX": matrix,
        "KB": 8 if command == "aggregate" else 20,
    }
    # root may write where it is forbidden, unless it gives that up
    own = (
        "setpriv --bounding-set -dac_override,-dac_read_search "
        if fault == "forbidden" and os.geteuid() == 0
        else ""
    )
    script = f"{first} || exit 99\n{own}{sys.executable} {COMMANDS[command]}\nstatus=$?\n"
    script += "find $D -type f >&3\nexit $status"
    environment = ENVIRONMENT | {name: str(value) for name, value in variables.items()}
    with (tmp_path / "left").open("w") as left:
        done = subprocess.run(
            [*UNSHARE, "bash", "-c", script.replace(">&3", f">&{left.fileno()}")],
            env=environment, pass_fds=[left.fileno()], capture_output=True, text=True, timeout=600,
        )  # fmt: skip
    if command == "sweep" and fault in (
        "full",
        "quota",
    ):  # the training says it, and the sweep goes on to the next
        assert done.returncode != 0 and "Traceback" not in done.stdout + done.stderr
    else:
        assert done.returncode == 2, done.stdout + done.stderr
        (said,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
        assert re.search(sentence, said) and "Traceback" not in done.stderr
    names = [Path(line).name for line in (tmp_path / "left").read_text().splitlines()]
    finals = {"result.json", "predictions.csv", "model.safetensors", "alloys-elements-n600.h5"}
    assert not finals & set(names) and not [name for name in names if ".tmp" in name]


# ---------------------------------------------------------------------------------- strangers

# Modules and calls that may run code from a file: pickle and what uses it, YAML's tags, shells.
RUNS_CODE = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "imp",
}
CALLS = {
    "eval",
    "exec",
    "torch.load",
    "pd.read_pickle",
    "pandas.read_pickle",
    "os.system",
    "os.popen",
    "yaml.unsafe_load",
    "yaml.full_load",
}


def test_nothing_that_is_read_is_run():
    files = sorted((ROOT / "irnet_hpc").rglob("*.py"))
    for node in (
        node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
            )
            assert not {name.partition(".")[0] for name in names} & RUNS_CODE
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert ast.unparse(node.func) not in CALLS
            assert (
                keywords.get("allow_pickle", "False") == "False"
                and keywords.get("shell", "False") == "False"
            )
            assert (
                ast.unparse(node.func) != "yaml.load" or keywords["Loader"] == "_Loader"
            )  # which is a SafeLoader


def test_no_pickle_is_loaded_from_a_run_that_holds_one(finished, tmp_path):
    """Python raises an audit event whenever an unpickler looks for a class."""
    other = shutil.copytree(finished, tmp_path / "results" / "other")
    evil = np.array([{"a": 1}, Path("x")], dtype=object)
    np.savez(
        other / "test_predictions.npz", material_id=evil, formula=evil, target=evil, prediction=evil
    )
    shutil.copytree(finished, tmp_path / "results" / "same")
    program = """
import sys
sys.addaudithook(lambda event, _: sys.exit(f"{event}") if event == "pickle.find_class" else None)
from irnet_hpc.aggregate import cli as aggregate
from irnet_hpc.runs.collect import collect_runs
from irnet_hpc.runs.predictions import Predictions
from irnet_hpc.train.warm_start import read_origin
from pathlib import Path
predictions = Predictions()
runs, _ = collect_runs(Path(sys.argv[1]))
assert len(runs) == 2
predictions.by_split(runs)
read_origin(runs[0].folder)
print(*predictions.problems.values())
"""
    done = run([sys.executable, "-c", program, str(tmp_path / "results")])
    assert done.returncode == 0, done.stderr
    assert "cannot be read: Object arrays cannot be loaded when allow_pickle=False" in done.stdout


PLACES = ("../x", "/etc/x", "a/b", "..", ".hidden", "a\0b", "")


@pytest.mark.parametrize("name", PLACES)
def test_no_name_leaves_the_folder_of_results_or_packs(name, tmp_path):
    sound = {"pack": "p", "property": "q", **model_of("irnet-17")}
    for field in ("pack", "property", "recipe", "start_from"):
        with pytest.raises(UserError, match=rf"^{field} must be"):
            RunSpec(**sound | {field: name})
    path = builders.write_pack(tmp_path, "alloys-elements", {"band_gap": "eV"})
    with h5py.File(path, "r+") as file:  # the name of a copy on a node
        file.attrs["content_sha256"] = np.bytes_((name or "x").replace("\0", "x").encode())
    with pytest.raises(UserError, match=r"cannot be read as a pack"):
        open_pack(path)


def test_a_name_that_came_with_a_table_does_not_leave_it_either(tmp_path):
    (tmp_path / "t.csv").write_text("formula,../../x\nFeO,1\n")
    (tmp_path / "t.about.json").write_text(json.dumps({"units": {"../../x": "eV"}}))
    with pytest.raises(
        UserError,
        match=r"property.*'\.\./\.\./x'",
    ):
        builders.load_table(str(tmp_path / "t.csv"))


MEET = """
import sys, psutil
from pathlib import Path
from irnet_hpc.distributed.engines import start
comm = start(sys.argv[1], Path(sys.argv[2]))
connections = psutil.Process().net_connections("tcp")
listening = [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]
comm.gather(0)
assert comm.size == 2
if comm.rank == 0:
    print(*listening)
comm.close()
"""


@pytest.mark.parametrize("engine", ["horovod", "torch"])
def test_ranks_of_one_host_listen_on_it_alone(engine, tmp_path):
    if engine == "horovod":
        pytest.importorskip("horovod")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", MEET, engine, str(tmp_path / "meet")],
            env=ENVIRONMENT
            | {"SUBMITIT_LOCAL_GLOBALID": str(rank), "SUBMITIT_LOCAL_LOCALID": str(rank)}
            | {"SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_JOB_ID": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said, errors = ranks[0].communicate(timeout=600)
    ranks[1].communicate(timeout=600)
    assert ranks[0].returncode == ranks[1].returncode == 0, errors
    assert set(said.split()) == {"127.0.0.1"}


def test_rank_0_of_several_hosts_listens_where_its_name_says(monkeypatch):
    """Of two addresses the one that its name means; if that is neither, both."""
    address = dataclasses.make_dataclass("Address", ["family", "address"])
    cards = {"lo": "127.0.0.1", "ib0": "10.0.0.7", "eth0": "192.0.2.7"}
    monkeypatch.setattr(
        psutil, "net_if_addrs", lambda: {n: [address(socket.AF_INET, a)] for n, a in cards.items()}
    )
    for variable in ("HOROVOD_GLOO_IFACE", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "192.0.2.7")
    assert rendezvous.job_addresses() == ["192.0.2.7"]
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "127.0.1.1")
    assert rendezvous.job_addresses() == ["10.0.0.7", "192.0.2.7"]
    monkeypatch.setenv("HOROVOD_GLOO_IFACE", "ib0")
    assert rendezvous.job_addresses() == ["10.0.0.7"]
