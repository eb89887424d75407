"""Files that must not be read: pipes, sockets, devices, links to them, and one of 1 TiB."""

import os
import socket
from collections.abc import Callable
from pathlib import Path


def _make_linked_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("fifo"))
    path.symlink_to("fifo")


def _make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name if Path.cwd() == path.parent else str(path))


def _make_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


def _link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


#: How to make each, by what it is; nothing may be at the path before.
UNREADABLE: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "link-to-fifo": _make_linked_fifo,
    "socket": _make_socket,
    "directory": Path.mkdir,
    "sparse": _make_sparse,
    **{name: _link_to(f"/dev/{name}") for name in ("zero", "full", "tty", "null", "random")},
}
