"""The table of all models: which models stand side by side, what is bold, and its LaTeX."""

import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from irnet_hpc.aggregate.model_table import lines_of, model_latex, model_markdown
from irnet_hpc.aggregate.report import make_tables
from irnet_hpc.aggregate.scores import Model
from irnet_hpc.runs.recipes import RECIPES
from tests.aggregate.results import (
    PAPER,
    findings_of,
    write_by_hand,
    write_classical,
    write_irnet_and_forest,
    write_predictions,
    write_run,
    write_split,
)


def cells(table, **options):
    """Lines of the table as mappings from header to text."""
    header, *lines = [[cell.text for cell in line] for line in lines_of(table, **options)]
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_networks_and_classical_models_of_a_pack_share_a_table(tmp_path):
    write_by_hand(tmp_path)
    write_classical(tmp_path)
    write_run(tmp_path, 0.05, recipe=RECIPES["paper"])
    (table,) = findings_of(tmp_path).all_models
    lines = cells(table, repeats=True)
    assert {line["property"] for line in lines} == {"Formation energy (eV/atom)"}
    assert [(line["model"], line["training"]) for line in lines[1:]] == [
        *(("Plain-17", "onecycle"), ("Plain-48", "onecycle")),
        *(("IRNet-17", "onecycle"), ("IRNet-17", "paper"), ("IRNet-48", "onecycle")),
        *(("Linear regression", ""), ("Ridge regression", ""), ("Random forest", "")),
    ]
    plain = lines[1]
    # By hand: MAE 0.10, 0.12, 0.14, and each RMSE is twice the MAE.
    assert (plain["MAE"], plain["RMSE"]) == ("0.120 ± 0.020", "0.240 ± 0.040")
    assert (plain["R²"], plain["runs"]) == ("0.900", "3")
    assert (plain["training rows"], plain["test rows"]) == ("80", "10")
    assert lines[0]["MAE"] == "0.500"  # the baseline


def test_columns_that_say_nothing_are_left_out(tmp_path):
    write_by_hand(tmp_path)
    (table,) = findings_of(tmp_path).all_models
    assert "training" not in cells(table)[0] and "remark" not in cells(table)[0]
    assert "recipe onecycle" in table.title
    write_run(tmp_path, 5.0, "irnet-10")  # ten times the baseline's MAE
    (table,) = findings_of(tmp_path).all_models
    remarks = {line["model"]: line["remark"] for line in cells(table)}
    assert {model for model, remark in remarks.items() if remark} == {"IRNet-10"}


def test_other_packs_protocols_and_numbers_of_rows_have_tables_of_their_own(tmp_path):
    write_run(tmp_path, 0.1)
    write_run(tmp_path, 0.1, "ridge")
    write_run(tmp_path, 0.1, pack="jarvis-magpie")
    write_run(tmp_path, 0.1, train_rows=50, n_train=50)
    write_run(tmp_path, 0.1, **PAPER)
    write_run(tmp_path, 0.1, "irnet-10", key="f" * 64)  # stale
    tables = findings_of(tmp_path).all_models
    assert sorted(len(table.lines) for table in tables) == [1, 1, 1, 1, 2]
    assert len({table.name for table in tables}) == len({table.title for table in tables}) == 5
    (paper,) = (table for table in tables if "protocol paper" in table.title)
    assert "selected on test" in paper.title


def test_bold_is_the_lowest_and_what_the_test_does_not_tell_from_it(tmp_path):
    """The forest has three times the error of IRNet, but on four rows of three formulas."""
    write_irnet_and_forest(tmp_path)
    for seed in range(3):
        errors = [0.7 + 0.001 * seed] * 4
        write_predictions(write_run, tmp_path, errors, "plain-17", seed=seed)
    (table,) = findings_of(tmp_path).all_models
    found = {str(line.model): (line.best, line.p_against_best) for line in table.lines}
    assert found["irnet-17"] == (True, None)
    assert found["random_forest"][0] and found["random_forest"][1] >= 0.05
    assert not found["plain-17"][0] and found["plain-17"][1] < 0.05
    bold = [line[1].text for line in lines_of(table) if line[1].bold]
    assert bold == ["IRNet-17", "Random forest"]


