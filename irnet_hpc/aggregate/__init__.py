"""Tables, figures and a page of every finished run below a folder of results.

`make_tables` reads the runs and returns a `Report`. Below it, runs are grouped into tables
(`groups`, `tables`), scored (`scores`) and compared (`significance`, `statistics`). What several
outputs need is computed once (`findings`), each question has a section (`sections/`), and the rest
writes them as Markdown, CSV, JSON, LaTeX (`document`, `render`), figures and HTML (`page/`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"report": ["Report", "make_tables"]}
)
