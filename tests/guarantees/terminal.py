"""A terminal with somebody typing: runs a program on a pseudo-terminal, types, and reads until a text appears."""

import os
import pty
import re
import select
import signal
import time

#: What programs send to move the cursor and to set colours.
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]|\x1b\][^\x07]*\x07")


class Terminal:
    """A program on a terminal of its own. A context manager; at its end the program is gone."""

    def __init__(self, command, environment, cwd):
        self.seen = b""
        self.status = None
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            # Forked child of a process with one thread; never returns.
            try:
                os.chdir(cwd)
                os.execvpe(command[0], command, environment)
            finally:
                os._exit(127)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self.master >= 0:
            os.close(self.master)

    def type(self, text):
        """Types; a newline is the Enter key."""
        os.write(self.master, text.replace("\n", "\r").encode())

    def hang_up(self):
        """Closes the terminal under the program."""
        os.close(self.master)
        self.master = -1

    def text(self):
        """What has appeared so far, without escape sequences."""
        return ESCAPES.sub(b"", self.seen).decode(errors="replace")

    def wait_for(self, text, timeout=20):
        """Reads until a text has appeared that was not read before; forgets everything up to it."""
        deadline = time.monotonic() + timeout
        while text not in self.text():
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.text()}"
            if not self.read(0.1) and self.status is not None:
                raise AssertionError(f"ended without {text!r}:\n{self.text()}")
        before, _, after = self.text().partition(text)
        self.seen = after.encode()
        return before

    def read(self, timeout):
        """Reads what is there; returns whether something was."""
        if select.select([self.master], [], [], timeout)[0]:
            try:
                got = os.read(self.master, 65536)
            except OSError:
                got = b""
            self.seen += got
            if got:
                return True
            self.end()
        return False

    def end(self, timeout=20):
        """Waits for the end of the program; returns its status as the shell counts it."""
        deadline = time.monotonic() + timeout
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                break
            assert time.monotonic() < deadline, f"still running:\n{self.text()}"
            if self.master < 0:
                time.sleep(0.05)
            elif select.select([self.master], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self.master, 65536)
                except OSError:
                    time.sleep(0.01)
        return self.status
