"""Read spoiled and generated files: as they were written, or refused with a sentence.

No traceback, no hang, no memory filled.

    python -m pytest tests/robustness/test_fuzz.py             the same hundreds of files each time
    IRNET_FUZZ=10000 python -m pytest tests/robustness/test_fuzz.py -s    10,000 new ones of a kind
"""

import csv
import gzip
import json
import lzma
import math
import os
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irnet_hpc.data import raw_table
from irnet_hpc.data.raw_csv import read_csv_table
from irnet_hpc.data.raw_table import RawTable, file_text
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.models.architectures import Layers, Stack, n_weights, parse_layers
from irnet_hpc.models.network import Network
from irnet_hpc.pack import store
from irnet_hpc.pack import writer as pack_writer
from irnet_hpc.pack.writer import create_pack
from irnet_hpc.runs import predictions, predictions_file
from irnet_hpc.sweep.matrix.matrix import Matrix, read_matrix
from tests.builders import load_table
from tests.robustness.fuzzed import KINDS

N = int(os.environ.get("IRNET_FUZZ", "0"))
# In the suite the examples are the same each time, so that no test fails by chance.
GENERATED = settings(
    max_examples=max(40, N // 5),
    derandomize=not N,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
BETWEEN_NEWLINES = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n")
TEXT = st.text(BETWEEN_NEWLINES, max_size=20)

# ------------------------------------------------------------------------------ spoiled files


def survey(kind: str, n: int, folder: Path) -> tuple[Counter, list[str]]:
    """Read `n` spoiled files of a kind; return the outcomes, and those that must not be."""
    program = [sys.executable, Path(__file__).with_name("fuzzed.py"), kind, folder]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    counts, wrong, at = Counter(), [], 0
    while at < n:
        done = subprocess.run(
            [*program, str(at), str(n - at)], capture_output=True, text=True, env=environment
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        for line in (line for line in lines if "is" in line):
            counts[line["is"]] += 1
            if line["is"] not in ("same", "read", "refused"):
                wrong.append(f"{kind} {line['number']} is {line['is']}: {line['said']}")
        if lines and "grown_mb" in lines[-1]:
            if lines[-1]["grown_mb"] > 512:
                wrong.append(f"{kind} {at} to {n} took {lines[-1]['grown_mb']:.0f} MB")
            break
        if not lines:
            raise AssertionError(f"{kind} was not read at all: {done.stderr[-2000:]}")
        number = lines[-1]["number"]
        wrong.append(
            f"{kind} {number} ended the process, status {done.returncode}: {done.stderr[-2000:]}"
        )
        at = number + 1
    return counts, wrong


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoiled_file_is_read_as_it_was_or_refused_with_a_sentence(kind, tmp_path):
    n = N or 60
    counts, wrong = survey(kind, n, tmp_path)
    print(f"\n{kind}: {n:,} files: {dict(counts)}, wrong: {len(wrong)}")
    assert not wrong, "\n\n".join(wrong[:5])
    assert sum(counts.values()) == n
    # So the files were really spoiled. Of a checkpoint the other slot is read, of results all but
    # the spoiled one, a grid starts anew, and a sweep passes over what it cannot read.
    assert kind in ("checkpoint", "result", "grid", "states") or counts["refused"] > n / 10


# -------------------------------------------------------------------------------- the grammar

RATE = st.integers(1, 999).map(lambda thousandths: thousandths / 1000)
NO_RATE = st.just(0.0)


@st.composite
def stacks(draw) -> tuple[str, Stack]:
    """Draw a stack, as the grammar writes it and as it is parsed."""
    width, branches = (
        draw(st.integers(1, 12)),
        tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))),
    )
    norm, slope = draw(st.booleans()), draw(st.none() | st.just(0.0) | RATE)
    shortcut, of_layer, of_stack = (
        draw(st.sampled_from(("none", "layer", "stack"))),
        draw(NO_RATE | RATE),
        draw(NO_RATE | RATE),
    )
    text = f"{width}{'B' * norm}" + ("" if slope is None else "A" if slope == 0 else f"L{slope}")
    text += "R" * (shortcut == "layer") + (f"D{of_layer}" if of_layer else "")
    text += (
        f"x{'+'.join(map(str, branches))}"
        + "R" * (shortcut == "stack")
        + (f"D{of_stack}" if of_stack else "")
    )
    return text, Stack(width, branches, norm, slope, shortcut, of_layer, of_stack)


