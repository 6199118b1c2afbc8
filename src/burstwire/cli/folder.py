"""The receiver's directory: where partial files grow and finished ones appear.

Invariants:
- A name shows up only when its file is whole, checked and flushed to the disk; it never replaces anything
  unless overwriting was asked for, and then at one stroke.
- Everything is opened relative to the directory's descriptor and without following symbolic links.
- An unfinished file is called `.NAME.<id>.part` (`id`: sender, name, size and time of the file) and its size
  is the number of good bytes; a lock on it keeps two receivers of one directory apart.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator

from burstwire.cli.filework import flush_file, write_all
from burstwire.cli.headers import Offer
from burstwire.cli.names import partial_name

__all__ = ["Folder", "NameTaken", "Partial", "PartialHeld", "transfer_identity"]

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{16}\.part", re.DOTALL)

_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Not through links; and a FIFO put in place of a file must not block the open."""

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
"""What file systems without hard links (FAT, some network ones) answer to link(2)."""


_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
"""What file systems without locks (some network ones) answer to flock(2)."""


class NameTaken(Exception):
    """Something of this name is there and may not be replaced."""


class PartialHeld(Exception):
    """Another process is receiving this very file into this directory."""


def transfer_identity(sender: bytes, offer: Offer) -> str:
    """16 hexadecimal digits that only the same file from the same sender gets again."""
    name = offer.name.encode()
    digest = hashlib.sha256(b"burstwire-file/1 partial\0" + sender + len(name).to_bytes(4, "big") + name)
    digest.update(offer.size.to_bytes(8, "big") + offer.mtime_ns.to_bytes(8, "big", signed=True))
    return digest.hexdigest()[:16]


def _lock(fd: int) -> None:
    """Raises BlockingIOError when another process holds the file."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


class Folder:
    """An open directory that receives files.

    Args:
        path: the directory; it must exist and be writable, or OSError is raised.
        overwrite: whether a finished file may replace another of its name.
    """

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        self.path = path
        self.overwrite = overwrite
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=self.fd):
            read_only = bool(os.fstatvfs(self.fd).f_flag & os.ST_RDONLY)
            os.close(self.fd)
            code = errno.EROFS if read_only else errno.EACCES
            raise OSError(code, os.strerror(code), path)
        # Reading the mask means setting it: done once, before any thread runs.
        self._umask = os.umask(0o077)
        os.umask(self._umask)

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self.fd)

    def exists(self, name: str) -> os.stat_result | None:
        """What is there under this name, links not followed."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def existing(self, name: str) -> Iterator[int | None]:
        """A descriptor to read the regular file of this name; None if there is none or it may not be read."""
        try:
            fd = os.open(name, os.O_RDONLY | _OPEN, dir_fd=self.fd)
        except OSError:
            yield None
            return
        try:
            yield fd if stat.S_ISREG(os.fstat(fd).st_mode) else None
        finally:
            os.close(fd)

    def free_bytes(self) -> int:
        """Bytes that this user may still write here."""
        volume = os.fstatvfs(self.fd)
        return volume.f_bavail * volume.f_frsize

    def leftovers(self) -> Iterator[tuple[str, int]]:
        """Name and size of every unfinished file."""
        for entry in os.scandir(self.fd):
            if _PARTIAL.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                yield entry.name, entry.stat(follow_symlinks=False).st_size

    def open_partial(self, name: str, identity: str) -> Partial:
        """The unfinished file for this transfer, new or with what an earlier one left.

        Raises `PartialHeld`, and OSError also for anything but a plain file in its place.
        """
        part = partial_name(name, identity)
        while True:
            fd = os.open(part, os.O_RDWR | os.O_CREAT | _OPEN, 0o600, dir_fd=self.fd)
            try:
                _lock(fd)
                found = os.fstat(fd)
                there = self.exists(part)
                if there is None or (there.st_dev, there.st_ino) != (found.st_dev, found.st_ino):
                    # Finished or removed by its previous holder between our open and our lock.
                    os.close(fd)
                    continue
                if not stat.S_ISREG(found.st_mode):
                    raise OSError(errno.EINVAL, "the partial file is not a regular file")
                if found.st_nlink > 1:
                    self._separate(part)
                    os.close(fd)
                    continue
            except BlockingIOError:
                os.close(fd)
                raise PartialHeld from None
            except BaseException:
                os.close(fd)
                raise
            return Partial(self, name, part, fd, found.st_size)

    def publish(self, part: str, name: str, overwrite: bool) -> None:
        """Give the finished file its name; raises `NameTaken` and leaves the partial file as it is."""
        if overwrite:
            try:
                os.rename(part, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            except (IsADirectoryError, NotADirectoryError) as error:
                raise NameTaken from error
        else:
            self._link(part, name)
        with contextlib.suppress(OSError):  # not every file system can flush a directory
            os.fsync(self.fd)

    def remove(self, name: str) -> None:
        """Unlink, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    def permissions(self, mode: int) -> int:
        """What is granted of the permissions that a sender names: the umask applies, set-id bits do not."""
        return mode & 0o777 & ~self._umask

    def _link(self, part: str, name: str) -> None:
        try:
            os.link(part, name, src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)
        except FileExistsError as error:
            raise NameTaken from error
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Claim the name with an empty file that is certainly ours, then replace that.
            try:
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=self.fd))
            except FileExistsError as taken:
                raise NameTaken from taken
            os.rename(part, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        else:
            self.remove(part)

    def _separate(self, part: str) -> None:
        """Drop a partial name that shares its file with another name.

        That is what a crash between link and unlink leaves (the file is whole under its own name), or
        somebody's hard link, through which we would write into a file that is not ours.
        """
        self.remove(part)


class Partial:
    """One unfinished file, locked, open for reading and writing.

    Attributes:
        size: the number of good bytes.
        fd: its descriptor.
    """

    def __init__(self, folder: Folder, name: str, part: str, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self._folder = folder
        self._name = name
        self._part = part
        self._published = False

    def append(self, data: memoryview) -> None:
        """Write behind what is there; after an OSError only what was there before counts."""
        write_all(self.fd, data, self.size)
        self.size += len(data)

    def flush(self, start: int, end: int) -> None:
        """Get what was written from `start` to `end` onto the disk, and out of memory. Blocks; raises OSError."""
        flush_file(self.fd)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.fd, start, end - start, os.POSIX_FADV_DONTNEED)

    def restart(self) -> None:
        """Forget what is there."""
        os.ftruncate(self.fd, 0)
        self.size = 0

    def publish(self, offer: Offer) -> None:
        """Flush and give the file its name, time and permissions; raises `NameTaken` or OSError. Blocks."""
        os.fchmod(self.fd, self._folder.permissions(offer.mode))
        with contextlib.suppress(OSError, OverflowError):  # a time that this file system cannot hold
            os.utime(self.fd, ns=(offer.mtime_ns, offer.mtime_ns))
        os.fsync(self.fd)
        self._folder.publish(self._part, self._name, self._folder.overwrite)
        self._published = True

    def close(self, *, keep: bool = True) -> None:
        """Let go; what is unfinished stays for the next attempt if it has any bytes and `keep` says so."""
        if not self._published:
            if keep and self.size:
                with contextlib.suppress(OSError):  # a failed write may have left a part of itself
                    os.ftruncate(self.fd, self.size)
                    os.fchmod(self.fd, 0o600)
            else:
                self._folder.remove(self._part)
        os.close(self.fd)
