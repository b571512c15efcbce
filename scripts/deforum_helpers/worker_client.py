"""The process boundary, host side: start the worker, send it a request, hear its events, end it.

The worker is started at the first request and stays warm between clips and jobs.  It is a session of
its own, so that Ctrl-C in a terminal reaches the host only and ending it ends its whole tree.  It ends
by itself when the host does, because its stdin then closes.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from .errors import RenderCancelled, SetupError, WorkerDied, error_from_kind
from .protocol import (
    LONGEST_LINE,
    PROTOCOL_VERSION,
    CancelRequest,
    ClipDone,
    ClipRequest,
    Event,
    Failed,
    Hello,
    Inspected,
    InspectRequest,
    ProtocolError,
    QuitRequest,
    Step,
    decode_event,
    encode_line,
)
from .worker_log import WorkerLog

OnEvent = Callable[[Event], None]

_POLL_SECONDS = 0.2  # how late a cancel, or a death that leaves the pipe open, is noticed
_KILLED = {-9, 137}
_WINDOWS_ENDS = {
    0xC0000005: "access violation",
    0xC0000017: "out of memory",
    0xC00000FD: "stack overflow",
    0xC0000135: "a DLL is missing",
    0xC0000409: "aborted by the C runtime",
}


class ClipRenderer(Protocol):
    """What a render needs of a worker; tests hand in a fake."""

    def run(
        self, request: ClipRequest | InspectRequest, on_event: OnEvent | None = None,
        cancel: threading.Event | None = None,
    ) -> ClipDone | Inspected: ...

    def close(self) -> None: ...


class Worker:
    """One worker process.

    command, environment, folder: how to start it and where it runs.  log: its stderr goes there.
    hello_seconds: longest start, a cold import of torch from a slow disk included.
    cancel_seconds: how long a cancel may take (at least two sampling steps) before the process tree is killed.
    idle_seconds: close it after so long without a request, to give its memory back; 0 = never.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        log: WorkerLog,
        folder: Path | None = None,
        hello_seconds: float = 300.0,
        cancel_seconds: float = 20.0,
        idle_seconds: float = 0.0,
    ) -> None:
        self.hello: Hello | None = None
        self._command, self._environment, self._folder, self._log = list(command), dict(environment), folder, log
        self._hello_seconds, self._cancel_seconds, self._idle_seconds = hello_seconds, cancel_seconds, idle_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._events: queue.Queue[Event | ProtocolError | None] = queue.Queue()
        self._one_request = threading.RLock()
        self._idle: threading.Timer | None = None
        self._step_seconds = 0.0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The worker's process id, 0 while there is none."""
        return self._process.pid if self._process is not None and self.alive else 0

    def start(self, cancel: threading.Event | None = None) -> Hello:
        """Start the process unless it runs, and wait for its handshake.  Raises SetupError, RenderCancelled."""
        with self._one_request:
            if self.alive and self.hello is not None:
                return self.hello
            self.kill()
            self._spawn()
            try:
                self.hello = self._await_hello(cancel)
            except BaseException:
                self.kill()
                raise
            return self.hello

    def run(
        self,
        request: ClipRequest | InspectRequest,
        on_event: OnEvent | None = None,
        cancel: threading.Event | None = None,
    ) -> ClipDone | Inspected:
        """Have one request done.

        on_event: called in this thread with every event of the request.  cancel: when set, the worker is asked
        to stop, and killed if it doesn't.  Raises the error that the worker reports, RenderCancelled, WorkerDied
        (the next run then starts a fresh process) or SetupError.
        """
        with self._one_request:
            self._stop_idling()
            self.start(cancel)
            try:
                self._send(request)
                return self._await_end(request.id, on_event or (lambda event: None), cancel)
            except _RequestEnded as ended:
                raise ended.error from None
            except BaseException:
                self.kill()  # whatever it still says about this request must not reach the next one
                raise
            finally:
                self._start_idling()

    def close(self) -> None:
        """Ask the worker to quit; end it if it doesn't within five seconds."""
        with self._one_request:
            self._stop_idling()
            if self.alive and self._process is not None:
                with contextlib.suppress(OSError, WorkerDied):
                    self._send(QuitRequest())
                    self._process.stdin.close()  # type: ignore[union-attr]
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(5)
            self.kill()

    def kill(self) -> None:
        """End the worker's whole process tree now.  Safe to call from any thread, at any time."""
        process, self._process, self.hello = self._process, None, None
        if process is None:
            return
        end_process_tree(process)
        with contextlib.suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spawn(self) -> None:
        self._events, self._step_seconds = queue.Queue(), 0.0
        new_tree = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}  # type: ignore[attr-defined]
            if os.name == "nt"
            else {"start_new_session": True}
        )
        try:
            self._process = subprocess.Popen(
                self._command, env=self._environment, cwd=self._folder,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **new_tree,
            )
        except OSError as error:
            raise SetupError(
                "the worker's interpreter cannot be started", got=f"{self._command[0]}: {error}",
                next_step="run: python install.py",
            ) from error
        threading.Thread(target=_read_events, args=(self._process, self._events), daemon=True).start()
        self._log.follow(self._process)

    def _await_hello(self, cancel: threading.Event | None) -> Hello:
        deadline = time.monotonic() + self._hello_seconds
        while True:
            if cancel is not None and cancel.is_set():
                raise RenderCancelled("cancelled while the worker was starting")
            if time.monotonic() > deadline:
                raise SetupError(
                    f"the worker did not answer within {self._hello_seconds:.0f} s", got=self._log.last_line(),
                    next_step=f"try again, or see {self._log.path}",
                )
            try:
                event = self._events.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if event is None:
                raise SetupError(
                    "the worker ended before it was ready", got=f"{self._ending()}; {self._log.last_line()}",
                    next_step=f"run: python install.py; its log is {self._log.path}",
                )
            if isinstance(event, Hello):
                return _checked_hello(event)
            if isinstance(event, ProtocolError) and "hello" in str(event).lower():
                raise SetupError(
                    "the worker speaks another protocol", got=str(event), next_step="run: python install.py",
                ) from event
            # Anything else is a print from the interpreter's start-up, before the worker took its pipes away.

    def _await_end(self, request_id: str, on_event: OnEvent, cancel: threading.Event | None) -> ClipDone | Inspected:
        give_up_at: float | None = None
        while True:
            if cancel is not None and cancel.is_set() and give_up_at is None:
                give_up_at = time.monotonic() + max(self._cancel_seconds, 2 * self._step_seconds)
                self._send(CancelRequest(request_id))
            if give_up_at is not None and time.monotonic() > give_up_at:
                raise RenderCancelled("cancelled; the worker did not stop by itself and was ended")
            try:
                event = self._events.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if not self.alive and self._events.empty():
                    raise self._death() from None
                continue
            if event is None:
                raise self._death()
            if isinstance(event, ProtocolError):
                raise WorkerDied("the worker broke the protocol and was ended", got=str(event))
            if isinstance(event, Hello) or event.id != request_id:
                continue
            if isinstance(event, Failed):
                error = error_from_kind(event.kind, event.message)
                if not isinstance(error, RenderCancelled):
                    self._log.add(event.detail)
                raise _RequestEnded(error)
            if isinstance(event, Step):
                self._step_seconds = max(self._step_seconds, event.seconds)
            on_event(event)
            if isinstance(event, ClipDone | Inspected):
                return event

    def _send(self, message: ClipRequest | InspectRequest | CancelRequest | QuitRequest) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise self._death()
        try:
            process.stdin.write(encode_line(message))
        except (OSError, ValueError) as error:
            raise self._death() from error

    def _death(self) -> WorkerDied:
        ending = self._ending()
        memory = "probably out of memory" in ending
        return WorkerDied(
            "the worker process died", got=f"{ending}; last said: {self._log.last_line()}",
            next_step=("a smaller size or window_frames needs less memory; " if memory else "")
            + f"its log is {self._log.path}",
        )

    def _ending(self) -> str:
        process = self._process
        if process is None:
            return "ended by the host"
        try:
            code = process.wait(2)  # its pipe closed a moment before the process is gone
        except subprocess.TimeoutExpired:
            return "its pipe closed while it ran on"
        self._log.drain()
        return describe_exit(code)

    def _start_idling(self) -> None:
        if self._idle_seconds > 0 and self.alive:
            self._idle = threading.Timer(self._idle_seconds, self._close_if_idle)
            self._idle.daemon = True
            self._idle.start()

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _close_if_idle(self) -> None:
        # A request that came in the same moment holds the lock: it wins, and the timer starts anew behind it.
        if self._one_request.acquire(blocking=False):
            try:
                self.close()
            finally:
                self._one_request.release()