@GENERATED
@given(st.lists(stacks(), min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 9))
def test_a_layer_string_is_parsed_and_its_weights_counted_as_torch_counts_them(
    parts, n_outputs, n_features
):
    layers = parse_layers("-".join([*(text for text, _ in parts), str(n_outputs)]))
    assert layers == Layers(tuple(stack for _, stack in parts), n_outputs)
    with torch.device("meta"):
        network = Network(n_features, layers)
    assert n_weights(layers, n_features) == sum(
        parameter.numel() for parameter in network.parameters()
    )


@GENERATED
@given(
    st.text(max_size=30)
    | st.text("0123456789BALRDx+-.²٣", max_size=30)
    | st.integers(300, 6000).map(lambda n: "9" * n + "A-1")
)
def test_any_text_is_a_layer_string_or_one_sentence(text):
    try:
        assert isinstance(parse_layers(text), Layers)
    except UserError as error:
        assert str(error)


# ----------------------------------------------------------------------------------- matrices

SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
NESTED = st.recursive(
    SCALAR,
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.integers() | st.none(), below, max_size=3)
    ),
    max_leaves=6,
)
KEYS = (
    "packs",
    "properties",
    "models",
    "recipes",
    "protocols",
    "seeds",
    "split_seeds",
    "splits",
    "train_rows",
    "init",
    "resources",
)
SOUND = {"packs": ["alloys-elements"], "properties": ["mixing_enthalpy"], "models": ["irnet-17"]}


