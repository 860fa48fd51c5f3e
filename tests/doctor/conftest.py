"""Fixtures of the doctor's tests: settings, and programs that stand in for those on PATH."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from irnet_hpc.doctor import cluster
from irnet_hpc.doctor.checks import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "results", "0123abcd")


@pytest.fixture
def put_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put one-line shell scripts on PATH, before or (`alone`) instead of what is there."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(alone: bool = False, **scripts: str) -> None:
        for name, line in scripts.items():
            path = folder / name
            path.write_text(f"#!/bin/sh\n{line}\n")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder) if alone else f"{folder}:{os.environ['PATH']}")

    cluster.read_configuration.cache_clear()
    for variable in ("IRNET_SITE", "IRNET_SRUN_ARGS", "SLURM_JOB_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("IRNET_STATE", str(tmp_path / "state"))
    yield put
    cluster.read_configuration.cache_clear()


@pytest.fixture
def run_doctor(capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, dict[str, dict]]]:
    """Run the command with --json; return its exit status, and check -> its verdict."""
    import json

    from irnet_hpc.doctor import cli

    def run(*arguments: object) -> tuple[int, dict[str, dict]]:
        status = cli.main([*map(str, arguments), "--json"])
        report = json.loads(capsys.readouterr().out)
        assert report["would_run"] == (status == 0)
        for verdict in report["checks"].values():
            # Whatever is wrong comes with a command to type.
            assert verdict["found"] and (verdict["todo"] or verdict["level"] in ("ok", "note"))
        return status, report["checks"]

    return run
