"""What commands say: a bar on a terminal, one object with --json, and at the end what was written and what to do next."""

import contextlib
import fcntl
import importlib
import io
import json
import os
import pty
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from irnet_hpc import completion
from irnet_hpc.console import exit_status
from irnet_hpc.files import read_json, write_json
from irnet_hpc.runs.recipes import RECIPES, fitting_batch, resolve
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.sweep import cli as sweep
from irnet_hpc.sweep import progress as cells_bar
from irnet_hpc.train import progress as epochs_bar
from irnet_hpc.train.cli import outcome_of

ROOT = Path(__file__).parents[2]
TINY = "{name: tiny, base: onecycle, epochs: 2, batch: 32, norm_group: 32, precision: fp32}"
NETWORK = (
    f"--pack alloys-elements-n120 --property mixing_enthalpy --layers 16BARx1-1 --recipe '{TINY}'"
)
RUN = "results/alloys-elements-n120/mixing_enthalpy/custom-*/tiny/honest/seed0"
MATRIX = f"""
packs: [alloys-elements-n120]
properties: [mixing_enthalpy]
models: [16BARx1-1]
recipes: [{TINY}]
seeds: [0, 1]
resources: {{minutes: 1}}
"""
# In this order, in one folder; what each writes, and none of that where it only looks.
CALLS = {
    "pack": (
        "pack --source alloys --rows 120 --features elements --workers 1",
        "packs/alloys-elements-n120.h5",
    ),
    "pack again": (
        "pack --source alloys --rows 120 --features elements --workers 1",
        "packs/alloys-elements-n120.h5",
    ),
    "pack --info": ("pack --info packs/alloys-elements-n120.h5", ""),
    "train": (f"train {NETWORK}", f"{RUN}/result.json"),
    "train again": (f"train {NETWORK}", f"{RUN}/result.json"),
    "train a classical model": (
        "train --pack alloys-elements-n120 --property mixing_enthalpy --architecture ridge",
        "results/alloys-elements-n120/mixing_enthalpy/ridge/grid/honest/seed0/result.json",
    ),
    "sweep plan": ("sweep plan m.yaml", ""),
    "sweep status": ("sweep status m.yaml", ""),
    "sweep submit": ("sweep submit m.yaml --cluster local", "results/tables.log"),
    "sweep run": ("sweep run m.yaml", "results"),
    "sweep run again": ("sweep run m.yaml", ""),
    "sweep retry": ("sweep retry m.yaml --failed --cluster local", ""),
    "sweep prune": ("sweep prune m.yaml --yes", ""),
    "sweep prune again": ("sweep prune m.yaml", ""),
    "aggregate": ("aggregate", "results/tables/mae"),
    "aggregate --html": ("aggregate results --html report.html", "report.html"),
    "predict": (f"predict {RUN} formulas.csv -o predictions.csv", "predictions.csv"),
    "predict .gz": (f"predict {RUN} formulas.csv -o predictions.csv.gz", "predictions.csv.gz"),
    "export": (f"export {RUN} model.onnx", "model.onnx"),
    "tensorboard": ("tensorboard", "results/tensorboard"),
    "doctor": ("doctor --only machine", ""),
}


