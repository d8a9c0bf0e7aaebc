"""A file system that can lose power: records what a program does to files, and makes every kind of rest it may leave.

The program works on real files; the record says of each byte and of each name whether a sync has made it durable. From
the record any moment can be called back, and of all that was not durable then each piece may be there, be lost or be
torn. Nothing is assumed of the order in which a disk writes: pieces of one file, and names of one folder, are lost
independently of each other. A name and the file behind it are separate things; a rename is the only step that is
never seen half done.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, NamedTuple

import pytest


class PowerCutError(BaseException):
    """The process ends here; nothing may catch it."""


class File:
    """A file, whatever its names are: what is durable of it, and what was done since."""

    __slots__ = ("durable", "pending")

    def __init__(self, durable: bytes = b"") -> None:
        self.durable = durable
        self.pending: list[Write | Cut] = []


class Folder:
    """A folder: the names that are durable, and what was done to them since, each with the number of its step.

    ``now`` holds the names while the record is made.
    """

    __slots__ = ("durable", "now", "pending")

    def __init__(self) -> None:
        self.durable: dict[str, Node] = {}
        self.pending: list[tuple[int, Entry]] = []
        self.now: dict[str, Node] = {}


class Link(NamedTuple):
    """A symbolic link; its target is as durable as its name."""

    target: str


Node = File | Folder | Link


class Write(NamedTuple):
    """Bytes that were put somewhere into a file."""

    file: File
    offset: int
    data: bytes


class Cut(NamedTuple):
    """A file that was given a length."""

    file: File
    size: int


class Entry(NamedTuple):
    """A change of names in one folder: ``old`` goes away, ``new`` stands for the node; either may be empty."""

    folder: Folder
    old: str
    new: str
    node: Node


class Sync(NamedTuple):
    """All that was done to a file or a folder becomes durable; ``failed`` means that the disk said no.

    The system then takes the bytes of a file for written all the same, and no later sync will write them; of lengths
    and names it knows that they are not durable yet.
    """

    node: File | Folder
    failed: bool = False


class Mark(NamedTuple):
    """What the program was told at this moment, for whoever compares."""

    told: tuple[Any, ...]


Step = Write | Cut | Entry | Sync | Mark
Fault = Callable[[int, str], OSError | int | None]


@contextmanager
def memory() -> Iterator[Path]:
    """Give a folder for the block, in memory where the system has such a place: real syncs only cost time here."""
    place = Path("/dev/shm")  # noqa: S108 - a folder with a name of its own is made in it
    with TemporaryDirectory(dir=place if place.is_dir() else None) as path:
        yield Path(path)


def load(path: Path) -> Folder:
    """Return a folder as it lies on the real disk, all of it durable."""
    folder = Folder()
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        node: Node
        if entry.is_symlink():
            node = Link(str(Path(entry.path).readlink()))
        elif entry.is_dir():
            node = load(Path(entry.path))
        else:
            node = File(Path(entry.path).read_bytes())
        folder.durable[entry.name] = folder.now[entry.name] = node
    return folder


def tree(path: Path) -> dict[str, Any]:
    """Return the content of a real folder: bytes of files, targets of links as text, folders again so."""
    found: dict[str, Any] = {}
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if entry.is_symlink():
            found[entry.name] = str(Path(entry.path).readlink())
        elif entry.is_dir():
            found[entry.name] = tree(Path(entry.path))
        else:
            found[entry.name] = Path(entry.path).read_bytes()
    return found


def materialise(image: dict[str, Any], path: Path) -> None:
    """Write what ``tree`` and ``image`` return into an empty real folder."""
    for name, content in image.items():
        if isinstance(content, dict):
            (path / name).mkdir()
            materialise(content, path / name)
        elif isinstance(content, str):
            (path / name).symlink_to(content)
        else:
            (path / name).write_bytes(content)


class Recorder:
    """Stands between a program and the system, below one folder: passes every call on and keeps a record of it.

    The program may be stopped before any change, or be given an error or a short write there; ``revive`` stands for the
    next process, which finds what the last one left in memory, durable or not.

    Args:
        patch: undoes it all.
        root: the folder; what it holds already counts as durable.
        stop: stop before this change, counted from 1; 0 for never.
        fault: asked before each change for the error to raise, or how many bytes to write; None for neither.
    """

    CALLS: ClassVar = ("open", "close", "write", "pwrite", "ftruncate", "fsync", "fdatasync")
    NAMES: ClassVar = ("rename", "replace", "unlink", "remove", "rmdir", "mkdir", "symlink", "link")

    def __init__(self, patch: pytest.MonkeyPatch, root: Path, stop: int = 0, fault: Fault | None = None) -> None:
        self.root = root
        self.tree = load(root)
        self.steps: list[Step] = []
        self.changes = 0
        self.stop = stop
        self.stopped = False
        self._fault = fault
        self._held: dict[int, File | Folder] = {}
        self._real = {name: getattr(os, name) for name in self.CALLS + self.NAMES}
        for name in self._real:
            patch.setattr(os, name, getattr(self, name))

    def revive(self) -> None:
        """Begin the next process."""
        self.stop, self.stopped = 0, False
        self._held.clear()

    def mark(self, *told: object) -> None:
        """Note that the program was told something."""
        if not self.stopped:
            self.steps.append(Mark(told))

    def replay(self) -> Iterator[Step]:
        """Go through the record once more, from what was durable at its beginning; yield each step when it is done."""
        for number, step in enumerate(self.steps):
            match step:
                case Write(file) | Cut(file):
                    file.pending.append(step)
                case Entry(folder):
                    folder.pending.append((number, step))
                case Sync(File() as file, failed):
                    after = _content(file.durable, file.pending)
                    if failed:
                        file.pending = [Cut(file, len(after))]
                    else:
                        file.durable = after
                        file.pending.clear()
                case Sync(Folder() as folder, False):
                    for _, entry in folder.pending:
                        _rename(entry, folder.durable)
                    folder.pending.clear()
            yield step

    def _change(self, call: str) -> int | None:
        """Count a change; raise where the program is to stop or to fail; return how much a write may take."""
        if not self.stopped:
            self.changes += 1
            self.stopped = self.changes == self.stop
        if self.stopped:
            raise PowerCutError
        answer = self._fault(self.changes, call) if self._fault is not None else None
        if isinstance(answer, OSError):
            raise answer
        return answer

    def _place(self, path: Any, above: int | None) -> tuple[Folder, str] | None:  # noqa: ANN401 - as os takes it
        """Return the folder that a path is in, and its last name; None if it is not below the root."""
        if above is not None:
            folder = self._held.get(above)
            return (folder, os.fspath(path)) if isinstance(folder, Folder) else None
        place = Path(path).absolute()
        if place == self.root:
            return self.tree, ""
        if not place.is_relative_to(self.root):
            return None
        *parents, name = place.relative_to(self.root).parts
        node: Node | None = self.tree
        for parent in parents:
            node = node.now.get(parent) if isinstance(node, Folder) else None
        return (node, name) if isinstance(node, Folder) else None

    def _enter(self, folder: Folder, old: str, new: str, node: Node) -> None:
        entry = Entry(folder, old, new, node)
        self.steps.append(entry)
        _rename(entry, folder.now)

    # -- the calls as the system has them ------------------------------------------------------------------------

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:  # noqa: ANN401
        """Open a file; a change where it is created or emptied."""
        place = self._place(path, dir_fd)
        if place is None:
            return int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        folder, name = place
        node = folder.now.get(name) if name else folder
        new = node is None and bool(flags & os.O_CREAT)
        emptied = isinstance(node, File) and bool(flags & os.O_TRUNC)
        if new or emptied:
            self._change("open")
        fd = int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        if new:
            node = File()
            self._enter(folder, "", name, node)
        elif emptied and isinstance(node, File):
            self.steps.append(Cut(node, 0))
        assert isinstance(node, File | Folder), path
        self._held[fd] = node
        return fd

    def close(self, fd: int) -> None:
        """Close a file; what a process leaves open at its end, the system closes."""
        self._held.pop(fd, None)
        self._real["close"](fd)

    def write(self, fd: int, data: bytes) -> int:
        """Write at the file's own offset."""
        return self._put(fd, data, None)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        """Write at an offset."""
        return self._put(fd, data, offset)

    def _put(self, fd: int, data: bytes, offset: int | None) -> int:
        file = self._held.get(fd)
        room = None if file is None else self._change("write")
        at = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
        call, place = ("write", ()) if offset is None else ("pwrite", (offset,))
        size = int(self._real[call](fd, data[:room], *place))
        if isinstance(file, File):
            self.steps.append(Write(file, at, bytes(data[:size])))
        return size

    def ftruncate(self, fd: int, length: int) -> None:
        """Give a file a length."""
        file = self._held.get(fd)
        if isinstance(file, File):
            self._change("ftruncate")
            self.steps.append(Cut(file, length))
        self._real["ftruncate"](fd, length)

    def fsync(self, fd: int) -> None:
        """Make a file or a folder durable."""
        self._sync(fd, "fsync")

    def fdatasync(self, fd: int) -> None:
        """Make a file durable."""
        self._sync(fd, "fdatasync")

    def _sync(self, fd: int, call: str) -> None:
        node = self._held.get(fd)
        if node is None:
            self._real[call](fd)
            return
        try:
            self._change(call)
        except OSError:
            self.steps.append(Sync(node, failed=True))
            raise
        self.steps.append(Sync(node))

    def rename(
        self,
        old: Any,  # noqa: ANN401 - as os takes it
        new: Any,  # noqa: ANN401 - as os takes it
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
    ) -> None:
        """Rename within one folder."""
        source, target = self._place(old, src_dir_fd), self._place(new, dst_dir_fd)
        if source is not None and target is not None:
            assert source[0] is target[0], "the model knows no moves between folders"
            self._change("rename")
        self._real["rename"](old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        if source is not None and target is not None:
            folder, name = source
            self._enter(folder, name, target[1], folder.now[name])

    replace = rename

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:  # noqa: ANN401 - as os takes it
        """Delete a file, if there is one."""
        self._remove("unlink", path, dir_fd)

    remove = unlink

    def rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:  # noqa: ANN401 - as os takes it
        """Delete an empty folder."""
        self._remove("rmdir", path, dir_fd)

    def _remove(self, call: str, path: Any, above: int | None) -> None:  # noqa: ANN401 - as os takes it
        place = self._place(path, above)
        node = None if place is None else place[0].now.get(place[1])
        if node is not None:
            self._change(call)
        self._real[call](path, dir_fd=above)
        if place is not None and node is not None:
            self._enter(place[0], place[1], "", node)

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:  # noqa: ANN401
        """Create a folder."""
        self._create("mkdir", (path, mode), path, dir_fd, Folder())

    def symlink(
        self,
        src: str,
        dst: Any,  # noqa: ANN401 - as os takes it
        target_is_directory: bool = False,  # noqa: FBT001, FBT002 - as os has it
        *,
        dir_fd: int | None = None,
    ) -> None:
        """Create a symbolic link."""
        self._create("symlink", (src, dst, target_is_directory), dst, dir_fd, Link(src))

    def link(self, src: Any, dst: Any, *, dst_dir_fd: int | None = None) -> None:  # noqa: ANN401 - as os takes it
        """Give a file a second name."""
        source, target = self._place(src, None), self._place(dst, dst_dir_fd)
        if source is not None and target is not None:
            self._change("link")
        self._real["link"](src, dst, dst_dir_fd=dst_dir_fd)
        if source is not None and target is not None:
            self._enter(target[0], "", target[1], source[0].now[source[1]])

    def _create(self, call: str, given: tuple[Any, ...], path: Any, above: int | None, node: Node) -> None:  # noqa: ANN401
        place = self._place(path, above)
        if place is not None:
            self._change(call)
        self._real[call](*given, dir_fd=above)
        if place is not None:
            self._enter(place[0], "", place[1], node)


class Rest(NamedTuple):
    """What is left after a loss of power: which of the names, and which of the bytes, that were not durable.

    ``names`` and ``content`` are ``lost`` or ``kept`` for all, ``any`` for each as chance has it; names may be
    ``ordered``: those before some moment, as a journal of the file system would have it.
    """

    names: str
    content: str
    chance: random.Random

    def image(self, root: Folder) -> dict[str, Any]:
        """Return the folder as the next start finds it, in the form of ``tree``."""
        numbers = sorted(_pending(root, set()))
        return self._folder(root, self.chance.choice([*numbers, numbers[-1] + 1]) if numbers else 0)

    def _folder(self, folder: Folder, moment: int) -> dict[str, Any]:
        names = folder.durable.copy()
        for number, entry in folder.pending:
            if self._stays(number, moment):
                _rename(entry, names)
        image: dict[str, Any] = {}
        for name, node in names.items():
            if isinstance(node, Folder):
                image[name] = self._folder(node, moment)
            else:
                image[name] = node.target if isinstance(node, Link) else self._bytes(node)
        return image

    def _stays(self, number: int, moment: int) -> bool:
        if self.names == "ordered":
            return number < moment
        return self.names == "kept" or (self.names == "any" and self.chance.random() < 0.5)

    def _bytes(self, file: File) -> bytes:
        if self.content == "lost":
            return file.durable
        if self.content == "kept":
            return _content(file.durable, file.pending)
        return _content(file.durable, [torn for step in file.pending for torn in self._torn(step)])

    def _torn(self, step: Write | Cut) -> Iterator[Write | Cut]:
        """Yield what is left of one step: all, nothing, a part of its bytes, or only its length with zeros in it."""
        kind = self.chance.choice(("all", "none", "start", "zeros", "hole"))
        if kind == "all" or (isinstance(step, Cut) and kind != "none"):
            yield step
        elif kind != "none" and isinstance(step, Write):
            data, size = step.data, len(step.data)
            first, second = sorted((self.chance.randint(0, size), self.chance.randint(0, size)))
            if kind == "start":
                data = data[:first]
            elif kind == "zeros":
                data = bytes(size)
            else:
                data = data[:first] + bytes(second - first) + data[second:]
            yield step._replace(data=data)


def rests(chance: random.Random, drawn: int) -> Iterator[Rest]:
    """Yield the plain losses, then as many by chance as asked for."""
    for names in ("lost", "kept"):
        for kept in ("lost", "kept"):
            yield Rest(names, kept, chance)
    for _ in range(drawn):
        yield Rest(chance.choice(("any", "ordered", "kept")), chance.choice(("any", "any", "kept", "lost")), chance)


def _pending(folder: Folder, numbers: set[int]) -> set[int]:
    """Collect the numbers of all steps on names that are not durable."""
    numbers.update(number for number, _ in folder.pending)
    inner = [*folder.durable.values(), *(entry.node for _, entry in folder.pending)]
    for node in {id(node): node for node in inner if isinstance(node, Folder)}.values():
        _pending(node, numbers)
    return numbers


def _rename(entry: Entry, names: dict[str, Node]) -> None:
    """Apply a change of names; what went before it may have been lost."""
    if entry.old and names.get(entry.old) is entry.node:
        del names[entry.old]
    if entry.new:
        names[entry.new] = entry.node


def _content(data: bytes, steps: list[Write | Cut]) -> bytes:
    """Return a file's bytes after some steps; what lies between its end and a write is zeros."""
    held = bytearray(data)
    for step in steps:
        end = step.size if isinstance(step, Cut) else step.offset
        held.extend(bytes(max(0, end - len(held))))
        if isinstance(step, Cut):
            del held[end:]
        else:
            held[end : end + len(step.data)] = step.data
    return bytes(held)
