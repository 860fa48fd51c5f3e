"""Predictions of finished runs, beside what the runs themselves recorded, numpy and plain loops."""

import contextlib
import csv
import gzip
import io
import itertools
import json
import lzma
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from irnet_hpc.console import exit_status
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, write_json
from irnet_hpc.pack import store
from irnet_hpc.predict import cli as predict
from irnet_hpc.predict.domain import domain_of
from irnet_hpc.predict.intervals import calibrate, coverage
from irnet_hpc.predict.members import read_member
from irnet_hpc.train import cli as train

ROOT = Path(__file__).parents[2]
LAYERS = (
    "48BARx2-32BAx2R-16L0.1x1+1-1"  # normalised layers with both kinds of shortcut, and branches
)
QUICK = (
    "{name: quick, base: onecycle, epochs: 8, batch: 64, norm_group: 32, precision: fp32, ema: 0.9}"
)
CENSORED = QUICK.replace("quick", "cut").replace("ema", "floor: censored, ema")


def train_one(pack_file: Path, results: Path, **changes) -> Path:
    """A run folder."""
    options = {
        "pack": pack_file,
        "property": "mixing_enthalpy",
        "layers": LAYERS,
        "recipe": QUICK,
    } | changes
    flags = [
        part
        for name, value in options.items()
        if value
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    before = set(results.rglob("result.json"))
    with contextlib.redirect_stdout(io.StringIO()):
        assert exit_status(lambda: train.main([*flags, "--results", str(results)])) == 0
    (path,) = set(results.rglob("result.json")) - before
    return path.parent


@pytest.fixture(scope="module")
def results(alloys_pack, tmp_path_factory) -> Path:
    """Two seeds of one network on elemental fractions."""
    folder = tmp_path_factory.mktemp("predict-results")
    for seed in (0, 1):
        train_one(alloys_pack, folder, seed=seed)
    return folder


@pytest.fixture(scope="module")
def runs(results) -> list[Path]:
    return sorted(path.parent for path in results.rglob("result.json"))


@pytest.fixture
def ask(alloys_pack, monkeypatch, capfd):
    """Runs the command; gives its status, the rows it wrote and what it said."""
    monkeypatch.setenv("IRNET_PACKS", str(alloys_pack.parent))

    def run(*arguments: object) -> tuple[int, list[dict[str, str]], str]:
        status = exit_status(lambda: predict.main([*map(str, arguments), "-o", "-"]))
        out, err = capfd.readouterr()
        return status, list(csv.DictReader(io.StringIO(out))), err

    return run


def table(path: Path, formulas) -> Path:
    path.write_text("\n".join(["formula", *formulas]) + "\n", encoding="utf-8")
    return path


def numbers(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) if row[name] else math.nan for row in rows])


def stored(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "test_predictions.npz", allow_pickle=False) as file:
        return dict(file)


def held_out(pack_file: Path, role: str) -> tuple[list[str], np.ndarray]:
    with store.open_pack(pack_file) as opened:
        return opened.formulas(opened.rows(role)), opened.y("mixing_enthalpy", opened.rows(role))


# ------------------------------------------------------------------------------------------------------- the numbers


def test_formulas_get_the_predictions_that_the_run_recorded_for_them(runs, ask, tmp_path):
    recorded = stored(runs[0])
    status, rows, _ = ask(runs[0], table(tmp_path / "test.csv", recorded["formula"]))
    assert status == 0
    np.testing.assert_allclose(
        numbers(rows, "predicted_mixing_enthalpy"), recorded["prediction"], atol=2e-5
    )


def test_several_runs_give_their_mean_and_standard_deviation(runs, ask, tmp_path):
    recorded = [stored(run) for run in runs]
    both = np.array([one["prediction"] for one in recorded])
    _, rows, said = ask(*runs, table(tmp_path / "test.csv", recorded[0]["formula"]))
    np.testing.assert_allclose(numbers(rows, "predicted_mixing_enthalpy"), both.mean(0), atol=2e-5)
    np.testing.assert_allclose(
        numbers(rows, "sd_mixing_enthalpy"), both.std(0, ddof=1), rtol=1e-3, atol=2e-5
    )
    assert "mixing_enthalpy (eV/atom), the mean of 2 runs" in said
    assert f"MAE {np.abs(both.mean(0) - recorded[0]['target']).mean():.4g}" in said


