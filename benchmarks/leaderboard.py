"""Read Matbench's leaderboard from a copy of its repository into aggregate/leaderboards.csv.

git clone --bare https://github.com/materialsproject/matbench matbench.git
python benchmarks/leaderboard.py matbench.git >matbench.csv
"""

import argparse
import csv
import html
import re
import subprocess
import sys
from pathlib import Path

from irnet_hpc.data.benchmarks import MATBENCH, MATBENCH_TASKS

PAGE = "docs/Leaderboards Per-Task/matbench_v0.1_matbench_{task}/index.html"


def main() -> None:
    """Print the lines of all tasks that have a number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path, help="git directory of materialsproject/matbench")
    repository = parser.parse_args().repository
    commit, date = git(repository, "log", "-1", "--format=%h %cs").split()
    source = f"leaderboard in materialsproject/matbench, commit {commit} of {date}"
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for task, known in MATBENCH_TASKS.items():
        for algorithm, mae, sd in leaderboard(
            git(repository, "show", f"HEAD:{PAGE.format(task=task)}")
        ):
            writer.writerow([f"{MATBENCH}{task}", known.property, algorithm, mae, sd, source])


def git(repository: Path, *arguments: str) -> str:
    """Return the output of a git command."""
    command = ["git", "--git-dir", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def leaderboard(page: str) -> list[tuple[str, str, str]]:
    """Return (algorithm, mean MAE, standard deviation over folds) of a task's page."""
    (table,) = re.findall(r"<table>.*?algorithm.*?</table>", page, re.DOTALL)
    rows = [
        [text_of(cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)
    ]
    header, *lines = rows
    assert header[:3] == ["algorithm", "mean mae", "std mae"], header
    return [(line[0], line[1], line[2]) for line in lines]


def text_of(cell: str) -> str:
    """Return the text of a cell without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", cell)).split())


if __name__ == "__main__":
    main()
