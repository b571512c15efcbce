"""The worker process: requests in, events out, one model kept warm.

It runs under the isolated interpreter and ends when its parent does: the request pipe closes then, however the
parent went.  Standard input and output are taken
over for the protocol at once and replaced, so that nothing a library prints can end up between the lines.
"""

from __future__ import annotations

import os
import platform
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import DeforumWanError, OutOfDeviceMemory, RenderCancelled
from .hashing import sha256_of
from .protocol import (
    PROTOCOL_VERSION,
    CancelRequest,
    ClipDone,
    ClipRequest,
    Decoding,
    Event,
    Failed,
    Hello,
    Inspected,
    InspectRequest,
    Loading,
    ProtocolError,
    QuitRequest,
    Request,
    Step,
    decode_request,
    encode_line,
)


class Channel:
    """The two pipes.  Requests are read on a thread, so that a cancel is heard while a clip is in work."""

    def __init__(self, requests: IO[bytes], events: IO[bytes]) -> None:
        self._in, self._out = requests, events
        self._waiting: queue.Queue[Request] = queue.Queue()
        self._cancelled: set[str] = set()
        threading.Thread(target=self._listen, name="requests", daemon=True).start()

    def requests(self) -> Iterator[Request]:
        """Requests in order, until told to quit."""
        while not isinstance(request := self._waiting.get(), QuitRequest):
            yield request

    def send(self, event: Event) -> None:
        self._out.write(encode_line(event))
        self._out.flush()

    def check_cancelled(self, request_id: str) -> None:
        """Raises RenderCancelled if this request has been cancelled."""
        if request_id in self._cancelled:
            raise RenderCancelled("cancelled")

    def _listen(self) -> None:
        for line in self._in:
            try:
                request = decode_request(line)
            except ProtocolError as error:
                print(f"worker: ignored {error}", file=sys.stderr)
                continue
            if isinstance(request, CancelRequest):
                self._cancelled.add(request.id)
            else:
                self._waiting.put(request)
        os._exit(0)  # the pipe is closed: the parent is gone, and nobody is left to work for