def said(command: str) -> str:
    """What a command prints, run here."""
    name, *arguments = shlex.split(command)
    arguments = [
        path
        for word in arguments
        for path in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
    ]
    module = importlib.import_module(
        f"irnet_hpc.{name}" if name in ("completion", "tensorboard") else f"irnet_hpc.{name}.cli"
    )
    out, argv, term = io.StringIO(), sys.argv, signal.getsignal(signal.SIGTERM)
    hangup = signal.getsignal(signal.SIGHUP)
    sys.argv = [name, *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            assert exit_status(module.main) in (0, 1 if name == "doctor" else 0), out.getvalue()
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, term)
        signal.signal(signal.SIGHUP, hangup)
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which everything is said."""
    place, before = tmp_path_factory.mktemp("saying"), Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("IRNET_", "SLURM_"))]:
            patch.delenv(name)
        patch.setenv("IRNET_OFFLINE", "1")
        patch.setenv("PYTHONPATH", str(ROOT))
        # Where it is started is the one thing that nobody waits for here: test_sweep.py has it.
        patch.setattr(sweep, "to_background", lambda *_: (Path("results/tables.log"), "1"))
        patch.setattr(sweep, "max_array_size", lambda: None)
        os.chdir(place)
        (place / "m.yaml").write_text(MATRIX)
        (place / "formulas.csv").write_text("formula\nAlNiTi\n")
        yield place
        os.chdir(before)


@pytest.fixture(scope="module")
def ends(folder) -> dict[str, str]:
    """Call -> all that it said; one whose library is not here is not there."""
    found = {}
    for name, (command, _) in CALLS.items():
        if name == "export" and not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
            continue
        if name == "sweep prune":  # something to prune: a run of no cell of the matrix
            shutil.copytree(next(folder.glob(RUN)).parents[1], folder / "results/other")
        found[name] = said(command)
    return found


@pytest.fixture(scope="module")
def parsers():
    return completion.parsers()


@pytest.mark.parametrize("name", CALLS)
def test_a_command_ends_with_what_it_wrote_and_a_command_that_can_be_typed(
    name, ends, folder, parsers
):
    if name not in ends:
        pytest.skip("needs the extra onnx")
    lines, written = ends[name].splitlines(), CALLS[name][1]
    assert re.search("(^|once mended, )next: ", lines[-1]), ends[name]
    if written:
        found = {str(path.relative_to(folder)) for path in folder.glob(written)} or {written}
        assert any(one in line for one in found for line in lines), ends[name]
    words = shlex.split(lines[-1].partition("next: ")[2].partition(" | ")[0])
    if words[:2] == ["python", "-m"] and words[2].startswith("irnet_hpc."):
        parsers[words[2].removeprefix("irnet_hpc.")].parse_args(words[3:])
        named = [word for word in words[3:] if word.endswith((".yaml", ".h5"))]
    else:
        named = words[-1:]
        assert shutil.which(words[0]) or words[0] in (
            "tensorboard",
            "less",
        )  # which not every machine has
    assert all((folder / one).exists() for one in named), words


def test_what_comes_next_follows_from_how_the_matrix_stands(ends):
    next_of = {name: text.splitlines()[-1].removeprefix("next: ") for name, text in ends.items()}
    verb = "submit" if shutil.which("sbatch") else "run"
    assert (
        next_of["sweep plan"]
        == next_of["sweep status"]
        == f"python -m irnet_hpc.sweep {verb} m.yaml"
    )
    assert next_of["sweep submit"] == "python -m irnet_hpc.sweep status m.yaml --watch"
    assert (
        next_of["sweep run"]
        == next_of["sweep run again"]
        == "python -m irnet_hpc.aggregate results --matrix m.yaml"
    )


def test_what_a_pack_proposes_fits_its_rows(ends, parsers):
    """Of 120 alloys 95 train, in batches of 4 for 16 steps an epoch at least; the default's 512 would be refused."""
    words = shlex.split(ends["pack"].splitlines()[-1].removeprefix("next: "))
    recipe = resolve(yaml.safe_load(parsers["train"].parse_args(words[3:]).recipe))
    assert (recipe.batch, recipe.norm_group, recipe.learning_rate) == (
        4,
        4,
        RECIPES["onecycle"].learning_rate,
    )
    assert (fitting_batch(394), fitting_batch(1600), fitting_batch(3)) == (16, 64, 2)


# ----------------------------------------------------------------------------------------------------------------- --json


def answer(*arguments: object, status: int = 0) -> tuple[dict, str]:
    """The object that is all of stdout, and what stands on stderr."""
    command = [sys.executable, "-m", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout), done.stderr


