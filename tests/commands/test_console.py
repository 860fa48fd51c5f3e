"""Test the console: exit status, --json, progress bars, and the command to type next."""

import contextlib
import csv
import fcntl
import importlib
import io
import json
import os
import pty
import pwd
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

from irnet_hpc import completion
from irnet_hpc.console import ExitStatus, exit_status
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, write_json
from irnet_hpc.runs.lease import RunIsHeld
from irnet_hpc.runs.recipes import RECIPES, fitted_to, fitting_batch
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.runs.yaml_file import parse_yaml
from irnet_hpc.sweep import submit
from irnet_hpc.train import progress as epochs_bar
from irnet_hpc.train.cli import command_outcome
from irnet_hpc.train.session import Claims
from tests.builders import run_of

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
# The calls in their order, in one folder, each with the file it writes; empty if it writes none.
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


def output_of(command: str) -> str:
    """Run a command in this process; return what it prints on both streams."""
    name, *arguments = shlex.split(command)
    arguments = [
        path
        for word in arguments
        for path in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
    ]
    module = importlib.import_module(
        f"irnet_hpc.{name}" if name in ("completion", "tensorboard") else f"irnet_hpc.{name}.cli"
    )
    out, argv = io.StringIO(), sys.argv
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    sys.argv = [name, *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            assert exit_status(module.main) in (0, 1 if name == "doctor" else 0), out.getvalue()
    finally:
        sys.argv = argv
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Change into a new folder with a matrix and a list of formulas, for the whole module."""
    place, before = tmp_path_factory.mktemp("console"), Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("IRNET_", "SLURM_"))]:
            patch.delenv(name)
        patch.setenv("IRNET_OFFLINE", "1")
        patch.setenv("PYTHONPATH", str(ROOT))
        # Nothing here waits for a background process to start; tests/sweep does.
        patch.setattr(submit, "to_background", lambda *_: (Path("results/tables.log"), "1"))
        patch.setattr(submit, "max_array_size", lambda: None)
        os.chdir(place)
        (place / "m.yaml").write_text(MATRIX)
        (place / "formulas.csv").write_text("formula\nAlNiTi\n")
        yield place
        os.chdir(before)


@pytest.fixture(scope="module")
def outputs(folder) -> dict[str, str]:
    """Run all calls; map each to its output. A call whose library is missing is left out."""
    found = {}
    for name, (command, _) in CALLS.items():
        if name == "export" and not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
            continue
        if name == "sweep prune":  # a run that no cell of the matrix wants
            shutil.copytree(next(folder.glob(RUN)).parents[1], folder / "results/other")
        found[name] = output_of(command)
    return found


@pytest.fixture(scope="module")
def parsers():
    return completion.parsers()


# ------------------------------------------------------------------------------------- exit status

NUMBER_OF_A_FILE = """
import sys
from irnet_hpc.console import exit_status
sys.exit(exit_status(lambda: print("printed") or open(sys.argv[1], "w").fileno()))
"""


def test_without_standard_streams_no_file_gets_their_numbers(tmp_path):
    """The exit status is the number of the first file opened: after 0, 1 and 2 of the streams."""
    command = [sys.executable, "-c", NUMBER_OF_A_FILE, str(tmp_path / "file")]
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], cwd=ROOT, timeout=600
    )
    assert closed.returncode == 3 and (tmp_path / "file").read_text() == ""


def raising(error: BaseException):
    """Return a command that raises this error."""

    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1", "cp437", "utf-8"])
def test_a_log_of_any_encoding_gets_every_line(encoding):
    """Tables have ± and ², which ASCII lacks; a traceback came in place of the tables."""
    program = (
        "import sys; from irnet_hpc.console import exit_status; "
        "sys.exit(exit_status(lambda: print('1 \\xb1 2 R\\xb2 \\u2009', flush=True)))"
    )
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    expected = "1 \xb1 2 R\xb2 \u2009\n"
    assert done.stdout == expected.encode(encoding, "backslashreplace")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("seed must be 0 or more, got -1"), ExitStatus.USER_ERROR),
        (FileNotFoundError(2, "No such file or directory", "a.csv"), ExitStatus.USER_ERROR),
        (KeyboardInterrupt(), ExitStatus.INTERRUPTED),
    ],
)
def test_an_error_that_a_user_can_mend_is_one_line_on_stderr(error, status, capsys):
    assert exit_status(raising(error)) == status
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda: 1 // 0)


# -------------------------------------------------------------------------------- the next command


@pytest.mark.parametrize("name", CALLS)
def test_a_command_ends_with_a_next_one_that_can_be_typed(name, outputs, folder, parsers):
    """Its arguments parse, its files exist, and the file that was written is named."""
    if name not in outputs:
        pytest.skip("needs the extra onnx")
    lines, written = outputs[name].splitlines(), CALLS[name][1]
    if written:
        paths = {str(path.relative_to(folder)) for path in folder.glob(written)} or {written}
        assert any(path in line for path in paths for line in lines), outputs[name]
    words = shlex.split(lines[-1].partition("next: ")[2].partition(" | ")[0])
    assert words, outputs[name]
    if words[:2] == ["python", "-m"] and words[2].startswith("irnet_hpc."):
        parsers[words[2].removeprefix("irnet_hpc.")].parse_args(words[3:])
        named = [word for word in words[3:] if word.endswith((".yaml", ".h5"))]
    else:
        named = words[-1:]
        # These two are not on every machine.
        assert shutil.which(words[0]) or words[0] in ("tensorboard", "less")
    assert all((folder / path).exists() for path in named), words


def test_the_next_command_follows_from_the_states_of_the_cells(outputs):
    following = {
        name: text.splitlines()[-1].partition("next: ")[2] for name, text in outputs.items()
    }
    # Two cells on 120 rows fit here, even where there is SLURM.
    assert following["sweep plan"] == "python -m irnet_hpc.sweep run m.yaml"
    assert following["sweep status"] == following["sweep plan"]
    assert following["sweep submit"] == "python -m irnet_hpc.sweep status m.yaml --watch"
    assert following["sweep run"] == "python -m irnet_hpc.aggregate results --matrix m.yaml"
    assert following["sweep run again"] == following["sweep run"]


def test_the_batch_that_a_pack_suggests_fits_its_rows(outputs, parsers):
    """Of 120 alloys 95 train: the default recipe fits itself to them, so none is suggested."""
    words = shlex.split(outputs["pack"].splitlines()[-1].removeprefix("next: "))
    assert parsers["train"].parse_args(words[3:]).recipe is None
    recipe = fitted_to(RECIPES["onecycle"], 95)
    assert (recipe.batch, recipe.norm_group) == (8, 8)
    assert recipe.learning_rate == RECIPES["onecycle"].learning_rate
    assert (fitting_batch(394), fitting_batch(1600), fitting_batch(3)) == (16, 64, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("sweep rn m.yaml", ("'rn'", "did you mean 'run'")),
        ("sweep plan m.yaml --device gpus", ("--device", "'gpus'", "did you mean 'gpu'")),
        ("train --pack p --property y --epochs 5", ("{name: mine, base: onecycle, epochs: 5}",)),
        ("train --property y", ("--pack",)),
        ("sweep plan jobs/laptop.yaml", ("irnet_hpc.sweep init .",)),
    ],
)
def test_a_wrong_word_is_one_sentence_that_names_the_right_one(arguments, words, tmp_path):
    command = [sys.executable, "-m", *f"irnet_hpc.{arguments}".split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ") and "reconcile" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


# ------------------------------------------------------------------------------------------ --json


def answer(*arguments: object, status: int = 0) -> tuple[dict, str]:
    """Run a command with --json; return the object on stdout and the lines on stderr."""
    command = [sys.executable, "-m", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout), done.stderr


def test_the_json_of_train_has_each_run_as_its_result_does(outputs, folder):
    common = (
        "base: onecycle, batch: 32, norm_group: 32, precision: fp32, loss: mse, schedule: constant"
    )
    slow = f"{{name: slow, {common}, learning_rate: 1.0e-5, epochs: 2}}"
    wild = f"{{name: wild, {common}, learning_rate: 10.0, epochs: 40}}"
    network = [
        *shlex.split(NETWORK.partition(" --layers")[0]),
        "--layers",
        "64x30-1",
        "--seed",
        "5",
    ]
    bundle = f"[{{recipe: {slow}}}, {{recipe: {wild}}}]"
    told, lines = answer("irnet_hpc.train", *network, "--bundle", bundle, status=2)
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


def test_the_outcome_of_a_run_is_read_from_its_folder(tmp_path):
    spec = RunSpec("p", "band_gap", "irnet", 17)
    runs = [
        run_of(spec, RECIPES["onecycle"], tmp_path / name, name)
        for name in ("stopped", "taken", "failed")
    ]
    claims = Claims([], [], [(runs[1], RunIsHeld("another process has it"))])
    write_json(tmp_path / "failed/error.json", {"error": "no memory"})
    told = command_outcome(runs, claims, 1.0, "wait")
    assert [(run["state"], run["error"]) for run in told["runs"]] == [
        ("preempted", None),
        ("running", "another process has it"),
        ("failed", "no memory"),
    ]
    assert told["state"] == "failed"
    assert command_outcome(runs[:2], claims, 1.0, "wait")["state"] == "preempted"


def test_the_json_of_aggregate_has_its_files_and_the_cells_by_state(outputs, folder):
    run = next(folder.glob(RUN))
    lost = run.with_name("seed7")
    lost.mkdir()
    spec = read_json(run / "run.json")
    write_json(lost / "run.json", spec | {"spec": spec["spec"] | {"seed": 7}})
    write_json(lost / "error.json", {"error": "no memory"})
    n_done, n_failed = (
        len(list((folder / "results").rglob(f"{name}.json"))) for name in ("result", "error")
    )
    told, lines = answer("irnet_hpc.aggregate", "results", "--all", "--html", "all.html")
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


def test_the_json_of_pack_and_predict_has_what_they_wrote(outputs, folder):
    told, lines = answer("irnet_hpc.pack", *shlex.split(CALLS["pack"][0].replace("120", "60"))[1:])
    assert (
        told["file"] == "packs/alloys-elements-n60.h5"
        and sum(told["rows"].values()) == told["n_rows"] == 60
    )
    assert "60 rows read" in lines
    told, _ = answer("irnet_hpc.predict", next(folder.glob(RUN)), "formulas.csv", "-o", "told.csv")
    with (folder / "told.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert told["rows"] == {
        "n_rows": 1,
        "n_problems": 0,
        "n_seen": int(float(row["distance"]) == 0),
        "n_known": 0,  # only a model of the package has a list of the formulas that it has seen
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
    ) and "stdout can get either" in both.stderr


# -------------------------------------------------------------------------------------------- bars


def on_a_terminal(*arguments: str) -> str:
    """Run a command on a terminal of 120 columns; return what the terminal shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal that no process holds any more
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert process.wait(600) == 0, shown.decode()
    return shown.decode()


def test_on_a_terminal_a_training_shows_a_bar_instead_of_lines(outputs, folder):
    longer = TINY.replace("epochs: 2", "epochs: 150").replace("tiny", "longer")
    shown = on_a_terminal("irnet_hpc.train", *shlex.split(NETWORK.replace(TINY, longer)))
    assert re.search(
        r"\rcustom-\w+-2: +\d+%\|[^|]+\| at most \d\d:\d\d left, "
        r"epoch \d+/150, MAE val [\d.]+ \(best [\d.]+\)",
        shown,
    )
    assert "rows/s" not in shown  # as in the lines
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    assert any(line.startswith("test MAE") for line in lines[-5:]), lines[-5:]
    assert lines[-1] == "next: python -m irnet_hpc.aggregate results"
    history = next(folder.glob(RUN.replace("tiny", "longer"))) / "history.csv"
    assert len(history.read_text().splitlines()) == 151


def test_a_sweep_has_a_bar_of_its_cells_on_a_terminal(outputs, folder):
    (folder / "bar.yaml").write_text(MATRIX.replace("seeds: [0, 1]", "seeds: [3]"))
    shown = on_a_terminal("irnet_hpc.sweep", "run", "bar.yaml")
    assert re.search(r"\r0/1 cells \|[^|]*\|, custom-\w+-2.*, about \d\d:\d\d left", shown)
    assert re.search(r"\[1/1\] MAE [\d.]+ eV/atom in \d+ s", shown)


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
    with contextlib.closing(epochs_bar.make_bar(stack, wanted=True)) as bar:
        assert bar.disable  # no terminal here
    shown = SimpleNamespace(disable=False, set_description_str=lambda text, _: texts.append(text))
    shown.set_postfix_str, texts = shown.set_description_str, []
    epochs_bar.update(shown, stack)
    assert shown.total == 40
    assert texts == ["2 irnet-17", "epoch 3/8, MAE val 0.125 to 0.25 (best 0.125 to 0.25)"]


@pytest.mark.parametrize(
    "words",
    [["--results=~/runs"], ["--results", "~/runs"], ["--results", f"~{pwd.getpwuid(0).pw_name}/x"]],
)
def test_a_path_that_begins_with_a_tilde_is_in_the_home(words, monkeypatch, parsers):
    """bash leaves it to the command, which had made a folder that is called ~."""
    monkeypatch.setenv("HOME", "/home/me")
    results = parsers["train"].parse_args(["--pack", "a~/b", "--property", "p", *words])
    expected = "/home/me/runs" if "~/runs" in words[-1] else f"{pwd.getpwuid(0).pw_dir}/x"
    assert (results.results, results.pack) == (expected, "a~/b")
    assert parse_yaml("a: ~/x.csv\nb: [~, '~/y z', a~/c, ~x]") == {
        "a": "/home/me/x.csv",
        "b": [None, "/home/me/y z", "a~/c", "~x"],
    }
    status = parsers["predict"].parse_args(["~/run", "~/my table.csv", "-o", "-"])
    assert "/home/me/my table.csv" in [part for v in vars(status).values() for part in listed(v)]


def listed(value: object) -> list:
    return value if isinstance(value, list) else [value]
