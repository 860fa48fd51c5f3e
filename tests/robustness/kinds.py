"""Define a kind of file that can be spoiled: how to write, spoil and read it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.robustness import mutants

PROPERTIES = {"band_gap": "eV", "density": "g/cm³"}


class Kind(NamedTuple):
    """A kind of file and the functions that write, spoil and read it.

    `make(folder)` writes sound files, `spoil(folder, number)` writes all of them anew with one
    spoiled, and `read(folder)` reads them as the commands do and returns what can be compared.
    """

    make: Callable[[Path], None]
    spoil: Callable[[Path, int], None]
    read: Callable[[Path], object]
    exact: bool  # the files have checksums, so what is read must be what was written


def spoil_bytes(*names: str) -> Callable[[Path, int], None]:
    """Make a function that spoils one of these files, of which sound copies are NAME.sound."""

    def spoil(folder: Path, number: int) -> None:
        for name in names:
            (folder / name).write_bytes((folder / f"{name}.sound").read_bytes())
        name = names[number % len(names)]
        sound = (folder / f"{name}.sound").read_bytes()
        (folder / name).write_bytes(mutants.spoil_bytes(sound, number))

    return spoil


def keep_sound(folder: Path, *names: str) -> None:
    """Keep sound copies of files as NAME.sound."""
    for name in names:
        (folder / f"{name}.sound").write_bytes((folder / name).read_bytes())


def make_nothing(folder: Path) -> None:
    """Write no files: spoiling writes them."""
