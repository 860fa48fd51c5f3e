"""Text made safe for spreadsheets, Markdown and LaTeX."""

import shutil
import subprocess

import pandas as pd
import pytest

from irnet_hpc.aggregate.formats import escape_latex, section_latex
from irnet_hpc.aggregate.mae_table import latex, markdown, tidy_csv
from irnet_hpc.aggregate.model_table import model_latex
from irnet_hpc.aggregate.sections import SECTIONS
from tests.aggregate.results import (
    findings_of,
    tables_of,
    write_by_hand,
    write_irnet_and_forest,
    write_ranked,
    write_run,
    write_sizes,
)


@pytest.mark.parametrize("unit", ["=1+1", "+x", "-", "@SUM(A1)"])
def test_a_spreadsheet_takes_no_text_of_the_csv_for_a_formula(tmp_path, unit):
    write_run(tmp_path, 0.1, property="mine", unit=unit)
    (tmp_path / "tidy.csv").write_text(tidy_csv(tables_of(tmp_path)))
    assert pd.read_csv(tmp_path / "tidy.csv").loc[0, "unit"] == "'" + unit


def test_names_of_the_user_are_escaped(tmp_path):
    assert escape_latex(r"50% of_x & $y$ #1 {z} ~^\ Å³/µ ±") == (
        r"50\% of\_x \& \$y\$ \#1 \{z\} "
        r"\textasciitilde{}\textasciicircum{}\textbackslash{} \AA{}$^3$/$\mu$ $\pm$"
    )
    write_run(tmp_path, 0.1, property="mine", unit="a|b\n*c*<i>")
    (table,) = tables_of(tmp_path)
    assert r"mine (a\|b \*c\*\<i\>)" in markdown(table)
    assert len(markdown(table).splitlines()) == 3


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_compiles(tmp_path):
    write_by_hand(tmp_path)
    write_run(tmp_path, 0.1, property="mine_1.x+y=z", unit=r"50% & $_{#}~^\<|> Å³ µB·°")
    body = "\n".join(map(latex, tables_of(tmp_path)))
    assert (
        body.count(r"\toprule") == body.count(r"\bottomrule") == 4
    )  # eight columns do not fit side by side
    document_text = (
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        + body
        + "\n\\end{document}\n"
    )
    (tmp_path / "paper.tex").write_text(document_text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").exists()


def test_the_caption_of_a_table_with_bold_says_what_is_bold(tmp_path):
    """Sections of a folder that has most of them: bold text and the caption's sentence agree."""
    write_irnet_and_forest(tmp_path / "two")
    write_sizes(tmp_path / "sizes")
    write_ranked(tmp_path / "ranked", 8)
    findings = [findings_of(tmp_path / name) for name in ("two", "sizes", "ranked")]
    sections = [section(found) for found in findings for section in SECTIONS]
    texts = [text for section in sections for text in section_latex(section)]
    texts += [latex(table) for found in findings for table in found.tables]
    texts += [model_latex(table) for found in findings for table in found.all_models]
    bold = [text for text in texts if r"\textbf" in text]
    assert len(bold) > 8
    assert [text for text in bold if "Bold" not in text.partition(r"\label")[0]] == []