def test_train_answers_with_each_run_as_its_result_has_it(ends, folder):
    recipe = "{name: %s, base: onecycle, schedule: constant, learning_rate: %s, loss: mse, precision: fp32, epochs: %s}"
    cells = [recipe % ("slow", 1e-5, 2), recipe % ("wild", 10.0, 40)]
    cells = ", ".join(
        f"{{recipe: {one.replace('fp32', 'fp32, batch: 32, norm_group: 32')}}}" for one in cells
    )
    network = shlex.split(NETWORK.partition(" --layers")[0])
    told, lines = answer(
        "irnet_hpc.train",
        *network,
        "--layers",
        "64x30-1",
        "--seed",
        "5",
        "--bundle",
        f"[{cells}]",
        status=2,
    )
    assert told["state"] == "failed" and [run["state"] for run in told["runs"]] == [
        "done",
        "failed",
    ]
    done, failed = told["runs"]
    result = read_json(Path(done["folder"]) / "result.json")
    assert {name: done[name] for name in ("test_mae", "val_mae", "unit", "epochs")} == {
        name: result[name] for name in ("test_mae", "val_mae", "unit", "epochs")
    }
    assert (done["seconds"], done["seed"], done["unit"], done["trained_now"]) == (
        result["wall_time_s"],
        5,
        "eV/atom",
        True,
    )
    assert "no longer finite" in failed["error"] and failed["test_mae"] is None
    assert (
        f"test MAE {result['test_mae']:.4g} eV/atom" in lines
        and "error: 1 of 2 cells failed" in lines
    )
    assert "\r" not in lines  # no bar where there is no terminal
    again, lines = answer("irnet_hpc.train", *shlex.split(NETWORK))
    assert (
        again["state"] == "done" and not again["runs"][0]["trained_now"] and "already done" in lines
    )
    assert again["next"] == "python -m irnet_hpc.aggregate results"


def test_what_came_of_a_run_is_in_its_folder(tmp_path):
    spec = RunSpec("p", "band_gap", "irnet", 17)
    runs = [(spec, "k", tmp_path / name) for name in ("stopped", "taken", "failed")]
    write_json(tmp_path / "failed/error.json", {"error": "no memory"})
    told = outcome_of(runs, [], {tmp_path / "taken": "another process has it"}, 1.0, "wait")
    assert [(run["state"], run["error"]) for run in told["runs"]] == [
        ("preempted", None),
        ("running", "another process has it"),
        ("failed", "no memory"),
    ]
    assert told["state"] == "failed"
    assert (
        outcome_of(runs[:2], [], {runs[1][2]: "another process has it"}, 1.0, "wait")["state"]
        == "preempted"
    )


def test_aggregate_answers_with_its_files_and_the_cells_by_state(ends, folder):
    run = next(folder.glob(RUN))
    lost = run.with_name("seed7")
    lost.mkdir()
    spec = read_json(run / "run.json")
    write_json(lost / "run.json", spec | {"spec": spec["spec"] | {"seed": 7}})
    write_json(lost / "error.json", {"error": "no memory"})
    n_done, n_failed = (
        len(list((folder / "results").rglob(f"{name}.json"))) for name in ("result", "error")
    )
    told, lines = answer("irnet_hpc.aggregate", "results", "--html", "all.html")
    assert told["cells"] == {"done": n_done, "failed": n_failed} and n_failed >= 1
    assert told["html"] == "all.html" and {"all.html", "results/tables/mae.json"} <= set(
        told["files"]
    )
    assert all((folder / path).stat().st_size for path in told["files"])
    assert len(told["files"]) == len(set(told["files"]))
    assert [table["title"] for table in told["tables"]] == re.findall(
        "^## (alloys.*)$", lines, re.M
    )
    shutil.rmtree(lost)


def test_pack_and_predict_answer_with_what_they_wrote(ends, folder):
    told, lines = answer("irnet_hpc.pack", *shlex.split(CALLS["pack"][0].replace("120", "60"))[1:])
    assert (
        told["file"] == "packs/alloys-elements-n60.h5"
        and sum(told["rows"].values()) == told["n_rows"] == 60
    )
    assert "60 rows read" in lines
    told, _ = answer("irnet_hpc.predict", next(folder.glob(RUN)), "formulas.csv", "-o", "told.csv")
    assert told["rows"] == {
        "n_rows": 1,
        "n_problems": 0,
        "n_outside": told["rows"]["n_outside"],
        "n_kept": 1,
    }
    assert (folder / told["output"]).exists() and told["properties"][0]["unit"] == "eV/atom"
    both = subprocess.run(
        [
            sys.executable,
            "-m",
            "irnet_hpc.predict",
            next(folder.glob(RUN)),
            "formulas.csv",
            "-o",
            "-",
            "--json",
        ],
        capture_output=True,
        text=True,
    )
    assert (both.returncode, both.stdout) == (
        2,
        "",
    ) and "stdout can have one of the two" in both.stderr


