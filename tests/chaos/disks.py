"""A disk that does not answer: whoever opens a file of an adapter waits, for as long as this process has a lease on it."""
import fcntl
import os
import pathlib
import signal


class HungFile:
    """An open of the file waits until this is closed (or the kernel breaks the lease: /proc/sys/fs/lease-break-time, 45 s).
    Looks at it (stat) are answered."""

    def __init__(self, path):
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # that somebody waits
        self.descriptor = os.open(path, os.O_RDWR)
        fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.descriptor)


def touch(path):
    """The file as it was, but newer, so that it is read again."""
    path = pathlib.Path(path)
    path.write_bytes(path.read_bytes())
