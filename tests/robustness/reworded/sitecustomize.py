"""Garble every message of the package, in each Python whose PYTHONPATH names this folder.

An import hook rewrites the package's source before it is compiled: each letter of a message becomes
the next one of the alphabet. Messages are the arguments of exceptions and of `print`, what is
logged, and other texts of several words in functions and constants. What other programs write is
left as it is, and so are patterns, comparisons, keys and what is printed for programs (`--json`).

A command that behaves differently then reads its own prose.
"""

import ast
import importlib.machinery
import logging
import re
import string
import sys

PACKAGE = "irnet_hpc"
LETTERS = string.ascii_letters
NEXT = str.maketrans(LETTERS, LETTERS[1:26] + "a" + LETTERS[27:] + "A")
# Errors whose arguments are a number, a reason and a path, and those that end a process or a loop.
LEFT = re.compile(r"(OS|IO|FileNotFound|FileExists|Permission|Timeout)Error|SystemExit|Stop\w+")
# Modules that quote the words of other programs.
QUOTES = {f"{PACKAGE}.distributed.slurm_commands", f"{PACKAGE}.doctor.cluster"}
PRINTS_JSON = re.compile(rf"{PACKAGE}\.(console|completion|doctor\..*|__main__)")
PROSE = re.compile(r"[a-z]{2,} +[a-z]{2,}|[a-z]{2,}, |: [a-z]{3,}")
NO_PROSE = re.compile(r"\n|--|%\(|[\\|$/#=\[\]<>]|^(import|from|export) ")
VALUE = re.compile(r"(%[-+0-9.]*[a-zA-Z])")
MATCHING = {"search", "match", "fullmatch", "findall", "compile", "sub", "split", "partition"}
MATCHING |= {"rpartition", "startswith", "endswith", "replace", "removeprefix", "removesuffix"}


def reword(value: object) -> object:
    """Garble a text, but no JSON; anything else is returned as it is. Twice is not as before.

    What stands for a value in a format, such as %s, stays.
    """
    if type(value) is not str or value.lstrip().startswith(("{", "[")):
        return value
    parts = VALUE.split(value)
    return "".join(part if i % 2 else part.translate(NEXT) for i, part in enumerate(parts))


class Reworder(ast.NodeTransformer):
    """Garble the messages of a module."""

    def __init__(self, prints_json: bool) -> None:
        self.prints_json = prints_json
        self.n_functions = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.n_functions += 1
        self.generic_visit(node)
        self.n_functions -= 1
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call) and not LEFT.fullmatch(last_name(node.exc.func)):
            node.exc.args = [call_reword(argument) for argument in node.exc.args]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = last_name(node.func)
        if name in MATCHING:
            return node
        is_message = name.endswith("Error") and not LEFT.fullmatch(name)
        if is_message or (name == "print" and not self.prints_json):
            node.args = [call_reword(argument) for argument in node.args]
            return node
        self.generic_visit(node)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        return node

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        node.values = [self.visit(value) for value in node.values]
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        node.value = self.visit(node.value)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """Also garble a constant of a module, such as the first words of a message."""
        is_text = isinstance(node.value, ast.Constant | ast.JoinedStr)
        self.n_functions += is_text
        self.generic_visit(node)
        self.n_functions -= is_text
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if self.n_functions and is_prose(node.value):
            node.value = reword(node.value)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        texts = [part for part in node.values if isinstance(part, ast.Constant)]
        if self.n_functions and is_prose(" ".join(str(part.value) for part in texts)):
            for part in texts:
                part.value = reword(part.value)
        return node


def is_prose(text: object) -> bool:
    """Return True for a text of several words that is no command, path or pattern."""
    return isinstance(text, str) and bool(PROSE.search(text)) and not NO_PROSE.search(text)


def last_name(function: ast.expr) -> str:
    """Return the name of a called function without its module."""
    return ast.unparse(function).rpartition(".")[2]


def call_reword(argument: ast.expr) -> ast.expr:
    """Write code that garbles an argument when it is passed."""
    function = ast.parse(f"__import__('sys').modules['{__name__}'].reword", mode="eval").body
    if isinstance(argument, ast.Starred):
        mapped = ast.Call(ast.Name("map", ast.Load()), [function, argument.value], [])
        return ast.Starred(mapped, ast.Load())
    return ast.Call(function, [argument], [])


class Loader(importlib.machinery.SourceFileLoader):
    """Compile a module of the package with garbled messages, and cache no bytecode."""

    def get_code(self, fullname: str):
        tree = ast.parse(self.get_data(self.path))
        if fullname not in QUOTES:
            tree = Reworder(bool(PRINTS_JSON.fullmatch(fullname))).visit(tree)
        return compile(ast.fix_missing_locations(tree), self.path, "exec")


class Finder:
    """Find the package's modules, to be loaded by our loader."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] != PACKAGE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = Loader(name, spec.origin)
        return spec


def garbled_record(*arguments: object, **options: object) -> logging.LogRecord:
    """Make a record of the log, garbled if the package logs it."""
    record = logging.LogRecord(*arguments, **options)
    if record.name.partition(".")[0] == PACKAGE:
        record.msg, record.args = reword(record.getMessage()), ()
    return record


sys.meta_path.insert(0, Finder)
logging.setLogRecordFactory(garbled_record)
