"""Turn tables of materials into packs: features, targets and splits in one HDF5 file.

`pipeline.py` makes a pack from a source. It calls `select.py` to select rows, `build.py` and
`blocks.py` to compute features (this can be resumed), and `writer.py` to write the file. `store.py`
reads packs. `table.py` makes a pack from Python.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "blocks": ["lost_path", "rejected_path"],
        "options": ["add_reading_options", "reading_of"],
        "pipeline": ["PackOptions", "pack_source"],
        "select": ["Selection", "one_per_formula", "split_and_order"],
        "store": [
            "IDENTITY",
            "SLAB_ROWS",
            "TEXT",
            "Pack",
            "can_be_locked",
            "load_pack",
            "open_pack",
            "pack_path",
            "reported_rows",
            "verify",
        ],
        "summary": ["describe_pack"],
        "table": ["pack_table"],
        "writer": ["create_pack"],
    },
)
