"""Networks: build a torch module from a layer string."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "architectures": [
            "MODELS",
            "WIDTHS",
            "Layers",
            "custom_name",
            "layer_string",
            "n_weights",
            "parse_layers",
        ],
        "dropout": ["drawn_noise", "noise_state"],
        "flat": ["FlatParameters"],
        "fused": ["fused_adam"],
        "modes": ["own_modes"],
        "network": ["Layer", "Network", "autocast", "n_before_last", "n_parameters"],
        "normalisation": ["EPSILON", "Groups", "Normalise", "rank_groups"],
        "threads": ["threads_that_pay"],
    },
)
