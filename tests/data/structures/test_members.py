"""Archives are read within limits, member by member, and lead nowhere."""

import io
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from irnet_hpc.data.structures.finding import find_structures
from irnet_hpc.data.structures.members import members
from irnet_hpc.errors import UserError

MIB = 2**20


def tar_of(path: Path, *infos: tarfile.TarInfo, content: bytes = b"x") -> Path:
    """Write an archive of members, each with the same content where it is a file."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for info in infos:
            info.size = len(content) if info.isfile() else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def info_of(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def found(path: Path) -> dict[str, str]:
    """Return the name of each member, and the reason why it is not read."""
    return {member.name: member.fault[0] if member.fault else "" for member in members(path)}


def test_names_that_lead_out_of_a_tar_and_links_are_refused(tmp_path):
    path = tar_of(
        tmp_path / "a.tar.gz",
        *map(info_of, ("good.cif", "../out.cif", "/etc/a.cif", "b/../../c.cif", "C:/d.cif")),
        info_of("link.cif", tarfile.SYMTYPE, "/etc/passwd"),
        info_of("hard.cif", tarfile.LNKTYPE, "good.cif"),
        info_of("pipe.cif", tarfile.FIFOTYPE),
    )
    reasons = found(path)
    assert reasons.pop("good.cif") == ""
    assert len(reasons) == 7 and all(reasons.values())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tar.gz"]


def test_names_that_lead_out_of_a_zip_and_links_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("good.cif", "../out.cif", "/etc/a.cif", "b/../../c.cif", "n" * 400):
            archive.writestr(name, "x")
        link = zipfile.ZipInfo("link.cif")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    reasons = found(path)
    assert reasons.pop("good.cif") == ""
    assert len(reasons) == 5 and all(reasons.values())


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_bomb_is_one_sentence_and_little_memory(tmp_path, kind):
    path = tmp_path / f"bomb.{kind}"
    content = b"\0" * (16 * MIB)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(5):
                archive.writestr(f"{number}.cif", content)
    else:
        with tarfile.open(path, f"w:{kind[4:]}") as archive:  # type: ignore[call-overload]
            for number in range(5):
                info = info_of(f"{number}.cif")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    assert path.stat().st_size < MIB
    del content
    tracemalloc.start()
    with pytest.raises(UserError, match="unpacks to more than"):
        for _ in members(path):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * MIB


def test_a_header_of_a_tar_may_not_fill_the_memory(tmp_path):
    path = tmp_path / "long.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = info_of("a.cif")
        info.pax_headers = {"comment": "x" * (8 * MIB)}
        archive.addfile(info, io.BytesIO(b""))
    with pytest.raises(UserError, match="header"):
        list(members(path))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
def test_an_archive_that_is_none_is_one_sentence(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"data_x\n" * 200)
    with pytest.raises(UserError) as raised:
        list(members(path))
    assert "\n" not in str(raised.value)


def test_a_cut_archive_is_one_sentence(tmp_path):
    whole = tar_of(tmp_path / "a.tar.gz", info_of("a.cif"), content=bytes(range(256)) * 4000)
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(UserError):
        list(find_structures(path))


def test_hidden_files_pipes_and_copies_of_metadata_are_left_out(tmp_path):
    import os

    for name in (".hidden.cif", "a.cif", "__MACOSX/._a.cif", ".git/b.cif", "sub/c.cif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    os.mkfifo(tmp_path / "pipe.cif")
    assert list(found(tmp_path)) == ["a.cif", "sub/c.cif"]
