"""Download raw tables from services (OQMD, AFLOW, OPTIMADE), wheels and matminer's datasets."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "obtain": ["ensure", "fetch"],
        "probe": ["probe_source"],
        "registry": ["DOWNLOADS", "Download"],
    },
)
