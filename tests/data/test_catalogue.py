"""The list of sources."""


def test_the_list_says_what_there_is_and_what_is_here(pack_command, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/aflow.csv").write_text("formula,band_gap\nSi,1.1\n")
    done = pack_command("--list")
    assert done.returncode == 0, done.stderr
    entries = {entry.splitlines()[0]: entry for entry in done.stdout.split("\n\n")}
    assert list(entries) == [
        "alloys",
        "oqmd",
        "oqmd-sc",
        "mp",
        "jarvis",
        "aflow",
        "matminer:NAME",
        "crabnet:NAME",
        "matbench:TASK",
        "optimade:URL",
        "PATH",
    ]
    assert "here        data/aflow.csv" in entries["aflow"]
    assert "here        no" in entries["oqmd"]
    assert "rows        83,989 (2018-10-18, a snapshot)" in entries["mp"]
    assert "total_magnetization (µB/cell)" in entries["mp"]
    assert "licence     CC BY 4.0" in entries["mp"]
    done = pack_command("--list", "matminer")
    assert (
        "matminer:expt_gap\n  6,354 rows, formulas; here: no\n  columns: band_gap (eV)"
        in done.stdout
    )
    assert "matminer:double_perovskites_gap_lumo" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert max(len(line) for entry in entries.values() for line in entry.splitlines()) <= 100
    done = pack_command("--list", "oqmd")
    assert (done.returncode, done.stderr) == (
        2,
        "error: unknown catalogue (of --list) 'oqmd'; known: matminer, optimade:URL\n",
    )
