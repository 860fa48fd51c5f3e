"""Export finished runs as ONNX or as a portable model, compared with them, with a card."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "model": ["export_model"],
        "model_card": ["ExportedModel"],
        "portable": ["export_portable"],
    },
)