def test_the_baseline_is_bold_where_no_model_is_better(tmp_path):
    write_run(tmp_path, 0.6)
    (table,) = findings_of(tmp_path).all_models
    assert table.properties[0].baseline_best and not table.lines[0].best
    assert [line[2].bold for line in lines_of(table)] == [False, True, False]


def test_a_model_of_some_of_the_splits_is_not_the_best(tmp_path):
    write_split(tmp_path, 0.01, 0, "irnet-48")
    for split in range(2):
        write_split(tmp_path, 0.10 + 0.1 * split, split, "irnet-17")
    (table,) = findings_of(tmp_path).all_models
    assert {line.model: line.best for line in table.lines} == {
        Model("irnet", 17): True,
        Model("irnet", 48): False,
    }


def test_the_csv_keeps_its_columns_and_has_the_new_ones_at_its_end(tmp_path):
    write_by_hand(tmp_path / "results")
    errors = ([0.1, 0.2, 0.9, 0.4], [0.3, 0.2, 0.1, 0.0])
    for seed, of_seed in enumerate(errors):
        write_predictions(
            write_run, tmp_path / "results", of_seed, "ridge", seed=seed, property="band_gap"
        )
    report = make_tables(tmp_path / "results")
    report.write_tables(tmp_path / "tables")
    frame = pd.read_csv(tmp_path / "tables" / "mae.csv")
    assert list(frame.columns[:5]) == ["pack", "property", "model", "architecture", "depth"]
    assert list(frame.columns[-8:]) == [
        *("test_rmse_mean", "test_rmse_sd", "test_r2_mean", "test_r2_sd"),
        *("test_median_error", "model_name", "property_name", "val_mae_mean"),
    ]
    plain = frame.set_index("model").loc["plain-17"]
    assert (plain["test_rmse_mean"], plain["test_rmse_sd"]) == pytest.approx((0.24, 0.04))
    assert (plain["model_name"], plain["property_name"]) == ("Plain-17", "Formation energy")
    assert np.isnan(plain["test_median_error"])  # it has no predictions
    ridge = frame[frame["model"] == "ridge"].iloc[0]
    assert ridge["test_median_error"] == pytest.approx(
        np.mean([np.median(np.abs(errors[seed])) for seed in range(int(ridge["n_runs"]))])
    )
    told = json.loads((tmp_path / "tables" / "mae.json").read_text())["all_models"][0]
    models = {
        (known["property"], model["model"]): model
        for known in told["properties"]
        for model in known["models"]
    }
    assert models["formation_energy", "plain-17"]["test_rmse_mean"] == pytest.approx(0.24)


def compiled(folder, body):
    """Compile LaTeX that needs nothing but booktabs; return the log."""
    paper = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{body}\n"
    (folder / "paper.tex").write_text(paper + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "paper.log").read_text(errors="replace")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_compiles_as_it_is_and_fits_between_the_margins(tmp_path):
    results = tmp_path / "results"
    write_irnet_and_forest(results)
    write_by_hand(tmp_path / "more")
    for model in ("linear", "svr", "boosted_trees"):
        write_run(results, 0.4, model, n_test=4)
        write_run(results, 0.2, model, property="band_gap", unit="eV", n_test=4)
    write_run(results, 5.0, "srnet-17", n_test=4)  # far above the baseline
    tables = findings_of(results).all_models
    body = "\n".join(map(model_latex, tables))
    assert body.count(r"\begin{tabular}") == 1  # one table, which is not split
    assert "_forest" not in body and "Random forest" in body and "Band gap (eV)" in body
    assert "SRNet-17$^1$ &" in body and "$^1$ far above the baseline" in body
    assert "Overfull" not in compiled(tmp_path, body)
    make_tables(results).write_tables(tmp_path / "tables")
    whole = (tmp_path / "tables" / "mae.tex").read_text()
    compiled(tmp_path, whole)
    assert "$-$0." in whole and "(-" not in whole and " -0." not in whole  # a difference below 0
    assert "random\\_forest" not in whole and "formation\\_energy" not in whole


def test_the_markdown_says_what_is_bold(tmp_path):
    write_irnet_and_forest(tmp_path)
    report = make_tables(tmp_path)
    (table,) = report.findings.all_models
    text = report.markdown()
    assert text.startswith(model_markdown(table))
    assert report._repr_markdown_() == model_markdown(table)  # in a notebook
    assert text.index("Bold: the lowest MAE of a property") < text.index("## oqmd-magpie, recipe")
