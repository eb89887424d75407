"""Fingerprints of the source code of a user's own modules.

Results depend on code that no weight or parameter shows: the forward pass of a network, the steps
of an attack. Installed packages are identified by their versions instead.
"""

import ast
import hashlib
import io
import sys
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import resolve_name
from pathlib import Path

#: Tokens that have no effect on what code does.
_IGNORED = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING}
_SITE = {"site-packages", "dist-packages"}


def fingerprint_modules(names: Iterable[str]) -> str:
    """Return the start of a SHA-256 of the user's modules among `names`, "" if there are none.

    It also covers the user's modules that these import, also those that are imported only later. A
    module is the user's if its file is neither installed, nor part of the standard library or of
    this package. Comments and blank lines do not count.
    """
    codes = sorted(_hash_code(path, path.stat().st_mtime_ns) for path in _find_own_files(names))
    return hashlib.sha256("\0".join(codes).encode()).hexdigest()[:16] if codes else ""


def has_own_file(name: str) -> bool:
    """Return whether the module `name` is the user's and comes from a file."""
    return _own_file(name) is not None


def is_own(name: str) -> bool:
    """Return whether the module `name` is the user's.

    It need not have a file, nor be loaded: it may be an interactive session, or code that was run
    without being imported.
    """
    return name == "__main__" or name not in sys.modules or has_own_file(name)


def _find_own_files(names: Iterable[str]) -> set[Path]:
    found: set[Path] = set()
    visited: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        visited.add(name)
        path = _own_file(name)
        if path is not None:
            found.add(path)
            waiting.update(set(_imported_by(name, path)) - visited)
    return found


def _own_file(name: str) -> Path | None:
    """Return the file of a module of the user's, which need not be loaded; None for any other."""
    file = _find_file(name)
    if file is None or name.partition(".")[0] == __name__.partition(".")[0]:
        return None
    path = Path(file).resolve()
    library = Path(sysconfig.get_path("stdlib")).resolve()
    is_installed = path.is_relative_to(library) or not _SITE.isdisjoint(path.parts)
    return path if path.is_file() and not is_installed else None


def _find_file(name: str) -> str | None:
    module = sys.modules.get(name)
    if module is not None:
        file = getattr(module, "__file__", None)
        return file if isinstance(file, str) else None
    spec = _find_spec(name)
    return spec.origin if spec is not None and spec.has_location else None


def _find_spec(name: str) -> ModuleSpec | None:
    """Return the spec of a module, without importing it or the packages that it is in."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__spec__", None)
    parent = name.rpartition(".")[0]
    if not parent:
        return PathFinder.find_spec(name)
    package = _find_spec(parent)
    if package is None or package.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(name, list(package.submodule_search_locations))


def _imported_by(name: str, path: Path) -> Iterator[str]:
    """Yield the names of what the module `name` imports anywhere in its code, and of its packages.

    `from package import name` yields `package.name` too, which may be a module.
    """
    spec = _find_spec(name)
    package = spec.parent if spec is not None else None
    for imported in _find_imports(path, path.stat().st_mtime_ns):
        try:
            whole = resolve_name(imported, package) if imported.startswith(".") else imported
        except ImportError:  # a relative import of a script, which would fail
            continue
        parts = whole.split(".")
        yield from (".".join(parts[:number]) for number in range(1, len(parts) + 1))


@cache
def _find_imports(path: Path, modified: int) -> list[str]:
    """Return what a file imports, relative names with leading dots; see `_hash_code`."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):  # a compiled module
        return []
    found = [one.name for node in nodes if isinstance(node, ast.Import) for one in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            dot = "" if start.endswith(".") else "."
            found += [f"{start}{dot}{one.name}" for one in node.names]
    return found


@cache
def _hash_code(path: Path, modified: int) -> str:
    """Return the SHA-256 of the code in a file without comments and blank lines.

    `modified` is the time of its last modification, so that a changed file is read again.
    """
    content = path.read_bytes()
    try:
        tokens = list(tokenize.tokenize(io.BytesIO(content).readline))
    except (tokenize.TokenError, SyntaxError):  # a compiled module
        return hashlib.sha256(content).hexdigest()
    texts = [token.string for token in tokens if token.type not in _IGNORED]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
