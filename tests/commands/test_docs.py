"""Check the pages: commands parse, links lead somewhere, the tutorial runs, the site builds."""

import csv
import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import irnet_hpc
from irnet_hpc import completion
from irnet_hpc.data import alloys, formulas
from irnet_hpc.files import read_json

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


class Block(NamedTuple):
    """A shell block of a page."""

    text: str
    mark: str  # the line in italics above it; empty if there is none


def blocks(page: Path) -> list[Block]:
    """List the shell blocks of a page."""
    found = re.findall(
        r"(?:^\*(\w[^*\n]*)\*\n\n)?^```bash\n(.*?)^```",
        page.read_text(encoding="utf-8"),
        re.M | re.S,
    )
    return [Block(text, mark) for mark, text in found]


def calls(text: str) -> list[tuple[str, list[str]]]:
    """List (command, its arguments) of every `python -m irnet_hpc.<command>` in lines of shell."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words = list(lexer)
        for at in range(len(words) - 2):
            python, module, name = words[at : at + 3]
            if not (python.endswith("python") and module == "-m" and "irnet_hpc." in name):
                continue
            # A variable of a loop stands for some value.
            rest = ["1" if re.fullmatch(r"\$\w+", word) else word for word in words[at + 3 :]]
            end = next((n for n, word in enumerate(rest) if set(word) <= set(";|&<>")), len(rest))
            found.append((name.removeprefix("irnet_hpc."), rest[:end]))
    return found


@pytest.fixture(scope="module")
def parsers():
    return completion.parsers()


def test_calls_are_found_in_shell_as_it_is_written():
    text = (
        "A=1 python -m irnet_hpc.pack --source 'a b' \\\n  --rows $n > log  # why\n"
        "zcat x | python -m irnet_hpc.train; ls\n"
    )
    assert calls(text) == [("pack", ["--source", "a b", "--rows", "1"]), ("train", [])]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_of_a_page_is_one_that_its_parser_takes(page, parsers, capsys):
    found = [call for block in blocks(page) for call in calls(block.text)]
    # `...` stands for options shown before, so required ones may be among them.
    for name, arguments in (call for call in found if "..." not in call[1]):
        try:
            parsers[name].parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{name} {shlex.join(arguments)}: {capsys.readouterr().err}")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for target in targets:
        file, _, anchor = target.partition("#")
        to = (page.parent / file) if file else page
        assert to.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", to.read_text(encoding="utf-8"), re.M)
            assert anchor in {
                re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads
            }, target


def run_block(text: str, folder: Path) -> str:
    """Run a shell block in a folder; return everything it printed."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("IRNET_", "SLURM_"))
    }
    environment |= {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "IRNET_OFFLINE": "1",
    }
    command = ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory) -> tuple[Path, str]:
    """Run the tutorial's blocks in order; return their folder and everything they printed."""
    folder, printed = tmp_path_factory.mktemp("tutorial"), ""
    for block in blocks(ROOT / "docs/tutorial.md"):
        if block.mark == "Run:":
            printed += run_block(block.text, folder)
    return folder, printed


@pytest.mark.slow
def test_the_commands_of_the_readme_lead_from_a_table_to_predictions(tmp_path):
    """The gap of these made-up compounds grows with the share of the anion."""
    chance = np.random.default_rng(0)
    pairs = itertools.product(("Zn", "Cd", "Mg", "Ca"), range(1, 5), ("O", "S", "Se"), range(1, 5))
    names = [f"{metal}{i}{anion}{j}" for metal, i, anion, j in pairs]
    gaps = [int(name[-1]) + chance.normal(0, 0.1) for name in names]
    rows = [f"S{n},{name},{gap:.3f}" for n, (name, gap) in enumerate(zip(names, gaps, strict=True))]
    (tmp_path / "my.csv").write_text("\n".join(["Sample ID,Composition,Eg (eV)", *rows]) + "\n")
    (tmp_path / "new.csv").write_text("formula\nBaO\nZn3Te2\n")
    (block,) = (b for b in blocks(ROOT / "README.md") if b.mark.startswith("Run by `tests/"))
    printed = run_block(block.text, tmp_path)
    assert "Training median" in printed and "Random forest" in printed and "IRNet-17" in printed
    results = list((tmp_path / "results").rglob("result.json"))
    assert len(results) == 11  # ridge and boosted trees are the same for every seed
    assert (tmp_path / "report.html").stat().st_size > 10_000
    with (tmp_path / "predictions.csv").open(newline="") as file:
        predicted = [float(row["predicted_band_gap"]) for row in csv.DictReader(file)]
    assert len(predicted) == 2 and min(predicted) >= 0


