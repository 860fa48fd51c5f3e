"""The pages' commands are ones that exist, and those of the tutorial run."""

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

from irnet_hpc import completion
from irnet_hpc.data import alloys, formulas
from irnet_hpc.files import read_json

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


class Block(NamedTuple):
    text: str
    mark: str  # the line in italics before it; empty: none


def blocks(page: Path) -> list[Block]:
    """The shell blocks of a page."""
    found = re.findall(
        r"(?:^\*(\w[^*\n]*)\*\n\n)?^```bash\n(.*?)^```",
        page.read_text(encoding="utf-8"),
        re.M | re.S,
    )
    return [Block(text, mark) for mark, text in found]


def calls(text: str) -> list[tuple[str, list[str]]]:
    """(command, its arguments) of every `python -m irnet_hpc.<command>` of some lines of shell."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words = list(lexer)
        for at in range(len(words) - 2):
            if (
                words[at].endswith("python")
                and words[at + 1] == "-m"
                and words[at + 2].startswith("irnet_hpc.")
            ):
                rest = [
                    "1" if re.fullmatch(r"\$\w+", word) else word for word in words[at + 3 :]
                ]  # of a loop, say
                end = next(
                    (n for n, word in enumerate(rest) if set(word) <= set(";|&<>")), len(rest)
                )
                found.append((words[at + 2].removeprefix("irnet_hpc."), rest[:end]))
    return found


@pytest.fixture(scope="module")
def parsers():
    return completion.parsers()


def test_calls_are_found_in_shell_as_it_is_written():
    text = "A=1 python -m irnet_hpc.pack --source 'a b' \\\n  --rows $n > log  # why\nzcat x | python -m irnet_hpc.train; ls\n"
    assert calls(text) == [("pack", ["--source", "a b", "--rows", "1"]), ("train", [])]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_of_a_page_is_one_that_its_parser_takes(page, parsers, capsys):
    found = [call for block in blocks(page) for call in calls(block.text)]
    # `...` stands for options that were said before, so what is required may be among them.
    for name, arguments in (call for call in found if "..." not in call[1]):
        try:
            parsers[name].parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{name} {shlex.join(arguments)}: {capsys.readouterr().err}")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_block_says_whether_it_is_run(page):
    assert len(blocks(page)) == page.read_text(encoding="utf-8").count("```bash\n")
    assert [
        block.text for block in blocks(page) if not block.mark.startswith(("Run", "Not run"))
    ] == []
    for mark in (block.mark for block in blocks(page)):
        assert mark != "Run:" or page.name == "tutorial.md"  # whose blocks are run below
        assert [
            name
            for name in re.findall(r"`((?:tests|env)/\S+)`", mark)
            if not (ROOT / name).exists()
        ] == [], mark


SHELL = re.compile(
    r"^\s*(?:\$ |[A-Z_]+=\S+ )?(?:python\d? -m|bash|source|sbatch|srun|mpirun|horovodrun|pip|git|export) ",
    re.M,
)


def unmarked_shell(text: str) -> list[str]:
    """What looks like shell, and is in a fence of no or another name, or in an indented block."""
    others, indented = [], re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for name, block in re.findall(r"^ *```([^\n]*)\n(.*?)^ *```", text, re.M | re.S):
        others += (
            [block]
            if name != "bash" and (name not in ("", "python", "yaml") or SHELL.search(block))
            else []
        )
    others += [
        block for block in re.findall(r"(?:^ {4}.*\n)+", indented, re.M) if SHELL.search(block)
    ]
    return others


def test_shell_is_found_whatever_it_stands_in():
    assert unmarked_shell(
        "a\n\n    python -m irnet_hpc.train\n\n```sh\nls\n```\n```\n$ pip install x\n```\n"
    ) == [*("ls\n", "$ pip install x\n", "    python -m irnet_hpc.train\n")]
    assert (
        unmarked_shell("```bash\npython -m x\n```\n```\nok  2 ranks\n```\n    raw table -> pack\n")
        == []
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_all_shell_of_a_page_is_in_blocks_that_say_so(page):
    assert unmarked_shell(page.read_text(encoding="utf-8")) == []


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


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory) -> tuple[Path, str]:
    """The folder in which the tutorial's blocks have run, one after the other, and what they printed."""
    folder, printed = tmp_path_factory.mktemp("tutorial"), ""
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
    for block in blocks(ROOT / "docs/tutorial.md"):
        if block.mark == "Run:":
            command = ["bash", "-euo", "pipefail", "-c", block.text]
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
            )
            assert done.returncode == 0, f"{block.text}\n{done.stdout}{done.stderr}"
            printed += done.stdout + done.stderr
    return folder, printed


@pytest.mark.slow
def test_the_tutorial_leaves_what_it_promises(tutorial):
    folder, printed = tutorial
    assert (
        len(list((folder / "results").rglob("result.json"))) == 8
    )  # a forest and three seeds, of the alloys and of hard.csv
    assert "random_forest" in (folder / "results/tables/mae.md").read_text()
    assert (folder / "report.html").stat().st_size > 10_000
    assert "648 compositions" in printed and "1,296 compositions" in printed
    assert (folder / "candidates.csv.about.json").exists()
    for path in (folder / "results/hard-magpie").rglob("result.json"):
        result = read_json(path)
        assert result["unit"] == "GPa" and result["test_mae"] < 0.7 * result["baseline_mae"], path


@pytest.mark.slow
def test_the_tutorials_hardest_are_among_those_that_its_rule_makes_hardest(tutorial):
    """By the rule without its noise, in GPa, as the tutorial draws its table."""
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
        listed = [rule(formulas.composition(row["formula"])) for row in csv.DictReader(file)]
    assert len(listed) == 20 and min(listed) >= np.quantile(space, 0.75)


@pytest.mark.slow
def test_the_tutorials_candidates_are_among_the_truly_best(tutorial):
    """The mixing enthalpy is a formula, so the list can be held to it."""
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
    of_listed = true_enthalpy([formulas.composition(row["formula"]) for row in listed])
    # A quarter of the space holds all of the list; twenty drawn at random would all be there once in 10^12 times.
    assert of_listed.max() <= truth[len(truth) // 4]


def true_enthalpy(compositions: list[dict[str, float]]) -> np.ndarray:
    """eV/atom (n,), by the source's own tables."""
    elements, enthalpy, _ = alloys.table()
    fractions = np.zeros((len(compositions), len(elements)))
    for row, composition in enumerate(compositions):
        for symbol, amount in composition.items():
            fractions[row, elements.index(symbol)] = amount
    return alloys.mixing_enthalpy(fractions / fractions.sum(1, keepdims=True), enthalpy)


@pytest.mark.slow
def test_the_reference_of_the_modules_can_be_made(tmp_path):
    pytest.importorskip("pdoc")
    (command,) = (
        line
        for block in blocks(ROOT / "docs/extending.md")
        for line in block.text.splitlines()
        if "pdoc" in line
    )
    words = shlex.split(command.replace("build/reference", str(tmp_path)), comments=True)
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "irnet_hpc/store.html").read_text()
    assert "open_pack" in page
    assert "Traceback" not in done.stderr