def test_the_interval_of_one_run_is_the_conformal_quantile_of_its_val_errors(
    runs, ask, tmp_path, alloys_pack
):
    formulas, value = held_out(alloys_pack, "val")
    _, rows, _ = ask(runs[0], table(tmp_path / "val.csv", formulas), "--interval", "0.8")
    error = np.sort(np.abs(numbers(rows, "predicted_mixing_enthalpy") - value))
    half = error[math.ceil((len(error) + 1) * 0.8) - 1]
    width = numbers(rows, "high_mixing_enthalpy") - numbers(rows, "low_mixing_enthalpy")
    np.testing.assert_allclose(width, 2 * half, atol=1e-5)


def test_of_several_runs_intervals_are_wider_where_they_disagree_and_hold_what_they_say(
    runs, ask, tmp_path, alloys_pack
):
    formulas, value = held_out(alloys_pack, "val")
    _, rows, said = ask(*runs, table(tmp_path / "val.csv", formulas))
    low, high, sd = (numbers(rows, f"{name}_mixing_enthalpy") for name in ("low", "high", "sd"))
    n_held = int(((value >= low - 1e-6) & (value <= high + 1e-6)).sum())
    assert n_held == math.ceil(
        (len(value) + 1) * 0.9
    )  # exactly, on the rows that it was calibrated on
    assert (np.diff((high - low)[np.argsort(sd)]) >= -1e-6).all()
    assert "calibrated on" in said and "of them" in said


def test_calibration_by_hand():
    interval = calibrate(
        np.arange(1.0, 10.0), np.zeros(9), 0.9
    )  # the ninth of nine is the (9 + 1) * 0.9-th
    assert interval.half_width(np.zeros(1)) == 9
    scaled = calibrate(
        np.array([1.0, -2, 6] * 9), np.array([1.0, 1, 2] * 9), 0.9
    )  # softened by the median, 1
    assert (scaled.softening, scaled.factor) == (1, 2)  # errors by sd + 1: 0.5, 1, 2
    with pytest.raises(UserError, match="at least 9 val rows, got 8"):
        calibrate(np.ones(8), np.zeros(8), 0.9)