@pytest.mark.slow
def test_the_tutorial_leaves_what_it_promises(tutorial):
    folder, printed = tutorial
    # A forest and three seeds, for the alloys and for hard.csv.
    assert len(list((folder / "results").rglob("result.json"))) == 8
    assert "random_forest" in (folder / "results/tables/mae.md").read_text()
    assert (folder / "report.html").stat().st_size > 10_000
    assert "648 compositions" in printed and "1,296 compositions" in printed
    assert (folder / "candidates.csv.about.json").exists()
    for path in (folder / "results/hard-magpie").rglob("result.json"):
        result = read_json(path)
        assert result["unit"] == "GPa" and result["test_mae"] < 0.7 * result["baseline_mae"], path


@pytest.mark.slow
def test_the_tutorials_hardest_candidates_are_hard_by_its_rule(tutorial):
    """Hold the list to the rule (in GPa, without noise) by which the tutorial draws its table."""
    metals = {"Ti": 20, "Zr": 16, "Hf": 18, "V": 19, "Nb": 15, "Ta": 17, "W": 24}
    light = {"B": 28, "C": 24, "N": 12}

    def rule(composition: dict[str, float]) -> float:
        (x,) = composition.keys() & light.keys()
        n_metal = sum(n for symbol, n in composition.items() if symbol != x)
        metal = (
            sum(n * metals[symbol] for symbol, n in composition.items() if symbol != x) / n_metal
        )
        share = composition[x] / (n_metal + composition[x])
        return metal + light[x] * share * (1 - share)

    space = [
        rule({a: i, b: j, x: 10 - i - j})
        for a, b, x in itertools.product(("Ti", "Zr", "Hf", "V"), ("Nb", "Ta", "W"), light)
        for i in range(1, 9)
        for j in range(1, 10 - i)
    ]
    assert len(space) == 1296
    with (tutorial[0] / "hardest.csv").open(newline="") as file:
        listed = [rule(formulas.parse_formula(row["formula"])) for row in csv.DictReader(file)]
    assert len(listed) == 20 and min(listed) >= np.quantile(space, 0.75)


@pytest.mark.slow
def test_the_tutorials_candidates_are_among_the_truly_best(tutorial):
    """Hold the list to the formula of the mixing enthalpy."""
    with (tutorial[0] / "candidates.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    predicted = [float(row["predicted_mixing_enthalpy"]) for row in listed]
    assert len(listed) == 20
    assert predicted == sorted(predicted)
    space = [
        {a: x, b: y, c: 10 - x - y}
        for a in ("Ti", "Zr", "Hf")
        for b in ("Fe", "Co", "Ni")
        for c in ("Al", "Si")
        for x in range(1, 9)
        for y in range(1, 10 - x)
    ]
    assert len(space) == 648
    truth = np.sort(true_enthalpy(space))
    of_listed = true_enthalpy([formulas.parse_formula(row["formula"]) for row in listed])
    # The best quarter of the space holds the whole list; by chance: once in 10^12 times.
    assert of_listed.max() <= truth[len(truth) // 4]


def true_enthalpy(compositions: list[dict[str, float]]) -> np.ndarray:
    """Compute mixing enthalpies, eV/atom (n,), from the source's own tables."""
    elements, enthalpy, _ = alloys.element_data()
    fractions = np.zeros((len(compositions), len(elements)))
    for row, composition in enumerate(compositions):
        for symbol, amount in composition.items():
            fractions[row, elements.index(symbol)] = amount
    return alloys.mixing_enthalpy(fractions / fractions.sum(1, keepdims=True), enthalpy)


def test_the_site_builds_without_a_warning(tmp_path):
    """Links between pages, anchors, links to files of the repository, docstrings: all strict."""
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference.html").read_text(encoding="utf-8")
    assert [name for name in irnet_hpc.__all__ if f'id="irnet_hpc.{name}"' not in reference] == []
    # A link to a file of the repository leads to a copy of it, one to a folder to a list.
    copy = tmp_path / "repository/jobs_transfer.yaml.txt"
    assert copy.read_bytes() == (ROOT / "jobs/transfer.yaml").read_bytes()
    assert "jobs_smoke.yaml.txt" in (tmp_path / "repository/jobs.html").read_text()


def test_the_reference_lists_every_name_of_the_library():
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == set(irnet_hpc.__all__)
