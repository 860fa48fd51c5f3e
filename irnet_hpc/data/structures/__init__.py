"""Read structures from files of other programs, as the JSON lines of raw_jsonl.py.

`members.py` opens a folder or an archive, within limits. `formats.py` knows the formats by their
file names; `cif.py`, `coordinates.py` and `documents.py` read them, and `entries.py` turns each
structure into the object of a JSON line. `listing.py` puts the lines in order, and `joining.py`
adds the properties of a table.
"""
