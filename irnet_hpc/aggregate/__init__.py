"""Make tables, figures and a page of all finished runs below a folder of results.

`make_tables` reads the runs and returns a `Report`. It groups runs into tables (`groups`,
`tables`), computes their scores (`scores`) and compares these (`significance`, `statistics`).
Results that several outputs need are computed once (`findings`), and each question has a section
(`sections/`). The other modules write Markdown, CSV, JSON and LaTeX (`document`, `formats`),
figures, and HTML (`page/`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "report": ["Report", "make_tables"],
        "statistics": ["mean_interval"],
        "words": ["model_words", "property_words"],
    },
)
