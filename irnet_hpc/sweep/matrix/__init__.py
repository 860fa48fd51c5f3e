"""Read matrices and sites from YAML, check them, and turn them into cells, packs and resources."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "keys": ["MatrixKeys", "keys_page"],
        "matrix": ["Cell", "Matrix", "read_matrix"],
        "packs": ["MatrixPack"],
        "resources": ["Resources", "Retry"],
        "sites": ["Site", "read_site"],
    },
)
