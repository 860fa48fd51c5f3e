"""Tables of candidates: every row stays in its place, whatever is wrong with it."""

import csv
import gzip
import io
import itertools
import json
import lzma
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.predict.builders import QUICK, ROOT, numbers, stored, train_one


def test_every_row_comes_back_in_its_place_with_its_columns(runs, ask, tmp_path):
    text = (
        '\ufeffid,formula,note\r\n1,AlNi,"a, b"\r\n\r\n2,NaN,\r\n3,"CuZn",x\r\n4,Foo,y\r\n'
        "5,,z\r\n6,AlFe\r\n7,AlCo,x,y\r\n8,KrF2,\r\n9,HeO,\r\n10,AlTi,ü\r\n"
    )
    for name, opener in (("a.csv", open), ("a.csv.gz", gzip.open), ("a.csv.xz", lzma.open)):
        with opener(tmp_path / name, "wb") as file:
            file.write(text.encode() + b"11,AlNi,\xff\n")
        status, rows, message = ask(runs[0], tmp_path / name)
        assert status == 0 and [row["id"] for row in rows] == [str(n) for n in range(1, 12)]
        problems = {row["id"]: row["problem"] for row in rows if row["problem"]}
        assert {n: text.partition(":")[0] for n, text in problems.items()} == {
            "4": "formula not readable",
            "5": "formula is empty",
            "6": "a row must have 3 fields, got 2",
            "7": "a row must have 3 fields, got 4, with the surplus 'y'",
            "9": "element unknown to feature set elements",
        }
        assert all(bool(row["predicted_mixing_enthalpy"]) != bool(row["problem"]) for row in rows)
        assert rows[0]["note"] == "a, b" and rows[1]["formula"] == "NaN"  # sodium nitride
        assert "11 rows" in message and "5 with a problem" in message


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
    assert "line 3 is not a JSON object" in rows[2]["problem"]
    command = [sys.executable, "-m", "irnet_hpc.predict", runs[0], "-", "-o", "-"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "IRNET_PACKS": str(alloys_pack.parent)}
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment)
    assert "stdin, line 3 is not a JSON object" in done.stdout
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
    status, _, message = ask(run, tmp_path / "less.csv", "--pack-dir", tmp_path)
    assert status == 2 and "takes as features: v;" in message


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
    command = f"--source {tmp_path / 'salts.jsonl'} --name salts --pack-dir {tmp_path}"
    done = pack_command(*command.split(), "--features", "columns+structure", "--workers", 1)
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
    ("name", "content", "named"),
    [
        (
            "t.csv",
            b"stuff,x\nAlNi,1\n",
            "must have a column named formula; its columns: stuff, x",
        ),
        ("t.csv", b"AlNi\nCuZn\n", "also needs a first line that says: formula"),
        ("t.csv", b"", "is empty"),
        (
            "t.csv",
            "formula\nAlNi\n".encode("utf-16"),
            "got UTF-16",
        ),
        (
            "t.csv",
            "\ufeffAlNi\nCuZn\n".encode(),
            "its columns: AlNi; a plain list of formulas also needs a first line",
        ),
        ("t.csv", b"formula,formula\nAlNi,AlNi\n", "'formula' repeatedly"),
        ("t.csv", b"formula,problem\nAlNi,\n", "already has a column 'problem'"),
        ("t.csv", b'formula\n"AlNi\nCuZn\n', "line 2: a quoted field is not closed"),
        ("t.csv.gz", gzip.compress(b"formula\nAlNi\n" * 1000)[:40], "cannot be unpacked"),
        ("t.xls", b"formula\nAlNi\n", "must end in"),
    ],
)
def test_a_table_that_is_none_is_one_sentence(runs, ask, tmp_path, name, content, named):
    (tmp_path / name).write_bytes(content)
    status, rows, message = ask(runs[0], tmp_path / name)
    assert status == 2 and named in message.splitlines()[-1] and not rows