def matrix_of(text: str, folder: Path) -> Matrix:
    (folder / "matrix.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    return read_matrix(folder / "matrix.yaml", folder)


@GENERATED
@given(st.dictionaries(st.sampled_from(KEYS), NESTED, max_size=3))
def test_any_values_make_a_matrix_or_one_sentence(tmp_path, changes):
    try:
        assert isinstance(matrix_of(yaml.safe_dump(SOUND | changes), tmp_path), Matrix)
    except UserError as error:
        assert "matrix.yaml: " in str(error)


@GENERATED
@given(
    st.sets(st.sampled_from(("plain-10", "irnet-17", "srnet-48", "64BARx2-1")), min_size=1),
    st.sets(st.sampled_from(("paper", "onecycle")), min_size=1),
    st.sets(st.integers(0, 2**63 - 1), min_size=1, max_size=4),
    st.sets(st.sampled_from(("honest", "paper")), min_size=1),
    st.sets(st.integers(0, 99), min_size=1, max_size=3),
    st.sets(st.integers(1, 10**6) | st.just("all"), min_size=1, max_size=3),
)
def test_a_matrix_has_each_product_once(
    tmp_path, models, recipes, seeds, protocols, split_seeds, train_rows
):
    axes = {"models": models, "recipes": recipes, "seeds": seeds, "protocols": protocols}
    axes |= {"split_seeds": split_seeds, "train_rows": train_rows}
    text = yaml.safe_dump(SOUND | {name: list(values) for name, values in axes.items()})
    cells = matrix_of(text, tmp_path).cells
    assert len({cell.spec for cell in cells}) == len(cells) == math.prod(map(len, axes.values()))
    assert {cell.spec.seed for cell in cells} == seeds


BOMBS = {
    "a billion by aliases": "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)),
    "within itself": "packs: &a [*a]\n",
    "brackets": "packs: " + "[" * 20_000,
    "a number": f"seeds: [0x{'f' * 100_000}]\n",
    "a large file": "packs: [" + "alloys-elements, " * 100_000 + "]\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_matrix_that_is_made_to_fill_the_memory_is_one_sentence(bomb, tmp_path):
    tracemalloc.start()
    with pytest.raises(UserError, match=r"matrix\.yaml: "):
        matrix_of(BOMBS[bomb], tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


# --------------------------------------------------------------------------------- raw tables

FINITE = st.none() | st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.lists(
    st.tuples(TEXT, TEXT, st.sampled_from(("train", "val", "test")), FINITE, FINITE),
    min_size=1,
    max_size=8,
)
PACKED = {".csv": lambda text: text, ".csv.gz": gzip.compress, ".csv.xz": lzma.compress}


ENDINGS = sorted((*raw_table.OPENERS, *raw_table.FOREIGN))


def packing(ending):
    """Return the function that packs the text of a table whose name ends so."""
    return {"gz": gzip.compress, "xz": lzma.compress}.get(ending.rpartition(".")[2], bytes)


@GENERATED
@given(ROWS, st.sampled_from(sorted(PACKED)))
def test_a_table_is_read_as_it_was_written(tmp_path, rows, ending):
    plain, path = tmp_path / "plain.csv", tmp_path / f"t{ending}"
    with plain.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("formula", "material_id", "split", "band_gap", "mine"), *rows])
    path.write_bytes(PACKED[ending](plain.read_bytes()))
    read = read_csv_table(file_text(path), "t", ("band_gap",), lambda _: True)
    formulas, ids, splits, gaps, mine = map(list, zip(*rows, strict=True))
    assert (read.formula, read.role) == (formulas, splits)
    assert read.material_id == [given or f"t-{n}" for n, given in enumerate(ids, start=1)]
    for column, values in ((read.targets["band_gap"], gaps), (read.columns["mine"], mine)):
        np.testing.assert_array_equal(column, np.array(values, float))


@GENERATED
@given(st.binary(max_size=300), st.sampled_from(ENDINGS))
def test_any_bytes_are_a_table_or_one_sentence(tmp_path, content, ending):
    path = tmp_path / f"t{ending}"
    path.write_bytes(content)
    try:
        assert isinstance(load_table(str(path), columns=True).table, RawTable)
    except UserError as error:
        assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize("ending", [".csv.gz", ".csv.xz", ".jsonl.gz"])
def test_a_table_that_unpacks_to_hundreds_of_times_its_size_is_refused(
    ending, tmp_path, monkeypatch
):
    monkeypatch.setattr(raw_table, "ALWAYS_UNPACKED", 2**20)  # a thirtieth, for a test of a second
    path, of_lines = tmp_path / f"bomb{ending}", ending.startswith(".jsonl")
    line = b'{"formula": "H2O", "targets": {"band_gap": 1.5}}\n' if of_lines else b"H2O,1.5\n"
    text = b"" if of_lines else b"formula,band_gap\n"
    path.write_bytes(packing(ending)(text + line * 500_000))
    read = 0
    with pytest.raises(
        UserError,
        match=r"bomb\S+ unpacks to more than 300 times its size, as no real table does",
    ):
        for _ in raw_table.read_lines(path):
            read += len(line)
    assert 0 < read <= max(2**20, 300 * path.stat().st_size)
    with pytest.raises(UserError, match="unpacks to more than 300 times its size"):
        load_table(str(path))


@pytest.mark.parametrize("ending", sorted(raw_table.OPENERS))
def test_a_line_without_end_is_refused_before_it_fills_the_memory(ending, tmp_path):
    path = tmp_path / f"bomb{ending}"
    path.write_bytes(packing(ending)(b" " * 60 * 2**20))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"bomb\S+, line 1 is longer than the limit of 32 MiB"):
        load_table(str(path))
    assert tracemalloc.get_traced_memory()[1] < 110e6
    tracemalloc.stop()


# -------------------------------------------------------------------------------------- packs

WIDE = st.floats(width=64)


