"""Calls that may take too long, too much memory, or the whole process with them: they run in a child that has limits.

One child serves many calls, about 0.1 ms each beside the work; one that dies or runs out of time is replaced by the next
call. A child answers bytes with bytes through its standard streams, so nothing is ever unpickled.
"""

import contextlib
import importlib
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, ClassVar

from storage.disk import raise_for_machine
from storage.errors import GristmillError


class SandboxError(Exception):
    """The child did not answer: it ran out of time or memory, or it crashed."""


class Sandbox:
    """A child process that runs one function of bytes to bytes, given as "module:function"."""

    _shared: ClassVar[dict[tuple[int, str, float, int], "Sandbox"]] = {}

    def __init__(self, function: str, seconds: float, memory_bytes: int) -> None:
        self._arguments = [function, str(seconds), str(memory_bytes)]
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, function: str, seconds: float, memory_bytes: int) -> "Sandbox":
        """The one of this process: a child cannot be shared with a forked worker, their answers would mix."""
        key = (os.getpid(), function, seconds, memory_bytes)
        if key not in cls._shared:
            cls._shared[key] = cls(function, seconds, memory_bytes)
        return cls._shared[key]

    def ask(self, question: bytes) -> bytes:
        """Give the function's answer. Raises SandboxError if there is none; the next call starts afresh.

        Raises GristmillError if no child can be started: that is this machine's fault, not the question's.
        """
        reason = ""
        with self._lock:
            for _ in range(2):
                answer = self._try(question)
                if answer is not None:
                    return answer
                reason = self._bury()
                if reason in (_TIME, _MEMORY):
                    break
                # A child that somebody else killed must not decide what a corpus holds: the second time it counts.
        raise SandboxError(reason)

    def _try(self, question: bytes) -> bytes | None:
        child = self._child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            _send(child.stdin, question)
            return _receive(child.stdout)
        except BrokenPipeError:
            return None
        except BaseException:
            # Interrupted: its answer would be taken for that of the next question.
            child.kill()
            self._bury()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pipeline.sandbox", *self._arguments]
        kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # The child imports what this process imports, and has no credentials.
                env={**kept, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            assert child.stdout is not None
            if _receive(child.stdout) == _READY:
                return child
            reason = f"it ended with status {child.wait()} before it was ready"
            child.communicate()
        except OSError as error:
            raise_for_machine(error, command[0])
            reason = str(error)
        raise GristmillError(
            f"expected to start the child process '{' '.join(command)}', got: {reason}; run it by hand to see why"
        )

    def _bury(self) -> str:
        """Take leave of the child and say why it did not answer."""
        child, self._child = self._child, None
        assert child is not None
        for stream in (child.stdin, child.stdout):
            with contextlib.suppress(BrokenPipeError):  # what the child did not read
                if stream is not None:
                    stream.close()
        try:
            status = child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            status = child.wait()
        if status == -signal.SIGPROF:
            return _TIME
        return _MEMORY if status == _OUT_OF_MEMORY else f"it crashed with status {status}"


_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "HOME", "LANG", "TMPDIR")
_READY = b"ready"
_TIME = "out of time"
_MEMORY = "out of memory"
_OUT_OF_MEMORY = 77
"""Exit status of a child that could not have more memory."""


def serve(function: Callable[[bytes], bytes], seconds: float, memory_bytes: int) -> None:
    """Answer questions on standard input until it ends, each within the limits."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # For the parent, which may want to finish what it does; when it ends, so does the input.
        signal.signal(number, signal.SIG_IGN)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    _send(stdout, _READY)
    while (question := _receive(stdin)) is not None:
        # Processor time, so that a busy machine changes nothing; the default action ends the process.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            answer = function(question)
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(stdout, answer)


def _send(stream: IO[bytes], message: bytes) -> None:
    stream.write(struct.pack("<Q", len(message)))
    stream.write(message)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes | None:
    """The next message, None if the other side has gone."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    (size,) = struct.unpack("<Q", head)
    message = stream.read(size)
    return message if len(message) == size else None


def _main() -> None:
    name, seconds, memory_bytes = sys.argv[1:]
    module, _, function = name.partition(":")
    serve(getattr(importlib.import_module(module), function), float(seconds), int(memory_bytes))


if __name__ == "__main__":
    _main()
