"""A worker without a model: the real protocol; a frame's red is its place in the stream, the rest its clip's seed.

Words in the prompt make it misbehave.  Run as a script it is the process; imported, FakeRenderer is the interface.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from deforum_helpers import protocol
from deforum_helpers.errors import error_from_kind
from deforum_helpers.hashing import sha256_of
from deforum_helpers.protocol import ClipDone, ClipRequest, Decoding, Failed, Hello, Step


def render(request: ClipRequest, tell, cancelled) -> ClipDone | Failed:
    if "out of memory" in request.prompt:
        return Failed(request.id, "out_of_memory", "the device ran out of memory")
    for step in range(1, request.num_inference_steps + 1):
        if "slow" in request.prompt:
            time.sleep(0.05)
        if cancelled():
            return Failed(request.id, "cancelled", "cancelled")
        tell(Step(request.id, step, request.num_inference_steps, 0.0, 0.01))
    before = sum(part.count for part in request.stream)
    first = 4 * before - 3 if before else 0
    first += request.drop_frames
    count = 4 * (before + request.new_latents) - 3 - first
    frames = np.full((count, request.height, request.width, 3), request.seed % 256, np.uint8)
    frames[:, :, :, 0] = (np.arange(first, first + len(frames)) % 256).astype(np.uint8)[:, None, None]
    latents = np.full((1, request.new_latents, 1, 1), request.seed % 1000, np.float32).tobytes()
    header = json.dumps({"latents": {"dtype": "F32", "shape": [1, request.new_latents, 1, 1],
                                     "data_offsets": [0, len(latents)]}}).encode()  # fmt: skip
    Path(request.latents_file).write_bytes(len(header).to_bytes(8, "little") + header + latents)
    tell(Decoding(request.id, 1, request.new_latents))
    np.save(request.frames_file, frames)
    hashes = sha256_of(Path(request.latents_file)), sha256_of(Path(request.frames_file))
    return ClipDone(request.id, len(frames), *hashes, {"sample": 0.01})


class FakeRenderer:
    """The worker's interface in this process.  requests: what it was asked for; fail: index -> error to raise once."""

    def __init__(self, fail=None):
        self.requests, self.fail = [], dict(fail or {})

    def run(self, request, on_event=None, cancel=None):
        self.requests.append(request)
        if error := self.fail.pop(len(self.requests) - 1, None):
            raise error
        end = render(request, on_event or (lambda event: None), cancel.is_set if cancel else lambda: False)
        if isinstance(end, Failed):
            raise error_from_kind(end.kind, end.message)
        (on_event or (lambda event: None))(end)
        return end

    def close(self):
        pass


def main() -> None:
    requests, events = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    if "--chatty" not in sys.argv:
        os.dup2(2, 1)
    print("a library greets you")
    sys.stdout.flush()
    version = 99 if "--old" in sys.argv else protocol.PROTOCOL_VERSION
    if "--mute" in sys.argv:
        time.sleep(60)
    if "--broken" in sys.argv:
        sys.exit("ModuleNotFoundError: No module named 'torch'")
    events.write(protocol.encode_line(Hello(version, os.getpid(), "3", "0", "cpu", "fake", 0)))
    stop = threading.Event()
    waiting: list = []
    threading.Thread(target=read, args=(requests, waiting, stop), daemon=True).start()
    while True:
        while not waiting:
            time.sleep(0.005)
        request = waiting.pop(0)
        if request is None or isinstance(request, protocol.QuitRequest):
            os._exit(0)
        stop.clear()
        if "die" in request.prompt:
            sys.stderr.write("Fatal: the end\n")
            os.kill(os.getpid(), 11 if "segfault" in request.prompt else 9)
        if "hang" in request.prompt:
            time.sleep(60)
        if "babble" in request.prompt:
            events.write(b"hello there\n")
        end = render(request, lambda event: events.write(protocol.encode_line(event)), stop.is_set)
        events.write(protocol.encode_line(end))


def read(requests, waiting: list, stop: threading.Event) -> None:
    for line in requests:
        request = protocol.decode_request(line)
        stop.set() if isinstance(request, protocol.CancelRequest) else waiting.append(request)
    os._exit(0)


if __name__ == "__main__":
    main()
