"""The command: the files it writes, what it prints, and its errors."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from irnet_hpc.files import write_json
from tests.aggregate.results import (
    LESS,
    aggregate,
    write_both,
    write_by_hand,
    write_history,
    write_irnet_and_forest,
    write_ranked,
    write_run,
    write_sizes,
    write_three,
)


def test_the_command_writes_the_same_tables_that_it_shows(tmp_path):
    write_by_hand(tmp_path / "results")
    done = aggregate("--all", cwd=tmp_path)  # with nothing else: results
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    figure = "mae_vs_depth-oqmd-magpie_onecycle_honest"
    assert {path.name for path in folder.iterdir()} == {
        *("mae.md", "mae.csv", "mae.json", "mae.tex", f"{figure}.png", f"{figure}.pdf")
    }
    assert (folder / "mae.md").read_text() in done.stdout
    assert "**0.090 ± 0.010 (n=3)**" in done.stdout
    assert (folder / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert aggregate("results/", cwd=tmp_path).returncode == 0
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    elsewhere = aggregate("results/", "--tables", "paper", cwd=tmp_path)
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert (tmp_path / "paper" / "mae.csv").read_bytes() == (folder / "mae.csv").read_bytes()


def test_nothing_to_show_is_one_sentence_and_status_2(tmp_path):
    (tmp_path / "empty").mkdir()
    failed = write_run(tmp_path / "failed", 0.1)
    (failed / "result.json").unlink()
    write_json(failed / "error.json", {"error": "out of memory"})
    two = tmp_path / "two"
    write_run(two, 0.1, "irnet-17")
    write_run(two, 0.1, "irnet-48", identity={"split_seed": 1})
    for results, sentence in (
        (tmp_path / "absent", "is not a folder"),
        (tmp_path / "empty", "it holds no run folder"),
        (tmp_path / "failed", "1 failed (e.g. .*: out of memory)"),
        (two, "two packs named 'oqmd-magpie' of different content (split_seed)"),
    ):
        done = aggregate(results)
        assert done.returncode == 2
        assert re.fullmatch(r"error: [^\n]+\n", done.stderr)
        assert re.search(sentence.replace("(", r"\(").replace(")", r"\)"), done.stderr), done.stderr
        assert done.stdout == ""
        assert not (results / "tables").exists()


def test_tables_need_neither_torch_nor_hdf5_nor_mpi_nor_matplotlib(tmp_path):
    write_run(tmp_path / "results", 0.1)
    code = (
        "import sys; sys.argv = ['aggregate', 'results'];"
        "from irnet_hpc.aggregate.cli import main; main();"
        "slow = {'torch', 'h5py', 'mpi4py', 'horovod', 'matplotlib', 'jinja2', 'numpy', 'scipy'};"
        "print(sorted(slow & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"  # one depth has no figure, and so no matplotlib


def test_the_command_writes_the_published_numbers_as_a_csv_of_their_own(tmp_path):
    write_run(tmp_path / "results", 0.05, identity={"source": "oqmd"})
    done = aggregate("--all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    assert {path.name for path in folder.iterdir()} == {
        "mae.md",
        "mae.csv",
        "mae.json",
        "mae.tex",
        "published.csv",
    }
    assert (
        "Published on oqmd" in done.stdout
        and "Published on oqmd" in (folder / "mae.md").read_text()
    )


def test_the_command_writes_size_csv_and_a_log_log_figure(tmp_path):
    write_sizes(tmp_path / "results")
    done = aggregate(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    frame = pd.read_csv(folder / "size.csv")
    networks = frame[(frame["recipe"] == "onecycle") & (frame["best_classical"] == 0)]
    few = networks[(networks["model"] == "irnet-17") & (networks["n_train"] == 100)].iloc[0]
    assert (few["test_mae_mean"], few["n_runs"], few["train_rows"]) == (pytest.approx(0.2), 2, 100)
    assert list(frame[frame["best_classical"] == 1]["model"]) == ["random_forest", "ridge"]
    assert "## MAE against training rows" in (folder / "mae.md").read_text()
    figure = folder / "mae_vs_rows-formation_energy_oqmd-magpie_onecycle_honest.png"
    assert figure.read_bytes().startswith(b"\x89PNG") and figure.with_suffix(".pdf").exists()


def test_the_command_draws_convergence_a_figure_a_property(tmp_path):
    write_history(write_run(tmp_path / "results", 0.1), [0.4, 0.2])
    done = aggregate(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    name = "convergence-formation_energy_oqmd-magpie_onecycle_honest"
    assert {path.name for path in folder.iterdir()} == {
        *("mae.md", "mae.csv", "mae.json", "mae.tex", f"{name}.png", f"{name}.pdf")
    }


def test_the_command_writes_the_differences_in_all_forms(tmp_path):
    write_irnet_and_forest(tmp_path / "results")
    done = aggregate(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    line = pd.read_csv(folder / "differences.csv").loc[0]
    assert (line["model"], line["against"], line["unit"]) == (
        "irnet-17",
        "random_forest",
        "eV/atom",
    )
    assert line["mean"] == pytest.approx(-0.19) and line["low"] < -0.19 < line["high"]
    assert line["excludes_zero"] in (0, 1)
    text = (folder / "mae.md").read_text()
    assert "## Differences\n" in text and "-63.3 %" in text and "1 × 3" in text
    assert r"$\times$" in (folder / "mae.tex").read_text()
    again = (folder / "differences.csv").read_bytes()
    assert aggregate(cwd=tmp_path).returncode == 0
    assert (folder / "differences.csv").read_bytes() == again


def test_the_command_writes_intervals_in_all_forms(tmp_path):
    write_three(tmp_path / "results")
    done = aggregate(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    frame = pd.read_csv(folder / "mae.csv").set_index("model")
    irnet = frame.loc["irnet-17"]
    assert irnet["test_mae_low"] < 0.11 < irnet["test_mae_high"]
    assert frame.loc["srnet-17", "p_against_best"] == pytest.approx(
        stats.ttest_1samp(LESS, 0).pvalue
    )
    cells = json.loads((folder / "mae.json").read_text())["tables"][0]["rows"][0]["cells"]
    assert [cell["best"] for cell in cells] == [False, True, True]
    assert cells[2]["interval"] == pytest.approx([irnet["test_mae_low"], irnet["test_mae_high"]])
    for name in ("mae.md", "mae.tex"):
        assert "models that do not differ from the best" in (folder / name).read_text()


def test_the_command_writes_optimism_csv_and_shows_the_section_in_all_forms(tmp_path):
    write_both(tmp_path / "results")
    done = aggregate(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    assert {path.name for path in folder.iterdir()} == {
        "mae.md",
        "mae.csv",
        "mae.json",
        "mae.tex",
        "optimism.csv",
    }
    assert "+0.0030 ± 0.0014 (n=2)" in (folder / "mae.md").read_text()
    assert "tab:optimism-" in (folder / "mae.tex").read_text()


def test_the_command_writes_every_form_from_one_computation(tmp_path):
    write_ranked(tmp_path / "results", 8)
    done = aggregate(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    told = json.loads((folder / "mae.json").read_text())
    frame = pd.read_csv(folder / "mae.csv")
    cells = [
        cell
        for table in told["tables"]
        for row in table["rows"]
        for cell in row["cells"]
        if "missing" not in cell
    ]
    assert [cell["test_mae_mean"] for cell in cells] == frame["test_mae_mean"].tolist()
    missing = [
        cell["missing"]
        for table in told["tables"]
        for row in table["rows"]
        for cell in row["cells"]
        if "missing" in cell
    ]
    assert missing == ["not run"] * 7  # irnet-48
    assert told["sections"]["ranks"][0]["n_tasks"] == 8
    assert (folder / "ranks.csv").exists() and (folder / "critical_difference.pdf").exists()
    assert all(
        "Ranks over all tasks" in (folder / name).read_text() for name in ("mae.md", "mae.tex")
    )


def test_without_tables_there_is_a_sentence_and_no_page(tmp_path):
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "two", 0.1, "irnet-17")
    write_run(tmp_path / "two", 0.1, "irnet-48", identity={"split_seed": 1})
    for results, words in (
        ("empty", "no finished run below empty"),
        ("two", "two packs named 'oqmd-magpie'"),
    ):
        done = aggregate(results, "--html", "report.html", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(rf"error: .*{words}.*\n", done.stderr)
    assert not (tmp_path / "report.html").exists()


def test_a_pipe_gets_text_for_people_and_mae_md_escapes(tmp_path):
    write_irnet_and_forest(tmp_path, n_seeds=2)
    done = aggregate(tmp_path, "--all")
    assert "n < 3" in done.stdout and "\\" not in done.stdout
    assert r"n \< 3" in (tmp_path / "tables" / "mae.md").read_text()
