"""Fit the repository into its documentation site.

README.md, CONTRIBUTING.md and CHANGELOG.md lie above `docs/` but are pages of the site. A link to
any other file of the repository (`../jobs/full.yaml`) leads to a copy of that file in the site, and
a link to a folder (`../jobs/`) to a list of its files. So the same link works on the site and where
the repository is browsed. The reference of each folder is made from the names in its `__init__.py`.
"""

import ast
import re
from pathlib import Path
from posixpath import normpath, relpath

from mkdocs.structure.files import File

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "irnet_hpc"
ABOVE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
FOLDERS = (
    *("distributed", "data", "features", "models", "runs"),
    *("pack", "train", "sweep", "aggregate", "predict", "export", "fitting", "doctor"),
)
LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)\s#]+)((?:#[^)\s]*)?\))")


def repository_path(page: str, target: str) -> str:
    """Return the path from the repository's root of a link's target.

    Args:
        page: the page with the link, as the site names it: `data.md`, or `README.md`.
        target: the link as written, without its anchor.
    """
    folder = "" if page in ABOVE else "docs"
    return normpath(f"{folder}/{target}" if folder else target)


def on_files(files, config):
    """Add the pages above `docs/`, and every file or folder of the repository that a page links."""
    for name in ABOVE:
        files.append(File(name, str(REPOSITORY), config.site_dir, config.use_directory_urls))
    for page in [file for file in files if file.is_documentation_page()]:
        for _, target, _ in LINK.findall(Path(page.abs_src_path).read_text(encoding="utf-8")):
            path = repository_path(page.src_uri, target)
            if not path.startswith("docs/") and path not in ABOVE:
                add(path, files, config)
    return files


def add(path: str, files, config) -> None:
    """Add a file of the repository to the site, or a folder as a page that lists its files."""
    place, name = REPOSITORY / path, site_path(path)
    if files.get_file_from_path(name) is not None or not place.exists():
        return
    if place.is_file():
        content = place.read_text(encoding="utf-8")
    else:
        children = sorted(child.name for child in place.iterdir() if child.is_file())
        for child in children:
            add(f"{path}/{child}", files, config)
        links = [
            f"- [{child}]({relpath(site_path(f'{path}/{child}'), 'repository')})"
            for child in children
        ]
        content = "\n".join([f"# {path}/", "", *links, ""])
    files.append(File.generated(config, name, content=content))


def site_path(path: str) -> str:
    """Return where a file or folder of the repository lies in the site.

    A file is a `.txt`, so that browsers show it; a folder is a page.
    """
    flat = path.rstrip("/").replace("/", "_")
    return f"repository/{flat}.{'md' if (REPOSITORY / path).is_dir() else 'txt'}"


def on_page_markdown(markdown, page, config, files):
    """Turn links as the repository has them into links of the site, and fill in the reference."""
    source = page.file.src_uri

    def rewritten(match: re.Match) -> str:
        path = repository_path(source, match[2])
        if path in ABOVE:
            return f"{match[1]}{path}{match[3]}"
        if path.startswith("docs/"):
            return f"{match[1]}{relpath(path, 'docs')}{match[3]}"
        if files.get_file_from_path(site_path(path)) is None:
            return match[0]  # mkdocs will warn of it
        return f"{match[1]}{site_path(path)})"

    markdown = LINK.sub(rewritten, markdown)
    if source == "reference.md":
        top, folders = "<!-- the names of irnet_hpc -->", "<!-- the names of each folder -->"
        assert top in markdown and folders in markdown
        markdown = markdown.replace(top, top_reference())
        markdown = markdown.replace(folders, "".join(map(folder_reference, FOLDERS)))
    return markdown


def top_reference() -> str:
    """Return the reference of the names that `irnet_hpc` itself offers."""
    names = [name for group in face(PACKAGE / "__init__.py").values() for name in group]
    return "".join(f"\n::: irnet_hpc.{name}\n" for name in names)


def folder_reference(folder: str) -> str:
    """Return the reference of what a folder offers to the others, as mkdocstrings reads it."""
    offered = face(PACKAGE / folder / "__init__.py")
    if not offered:
        return ""
    lines = [f"\n\n## irnet_hpc.{folder}\n\n{docstring(folder)}\n"]
    lines += [
        f"\n::: irnet_hpc.{folder}.{module}.{name}\n"
        for module, names in offered.items()
        for name in names
    ]
    return "".join(lines)


def docstring(folder: str) -> str:
    """Return the docstring of a folder."""
    text = (PACKAGE / folder / "__init__.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(text)) or ""


def face(path: Path) -> dict[str, list[str]]:
    """Return module -> names, the `submod_attrs` that a file gives to `lazy_loader.attach`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "submod_attrs":
            return ast.literal_eval(node.value)
    return {}