class _RequestEnded(Exception):
    """The worker reported a failure in an orderly way: it lives on and can take the next request."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def describe_exit(code: int) -> str:
    """Say in words how a process ended."""
    if code in _KILLED:
        return "killed (SIGKILL), probably out of memory"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}" + (f", {words}" if (words := _WINDOWS_ENDS.get(code & 0xFFFFFFFF)) else "")


def end_process_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that was started as a tree of its own, with everything that it started."""
    if os.name == "nt":
        if process.poll() is None:
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)


def _checked_hello(hello: Hello) -> Hello:
    if hello.protocol != PROTOCOL_VERSION:
        raise SetupError(
            "the worker speaks another protocol", got=hello.protocol, allowed=str(PROTOCOL_VERSION),
            next_step="restart the program, and run: python install.py",
        )
    return hello


def _read_events(process: subprocess.Popen[bytes], events: queue.Queue[Event | ProtocolError | None]) -> None:
    """Thread: every line of the worker's pipe as an event, then None."""
    with process.stdout as pipe:  # type: ignore[union-attr]
        pending = b""
        while chunk := pipe.read(65536):
            *lines, pending = (pending + chunk).split(b"\n")
            if len(pending) > LONGEST_LINE:
                lines, pending = [*lines, pending], b""
            for line in lines:
                try:
                    events.put(decode_event(line))
                except ProtocolError as error:
                    events.put(error)
    events.put(None)