@GENERATED
@given(
    st.lists(
        st.tuples(
            TEXT.filter(bool), TEXT.filter(bool), WIDE, st.floats(-(2.0**99), 2.0**99, width=32)
        ),
        min_size=3,
        max_size=9,
    ),
    st.lists(TEXT, min_size=1, max_size=4),
    st.integers(1, 4),
)
def test_a_pack_is_read_as_it_was_written(tmp_path, rows, labels, chunk_rows):
    path, n = tmp_path / "p.h5", len(rows)
    formulas, ids, gaps, features = map(list, zip(*rows, strict=True))
    x = np.outer(np.array(features, np.float32), np.linspace(0.5, 1, len(labels), dtype=np.float32))
    identity = {
        "source": "t",
        "source_sha256": "0" * 64,
        "rules": 1,
        "n_source_rows": n,
        "properties": {"band_gap": "eV"},
    }
    identity |= {
        "features": "columns",
        "feature_versions": {"columns": 1},
        "filters": [],
        "split": {"by": "column"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_writer, "CHUNK_ROWS", chunk_rows)
        with create_pack(path, labels, n) as writer:
            writer.append(x)
            writer.finish(
                formulas,
                ids,
                {"band_gap": np.array(gaps)},
                {"train": n - 2, "val": 1, "test": 1},
                identity,
                {},
            )
    with store.open_pack(path) as pack:
        everything = slice(0, n)
        assert pack.x(everything).tobytes() == x.tobytes()
        np.testing.assert_array_equal(pack.y("band_gap", everything), np.array(gaps))
        assert (pack.formulas(everything), pack.material_ids(everything), pack.feature_labels) == (
            formulas,
            ids,
            labels,
        )


def test_a_pack_that_unpacks_to_thousands_of_times_its_size_is_refused(tmp_path):
    import h5py

    from tests import builders

    path = builders.write_pack(tmp_path, "alloys-elements", {"band_gap": "eV"})
    with h5py.File(path, "r+") as file:
        for name, shape in (("x", (10, 10**8)), ("feature_label", (10**8,))):
            dtype = file[name].dtype
            del file[name]
            file.create_dataset(
                name, shape, dtype, chunks=(*(10,) * (len(shape) - 1), 10**6), compression="gzip"
            )
    with pytest.raises(UserError, match=r"unpacks to [0-9,]+ MiB, more than 200 times its size"):
        store.open_pack(path)


@pytest.mark.parametrize("count", [math.inf, math.nan, "many", [1, 2]])
def test_a_pack_whose_count_of_rows_is_no_number_is_one_sentence(count, tmp_path):
    import h5py

    from tests import builders

    path = builders.write_pack(tmp_path, "alloys-elements", {"band_gap": "eV"})
    with h5py.File(path, "r+") as file:
        file.attrs["n_val"] = count
    with pytest.raises(UserError, match=r"alloys-elements\.h5 cannot be read as a pack"):
        store.open_pack(path)


def test_json_that_is_none_or_would_fill_the_memory_is_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "no text").write_bytes(b'{"a": "\xff"}')
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**40)
    for name, said in (
        ("pipe", "must be a file"),
        ("folder", "must be a file"),
        ("no text", "is not JSON"),
        ("large", "1,048,576"),
    ):
        with pytest.raises(UserError, match=said):
            read_json(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nothing")


def test_predictions_that_hold_no_arrays_or_odd_names_are_one_sentence(
    tmp_path,
):
    path = tmp_path / "test_predictions.npz"
    run = SimpleNamespace(folder=tmp_path, joint=None, folds=())
    with zipfile.ZipFile(path, "w") as file:
        for name in predictions.ARRAYS:
            file.writestr(f"{name}.npy", b"no array of numpy's")
    with pytest.raises(UserError, match="cannot be read"):
        predictions.read_predictions(run)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("two\nlines", b"abc")
    path.write_bytes(path.read_bytes().replace(b"abc", b"abd"))
    with pytest.raises(UserError, match=r"cannot be read: .*'two\\nlines'$"):
        predictions.read_predictions(run)


def test_predictions_that_unpack_to_thousands_of_times_their_size_are_refused(
    tmp_path,
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.savez_compressed(tmp_path / "bomb.npz", target=np.zeros(2 * 10**7))
    with pytest.raises(ValueError, match="it unpacks to 153 MiB, more than 50 times its size"):
        predictions_file.read_members(tmp_path / "bomb.npz", predictions_file.ARRAYS)