def test_an_interval_holds_what_it_says_on_rows_of_the_same_population():
    random = np.random.default_rng(0)

    def draw(n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        sd = random.gamma(2, size=n_rows)
        return random.standard_t(3, size=n_rows) * sd, sd  # tails that no normal distribution has

    held = [coverage(calibrate(*draw(200), 0.9), *draw(2000)) for _ in range(100)]
    assert abs(np.mean(held) - 0.9) < 0.01


def test_a_network_of_several_properties_gives_each_and_cuts_at_the_floor(
    gaps_pack, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("IRNET_PACKS", str(gaps_pack.parent))
    names = "size_mismatch,mixing_enthalpy"
    run = train_one(gaps_pack, tmp_path / "results", property=names, recipe=CENSORED)
    recorded, member = stored(run), read_member(run)
    assert member.scaling.floor.tolist() == [0, -np.inf]
    assert (
        predict.main([str(run), str(table(tmp_path / "t.csv", recorded["formula"])), "-o", "-"])
        == 0
    )
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    for column, name in enumerate(names.split(",")):
        reported = ~np.isnan(recorded["target"][:, column])
        ours, own = (
            numbers(rows, f"predicted_{name}")[reported],
            recorded["prediction"][reported, column],
        )
        np.testing.assert_allclose(ours, own, atol=1e-4 * own.std())
    assert (numbers(rows, "low_size_mismatch") >= 0).all()


def test_runs_of_different_features_are_averaged_each_on_its_own(
    runs, alloys_pack, tmp_path, ask, pack_command
):
    name = "alloys-small-ordered"
    command = f"--source alloys --rows 600 --features ordered --name {name} --workers 1 --pack-dir {tmp_path}"
    assert pack_command(*command.split()).returncode == 0
    other = train_one(tmp_path / f"{name}.h5", tmp_path / "results")
    shutil.copy(alloys_pack, tmp_path)
    first, second = stored(runs[0]), stored(other)
    common = sorted(set(first["formula"]) & set(second["formula"]))
    _, rows, said = ask(runs[0], other, table(tmp_path / "t.csv", common), "--pack-dir", tmp_path)
    of = [dict(zip(one["formula"], one["prediction"], strict=True)) for one in (first, second)]
    expected = [np.mean([one[formula] for one in of]) for formula in common]
    np.testing.assert_allclose(numbers(rows, "predicted_mixing_enthalpy"), expected, atol=2e-5)
    assert "calibrated on" in said  # val of both packs are the same formulas


# ---------------------------------------------------------------------------------------------------- what lies outside


def test_elements_that_no_training_row_has_are_named(runs, ask, tmp_path):
    member = read_member(runs[0])
    assert "Al" in member.elements and "O" not in member.elements
    _, rows, _ = ask(runs[0], table(tmp_path / "t.csv", ["AlNiTi", "AlNiO3"]))
    assert "O" not in rows[0]["outside"]
    assert rows[1]["outside"].startswith("no training row has O")


def test_held_out_chemistry_is_flagged_and_random_rows_mostly_are_not(tmp_path, ask, pack_command):
    command = f"--source alloys --rows 600 --features magpie --split element:Al --name held --workers 1 --pack-dir {tmp_path}"
    assert pack_command(*command.split()).returncode == 0
    run = train_one(tmp_path / "held.h5", tmp_path / "results", layers="16x1-1")
    val, test = (held_out(tmp_path / "held.h5", role)[0] for role in ("val", "test"))
    pure = ["Cu", "Fe", "Ni", "Ti", "Zr"]  # seen, but in alloys of three to five elements only
    _, rows, _ = ask(run, table(tmp_path / "t.csv", [*val, *test, *pure]), "--pack-dir", tmp_path)
    outside = [bool(row["outside"]) for row in rows]
    assert np.mean(outside[: len(val)]) < 0.07 and all(outside[len(val) :])
    assert (numbers(rows, "distance")[-len(pure) :] >= 1).all()


def test_a_distance_is_that_to_the_nearest_training_row_or_at_most_twice(runs, alloys_pack):
    member = read_member(runs[0])
    with store.open_pack(alloys_pack) as opened:
        domain = domain_of(opened, member.spec)
        train_rows, test = opened.x(opened.rows("train")), opened.x(opened.rows("test"))
    project = domain.projection.project
    projected, own = project(test), project(train_rows)
    nearest = np.sqrt(((projected[:, None] - own[None]) ** 2).sum(-1)).min(1) / domain.limit
    found = domain.distance(test)
    assert (found >= nearest * (1 - 1e-5)).all() and (found <= 2 * nearest + 1e-5).all()


# ------------------------------------------------------------------------------------------------------- what comes in


def test_every_row_comes_back_in_its_place_with_its_columns(runs, ask, tmp_path):
    text = (
        '\ufeffid,formula,note\r\n1,AlNi,"a, b"\r\n\r\n2,NaN,\r\n3,"CuZn",x\r\n4,Foo,y\r\n5,,z\r\n6,AlFe\r\n'
        "7,AlCo,x,y\r\n8,KrF2,\r\n9,HeO,\r\n10,AlTi,ü\r\n"
    )
    for name, opener in (("a.csv", open), ("a.csv.gz", gzip.open), ("a.csv.xz", lzma.open)):
        with opener(tmp_path / name, "wb") as file:
            file.write(text.encode() + b"11,AlNi,\xff\n")
        status, rows, said = ask(runs[0], tmp_path / name)
        assert status == 0 and [row["id"] for row in rows] == [str(n) for n in range(1, 12)]
        problems = {row["id"]: row["problem"] for row in rows if row["problem"]}
        assert {n: text.partition(":")[0] for n, text in problems.items()} == {
            "4": "formula not readable",
            "5": "formula is empty",
            "6": "a row must have 3 fields, got 2",
            "7": "a row must have 3 fields, got 4, the last of them 'y'",
            "9": "element unknown to feature set elements",
        }
        assert all(bool(row["predicted_mixing_enthalpy"]) != bool(row["problem"]) for row in rows)
        assert rows[0]["note"] == "a, b" and rows[1]["formula"] == "NaN"  # sodium nitride
        assert "11 rows" in said and "5 with a problem" in said


def test_json_lines_and_stdin(runs, ask, tmp_path, alloys_pack):
    entries = [
        {
            "material_id": "m1",
            "species": ["Al", "Ni"],
            "lattice": np.eye(3).tolist(),
            "frac_coords": [[0, 0, 0]] * 2,
            "tag": 7,
        },
        {"material_id": "m2", "formula": "AlNi", "tag": 8},
    ]
    text = (
        "\n".join([*map(json.dumps, entries), "{broken", json.dumps({"formula": "CuZn", "tag": 9})])
        + "\n"
    )
    (tmp_path / "a.jsonl").write_text(text)
    _, rows, _ = ask(runs[0], tmp_path / "a.jsonl")
    assert [(row["material_id"], row["formula"], row["tag"]) for row in rows] == [
        ("m1", "AlNi", "7"),
        ("m2", "AlNi", "8"),
        ("", "", ""),
        ("", "CuZn", "9"),
    ]
    assert rows[0]["predicted_mixing_enthalpy"] == rows[1]["predicted_mixing_enthalpy"] != ""
    assert "line 3 must be a JSON object" in rows[2]["problem"]
    command = [sys.executable, "-m", "irnet_hpc.predict", runs[0], "-", "-o", "-"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "IRNET_PACKS": str(alloys_pack.parent)}
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment)
    assert "stdin, line 3 must be a JSON object" in done.stdout
    others = [row for row in csv.DictReader(io.StringIO(done.stdout)) if not row["problem"]]
    assert others == [row for row in rows if not row["problem"]]


def test_a_model_of_the_users_own_columns_needs_no_formulas(tmp_path, ask, pack_command):
    random = np.random.default_rng(0)
    u, v = random.normal(size=(2, 200))
    lines = [f"Al{n}Ni,{a},{b},{a + b}" for n, (a, b) in enumerate(zip(u, v, strict=True), start=1)]
    (tmp_path / "own.csv").write_text("\n".join(["formula,u,v,score", *lines]) + "\n")
    command = (
        f"--source {tmp_path / 'own.csv'} --features columns --unit score=1 --pack-dir {tmp_path}"
    )
    assert pack_command(*command.split()).returncode == 0
    recipe = QUICK.replace("batch: 64", "batch: 32")
    run = train_one(
        tmp_path / "own-columns.h5", tmp_path / "results", property="score", recipe=recipe
    )
    recorded = stored(run)
    _, rows, _ = ask(run, tmp_path / "own.csv", "--pack-dir", tmp_path)
    places = [[row["formula"] for row in rows].index(formula) for formula in recorded["formula"]]
    expected = recorded["prediction"]
    np.testing.assert_allclose(
        numbers(rows, "predicted_score")[places], expected, atol=1e-4 * expected.std()
    )
    (tmp_path / "new.csv").write_text("v,name,u\n0.5,a,0.25\n,b,1\nx,c,1\n")
    _, rows, _ = ask(run, tmp_path / "new.csv", "--pack-dir", tmp_path)
    assert rows[0]["predicted_score"] and not rows[1]["predicted_score"]
    assert [row["problem"] for row in rows[1:]] == [
        "feature v must be a finite number, got ''",
        "feature v must be a finite number, got 'x'",
    ]
    (tmp_path / "less.csv").write_text("formula,u\nAlNi,1\n")
    status, _, said = ask(run, tmp_path / "less.csv", "--pack-dir", tmp_path)
    assert status == 2 and "got none named v;" in said


def test_structures_get_the_predictions_that_the_run_recorded_for_them(tmp_path, ask, pack_command):
    """And the further keys of the lines that are features beside them."""
    pairs = itertools.product(
        ("Li", "Na", "K", "Rb", "Cs", "Cu", "Ag", "Tl"), ("F", "Cl", "Br", "I", "H", "N", "P", "As")
    )
    entries = [
        {
            "material_id": f"m{n}",
            "species": [cation, anion],
            "lattice": (np.eye(3) * (3 + n % 7 / 4)).tolist(),
            "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5 + n % 3 / 20]],
            "pressure": n % 5,
            "targets": {"band_gap": n % 11 / 4},
        }
        for n, (cation, anion) in enumerate(pairs)
    ]
    (tmp_path / "salts.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    command = f"--source {tmp_path / 'salts.jsonl'} --features columns+structure --workers 1 --name salts --pack-dir {tmp_path}"
    done = pack_command(*command.split())
    assert done.returncode == 0, done.stderr
    recipe = QUICK.replace("batch: 64", "batch: 32")
    run = train_one(
        tmp_path / "salts.h5",
        tmp_path / "results",
        property="band_gap",
        layers="16BARx1-1",
        recipe=recipe,
    )
    recorded = stored(run)
    status, rows, _ = ask(run, tmp_path / "salts.jsonl", "--pack-dir", tmp_path)
    assert status == 0 and not any(row["problem"] for row in rows)
    places = [[row["material_id"] for row in rows].index(name) for name in recorded["material_id"]]
    expected = recorded["prediction"]
    assert len(expected) > 3 and expected.std() > 0
    np.testing.assert_allclose(
        numbers(rows, "predicted_band_gap")[places], expected, atol=1e-4 * expected.std()
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "t.csv",
            b"composition,x\nAlNi,1\n",
            "must have a column named formula; its columns: composition, x",
        ),
        ("t.csv", b"AlNi\nCuZn\n", "begins with a line that names its column"),
        ("t.csv", b"", "is empty"),
        (
            "t.csv",
            "formula\nAlNi\n".encode("utf-16"),
            "got UTF-16",
        ),
        (
            "t.csv",
            "\ufeffAlNi\nCuZn\n".encode(),
            "its columns: AlNi; a list of formulas, too, begins with a line",
        ),
        ("t.csv", b"formula,formula\nAlNi,AlNi\n", "'formula' twice"),
        ("t.csv", b"formula,problem\nAlNi,\n", "already has a column 'problem'"),
        ("t.csv", b'formula\n"AlNi\nCuZn\n', "line 2: a quoted field is not closed"),
        ("t.csv.gz", gzip.compress(b"formula\nAlNi\n" * 1000)[:40], "cannot be unpacked"),
        ("t.txt", b"formula\nAlNi\n", "must end in"),
    ],
)
def test_a_table_that_is_none_is_one_sentence(runs, ask, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    status, rows, message = ask(runs[0], tmp_path / name)
    assert status == 2 and said in message.splitlines()[-1] and not rows


def test_a_run_that_cannot_predict_is_one_sentence(runs, alloys_pack, ask, tmp_path):
    formulas = table(tmp_path / "t.csv", ["AlNi"])
    classical = train_one(
        alloys_pack, tmp_path / "results", layers=None, architecture="ridge", recipe=None
    )
    bare = shutil.copytree(runs[0], tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    torn = shutil.copytree(runs[0], tmp_path / "torn")
    (torn / "model.safetensors").write_bytes((torn / "model.safetensors").read_bytes()[:5000])
    older = shutil.copytree(runs[0], tmp_path / "older")
    result = read_json(older / "result.json")
    result["pack_identity"]["feature_versions"] = {"elements": 0}
    write_json(older / "result.json", result)
    for run, said in (
        (classical, "is of ridge"),
        (bare, "it is missing"),
        (torn, "is damaged"),
        (older, "version 0 of feature set elements"),
        (tmp_path / "nothing", "there is no folder"),
        (tmp_path, "has no result.json"),
    ):
        status, _, message = ask(run, formulas)
        assert status == 2 and said in message, run
    status, _, message = ask(runs[0], runs[0], formulas)
    assert status == 2 and "are one run" in message


def test_without_its_pack_or_with_another_of_its_name_there_is_no_interval(
    runs, ask, tmp_path, pack_command
):
    formulas = table(tmp_path / "t.csv", ["AlNiTi", "AlNiO3"])
    _, rows, said = ask(runs[0], formulas, "--pack-dir", tmp_path)
    assert (
        "low_mixing_enthalpy" not in rows[0] and "no interval" in said and "is not at hand" in said
    )
    assert (
        rows[1]["outside"] == "no training row has O" and not rows[1]["distance"]
    )  # the model knows its elements
    command = f"--source alloys --rows 500 --features elements --name alloys-small --workers 1 --pack-dir {tmp_path}"
    assert pack_command(*command.split()).returncode == 0
    _, rows, said = ask(runs[0], formulas, "--pack-dir", tmp_path)
    assert "low_mixing_enthalpy" not in rows[0] and "is another pack than the one" in said


# -------------------------------------------------------------------------------------------------------- what goes out


def test_bounds_and_the_first_rows_are_those_of_the_whole_list_sorted(runs, ask):
    space = ("--enumerate", "Al|Cu-Ni|Fe-Ti, step 0.1")
    _, everything, _ = ask(runs[0], *space)
    value = numbers(everything, "predicted_mixing_enthalpy")
    ordered = np.sort(value)
    low, high = (
        ordered[[60, 120]] + ordered[[61, 121]]
    ) / 2  # between values, which are written rounded
    _, between, _ = ask(runs[0], *space, "--min", low, "--max", f"mixing_enthalpy={high}")
    assert between == [row for row, v in zip(everything, value, strict=True) if low <= v <= high]
    for flags, order in (((), -value), (("--lowest",), value)):
        _, first, _ = ask(runs[0], *space, "--top", 7, *flags)
        assert first == [everything[row] for row in np.argsort(order, kind="stable")[:7]]


def test_the_file_is_whole_and_says_its_unit(runs, tmp_path, alloys_pack, monkeypatch, capfd):
    monkeypatch.setenv("IRNET_PACKS", str(alloys_pack.parent))
    formulas, output = table(tmp_path / "t.csv", ["AlNi", "Foo"]), tmp_path / "out.csv.gz"
    assert predict.main([str(runs[0]), str(formulas), "-o", str(output)]) == 0
    with gzip.open(output, "rt") as file:
        rows = list(csv.DictReader(file))
    assert [row["formula"] for row in rows] == ["AlNi", "Foo"]
    about = read_json(f"{output}.about.json")
    assert about["properties"][0]["unit"] == "eV/atom" and about["rows"]["n_problems"] == 1
    (tmp_path / "torn.csv").write_bytes(b'formula\nAlNi\n"open\nCuZn\n')
    with pytest.raises(UserError):
        predict.main([str(runs[0]), str(tmp_path / "torn.csv"), "-o", str(tmp_path / "never.csv")])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.csv.gz",
        "out.csv.gz.about.json",
        "t.csv",
        "torn.csv",
    ]


def test_the_best_run_is_that_of_the_lowest_val_mae(results, runs, ask, tmp_path):
    best = min(runs, key=lambda run: read_json(run / "result.json")["val_mae"])
    formulas = table(tmp_path / "t.csv", ["AlNi", "CuZn"])
    _, rows, said = ask("--best", "mixing_enthalpy", "--results", results, formulas)
    assert str(best) in said and rows == ask(best, formulas)[1]
    status, _, said = ask("--best", "band_gap", "--results", results, formulas)
    assert status == 2 and "predicted there: mixing_enthalpy" in said


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(runs, alloys_pack, tmp_path):
    """Ten times as many formulas, in processes of their own: peak memory."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "IRNET_PACKS": str(alloys_pack.parent),
        "OMP_NUM_THREADS": "1",
    }
    peaks = []
    for n_rows in (30_000, 300_000):
        formulas = table(
            tmp_path / "t.csv",
            (f"Al{n % 977 + 1}Ni{n % 89 + 1}Ti{n % 13 + 1}" for n in range(n_rows)),
        )
        code = f"""
from pathlib import Path
from irnet_hpc.predict import cli as predict
assert predict.main([{str(runs[0])!r}, {str(formulas)!r}, "-o", {str(tmp_path / "o.csv")!r}]) == 0
status = Path("/proc/self/status").read_text()  # getrusage's peak would be the parent's, which a fork inherits
print(status.partition("VmHWM:")[2].split()[0])
"""
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        peaks.append(int(done.stdout) / 1024)
        with (tmp_path / "o.csv").open() as file:
            assert sum(1 for _ in file) == n_rows + 1
    assert peaks[1] - peaks[0] < 20, (
        f"{peaks} MiB"
    )  # the list of ten times the rows is 30 MB as text alone