# ------------------------------------------------------------------------------------------------------------------- bars


def on_a_terminal(*arguments: str) -> str:
    """What a terminal of 120 columns gets."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal that nobody holds any more
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert process.wait(600) == 0, shown.decode()
    return shown.decode()


def test_a_training_has_a_bar_on_a_terminal_and_no_line_an_epoch_beside_it(ends, folder):
    longer = TINY.replace("epochs: 2", "epochs: 150").replace("tiny", "longer")
    shown = on_a_terminal("irnet_hpc.train", *shlex.split(NETWORK.replace(TINY, longer)))
    assert re.search(
        r"\rcustom-\w+-2: +\d+%\|[^|]+\| at most \d\d:\d\d left, epoch \d+/150, MAE val [\d.]+ \(best [\d.]+\)",
        shown,
    )
    assert "rows/s" not in shown  # as in the lines
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    assert (
        lines[-4].startswith("test MAE")
        and lines[-1] == "next: python -m irnet_hpc.aggregate results"
    )
    history = next(folder.glob(RUN.replace("tiny", "longer"))) / "history.csv"
    assert len(history.read_text().splitlines()) == 151


def test_a_sweep_has_a_bar_of_its_cells_on_a_terminal(ends, folder):
    (folder / "bar.yaml").write_text(MATRIX.replace("seeds: [0, 1]", "seeds: [3]"))
    shown = on_a_terminal("irnet_hpc.sweep", "run", "bar.yaml")
    assert re.search(r"\r0/1 cells \|[^|]*\|, custom-\w+-2.*, about \d\d:\d\d left", shown)
    assert re.search(r"\[1/1\] MAE [\d.]+ eV/atom in \d+ s", shown)


def test_the_time_left_is_the_estimates_corrected_by_what_cells_took():
    cells = cells_bar.Cells(
        SimpleNamespace(update=lambda n: None, total=4),
        {"a": 100.0, "b": 100.0, "c": 50.0},
        [*"abcd"],
    )
    assert cells_bar.left_s(cells, 30) == 100 + 100 + 50 + 100 - 30  # d counts as the median
    cells_bar.are_through(cells, ["a"], 200)  # twice as slow
    assert cells_bar.left_s(cells, 40) == 2 * (100 + 50 + 100) - 40
    unknown = cells_bar.Cells(SimpleNamespace(update=lambda n: None, total=4), {}, [*"abcd"])
    assert cells_bar.left_s(unknown, 5) is None
    cells_bar.are_through(unknown, ["a", "b"], 60)
    assert cells_bar.left_s(unknown, 5) == 55


def test_the_bar_of_several_networks_has_the_least_and_the_greatest_error():
    def replica(epochs: int) -> SimpleNamespace:
        recipe, spec = (
            SimpleNamespace(epochs=epochs),
            SimpleNamespace(model="irnet-17", protocol="honest"),
        )
        return SimpleNamespace(recipe=recipe, spec=spec, n_steps=5)

    def state(mae: float) -> SimpleNamespace:
        return SimpleNamespace(
            step=10, epoch=2, history=[[1, 10, 0.1, 0.5, mae, 1.0]], best_mae=mae
        )

    stack = SimpleNamespace(replicas=[replica(4), replica(8)], states=[state(0.25), state(0.125)])
    with contextlib.closing(epochs_bar.bar_of(stack, wanted=True)) as bar:
        assert bar.disable  # no terminal here
    shown = SimpleNamespace(disable=False, set_description_str=lambda text, _: texts.append(text))
    shown.set_postfix_str, texts = shown.set_description_str, []
    epochs_bar.tell(shown, stack)
    assert shown.total == 40
    assert texts == ["2 irnet-17", "epoch 3/8, MAE val 0.125 to 0.25 (best 0.125 to 0.25)"]
