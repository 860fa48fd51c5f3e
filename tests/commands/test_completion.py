"""Test the completion script by bash itself."""

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.commands.test_commands import run


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    pytest.importorskip("shtab")
    path = tmp_path_factory.mktemp("completion") / "irnet_hpc"
    done = run("completion", "bash")
    assert done.returncode == 0, done.stderr
    path.write_text(done.stdout)
    return path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tr", {"train"}),
        ("train --archi", {"--architecture"}),
        ("train --architecture ir", {"irnet"}),
        ("train --architecture ran", {"random_forest"}),
        ("pack --source j", {"jarvis"}),
        ("train --property band", {"band_gap", "band_gap_mbj"}),
        ("sweep st", {"status"}),
        ("sweep status --wa", {"--watch"}),
        ("completion z", {"zsh"}),
    ],
)
def test_bash_completes_commands_options_and_what_they_choose_from(script, typed, offered):
    words = ["irnet_hpc", *typed.split(" ")]
    program = f"""
source {shlex.quote(str(script))}
COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}
COMP_LINE={shlex.quote(" ".join(words))}
$(complete -p irnet_hpc | sed 's/.*-F \\([^ ]*\\) .*/\\1/') irnet_hpc {words[-1]} {words[-2]}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=600)
    assert {word.strip() for word in done.stdout.splitlines()} == offered, done.stderr
