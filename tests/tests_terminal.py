"""A terminal as a person sits at one: a pseudo-terminal that runs a command, what is on it, and keys pressed."""

import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
"""What moves the cursor or colours: a person does not read it."""
ADOPTS = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal the command's own, and Ctrl-C what it is at a terminal: shells ignore it in what they start with
&, and whatever that starts would go on ignoring it."""
CTRL_C, CTRL_D = "\x03", "\x04"
PATIENCE = 240.0
"""Seconds after which nothing is coming any more; the machine may be busy with other things."""


class Terminal:
    """`palate` with some words, in a window of so many columns."""

    def __init__(self, *words: str, cwd: Path, columns: int = 80) -> None:
        self._screen, inside = os.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "dumb"}
        command = [sys.executable, "-c", ADOPTS, sys.executable, "-m", "palate", *words]
        self.process = subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, cwd=cwd, env=environment, start_new_session=True
        )
        os.close(inside)
        self._raw, self._read, self._more = b"", 0, threading.Condition()
        self._reader = threading.Thread(target=self._keep_reading, daemon=True)
        self._reader.start()

    def _keep_reading(self) -> None:
        while True:
            try:
                piece = os.read(self._screen, 65536)
            except OSError:  # how the end of a pseudo-terminal looks on Linux
                piece = b""
            with self._more:
                self._raw += piece
                self._more.notify_all()
            if not piece:
                return

    @property
    def seen(self) -> str:
        """Everything that was on the screen, without what steers it."""
        return STEERING.sub("", self._raw.decode(errors="replace"))

    def until(self, pattern: str) -> str:
        """Wait for `pattern` on what was not read yet, and read that far. What was read is returned."""
        end = time.monotonic() + PATIENCE
        with self._more:
            while (found := re.search(pattern, self.seen[self._read :], re.M)) is None:
                over = not self._reader.is_alive() or time.monotonic() > end
                assert not over, f"no {pattern!r} came; the screen:\n{self.seen}"
                self._more.wait(0.2)
            text = self.seen[self._read : self._read + found.end()]
            self._read += found.end()
        return text

    def type(self, line: str) -> None:
        """Type a line, Enter at its end."""
        self.press(line + "\n")

    def press(self, keys: str) -> None:
        """Press keys, and nothing else."""
        os.write(self._screen, keys.encode())

    def interrupt(self) -> int:
        """Ctrl-C, and again where nothing came of it: readline hears of one that came just before it listened only with
        the next key. The exit code."""
        for _ in range(int(PATIENCE / 10)):
            self.press(CTRL_C)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
                break
        return self.end()

    def kill(self) -> None:
        """As the machine does whose power goes: no farewell."""
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> int:
        """Wait for the command to end by itself; its exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        os.close(self._screen)
        return code