class Service:
    """Does the requests, with the pipeline of the model that was asked for last."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._key: tuple[object, ...] = ("",)
        self._pipeline = None
        self._level: int | None = None  # of the memory ladder, where an out-of-memory has pushed us down it

    def answer(self, request: Request) -> None:
        """Do one request; whatever happens, exactly one closing event goes out."""
        try:
            event = self.clip(request) if isinstance(request, ClipRequest) else self.inspect(request)
        except DeforumWanError as error:
            event = Failed(request.id, error.kind, error.one_line(), traceback.format_exc())
        except Exception as error:  # the boundary: it must reach the host in words, and the worker must live on
            event = Failed(request.id, *_foreign(error), traceback.format_exc())
        if isinstance(event, Failed) and event.kind == OutOfDeviceMemory.kind:
            self._free_device()
        self.channel.send(event)

    def clip(self, request: ClipRequest) -> ClipDone:
        """Render one clip; out of memory, again with less of the model on the device.  Raises DeforumWanError.

        Latents that were on disk by then are not sampled again.
        """
        from .wan.memory import NoRoomToLoad

        while True:
            try:
                return self._clip(request)
            except OutOfDeviceMemory as error:
                planned = error if isinstance(error, NoRoomToLoad) else self._pipeline and self._pipeline.memory
                level = planned.lower if planned else None
                if level is None:
                    raise
                self.channel.send(Loading(request.id, "memory", 0.0, f"{error.what}; loading with less at once"))
                self._free_device()
                self._level = level

    def _clip(self, request: ClipRequest) -> ClipDone:

        pipeline = self._load(request)
        peak = _PeakMemory(pipeline.machine.device)
        preview = _Preview(request, pipeline)
        clock = time.perf_counter

        def on_step(step: int, sigma: float, clean: object) -> None:
            self.channel.check_cancelled(request.id)
            shown = preview.show(clean, last=step + 1 == request.num_inference_steps)
            nonlocal stepped
            now = clock()
            self.channel.send(Step(request.id, step + 1, request.num_inference_steps, sigma, now - stepped, shown))
            stepped = now

        def on_decode(latents: int) -> None:
            self.channel.check_cancelled(request.id)
            self.channel.send(Decoding(request.id, latents, request.new_latents))

        self.channel.check_cancelled(request.id)
        stepped = clock()
        clip = pipeline.render(request, on_step, on_decode)
        return ClipDone(
            request.id, clip.frames, sha256_of(request.latents_file), sha256_of(request.frames_file),
            clip.seconds, peak.read(),
        )  # fmt: skip

    def inspect(self, request: InspectRequest) -> Inspected:
        """Load a model whole.  Raises DeforumWanError."""
        started = time.perf_counter()
        pipeline = self._load(request)
        return Inspected(request.id, pipeline.variant.name, {"load": time.perf_counter() - started})

    def _load(self, request: ClipRequest | InspectRequest):
        """The pipeline of a model on a device, loaded unless it is the one in hand."""
        from .wan.clip_files import load_latents
        from .wan.loading import LoadOptions, load_parts
        from .wan.machine import choose_machine
        from .wan.memory import BEGIN_AT
        from .wan.prompt_timeline import distinct_contexts
        from .wan_flow_matching import WanFlowMatchingPipeline

        clip = request if isinstance(request, ClipRequest) else None
        memory, ways = clip.memory if clip else "auto", {}
        if clip:
            ways = {"weights_dtype": clip.weights_dtype, "attention": clip.attention, "compile": clip.compile}
        key = (request.model, request.device, request.dtype, memory, *ways.values())
        if key != self._key or self._pipeline is None:
            if key != self._key and self._key[0]:
                self._level = None  # another model: its own plan
            self._free_device()  # the old model first: two seldom fit
            machine = choose_machine(request.device, request.dtype)

            def on_loading(part: str, seconds: float, note: str) -> None:
                self.channel.send(Loading(request.id, part, seconds, note))

            level = BEGIN_AT[memory] if self._level is None else self._level
            size = (clip.window_latents or clip.latent_frames, clip.height, clip.width) if clip else None
            sampled = clip and load_latents(Path(clip.latents_file), fingerprint=clip.fingerprint()) is not None
            texts = clip.texts if clip and not sampled else ()  # a clip that only lacks its decode needs no prompt
            heard = {"contexts": len(distinct_contexts(clip.mixes)[0]) or 1, "sides": 1 + clip.guided} if clip else {}
            options = LoadOptions(size, **heard, level=level, **ways, prompts=texts)
            parts = load_parts(request.model, machine, on_loading, options)
            self._pipeline = WanFlowMatchingPipeline(parts)
            self._key = key
        return self._pipeline

    def _free_device(self) -> None:
        self._pipeline, self._key = None, ("",)
        import gc

        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class _Preview:
    """Shows the middle of the clip as it stands, every few seconds, decoded from the estimate of the clean latents."""

    def __init__(self, request: ClipRequest, pipeline) -> None:
        self._request, self._pipeline, self._shown = request, pipeline, time.perf_counter()

    def show(self, clean, *, last: bool) -> str:
        """Write a preview if it is time for one; returns its file's name or ""."""
        request = self._request
        due = time.perf_counter() - self._shown >= request.preview_seconds
        if not request.preview_file or last or not due:
            return ""
        from .wan.clip_files import save_preview, to_pixels
        from .wan.vae import StreamState

        middle = request.prefix_latents + request.new_latents // 2
        frame = self._pipeline.vae.decode_chunk(clean[:, :, middle : middle + 1], StreamState())
        save_preview(Path(request.preview_file), to_pixels(frame.clamp_(-1, 1))[0])
        self._shown = time.perf_counter()
        return request.preview_file


class _PeakMemory:
    """Most device memory in use since it was made, in bytes; 0 where the device doesn't count."""

    def __init__(self, device) -> None:
        import torch

        self._cuda = torch.cuda if device.type == "cuda" else None
        if self._cuda:
            self._cuda.reset_peak_memory_stats()

    def read(self) -> int:
        return self._cuda.max_memory_allocated() if self._cuda else 0


def _foreign(error: Exception) -> tuple[str, str]:
    """(kind, one line) for an exception that isn't ours."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return OutOfDeviceMemory.kind, "out of memory; choose a smaller size or window, then --resume"
    return "render", " ".join(f"{type(error).__name__}: {error}".split())


def _take_over_pipes() -> Channel:
    """Move the protocol off descriptors 0 and 1, and point those where they can do no harm."""
    requests, events = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    return Channel(requests, events)


def _hello() -> Hello:
    import torch

    from .wan.machine import choose_machine

    machine = choose_machine()
    return Hello(
        PROTOCOL_VERSION, os.getpid(), platform.python_version(), torch.__version__,
        str(machine.device), machine.name, machine.total_memory, (machine.reason,),
    )  # fmt: skip


def main() -> None:
    """Serve until told to quit or the parent is gone."""
    channel = _take_over_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is the host's to hear
    channel.send(_hello())
    service = Service(channel)
    for request in channel.requests():
        service.answer(request)


if __name__ == "__main__":
    main()
