"""What goes out on an HTTP/2 connection: answers as the peer's windows let them through, and the two-step end.

A peer that does not read is bounded twice. While `held`, answers stay on their streams, which stay open, so that the
limit on streams holds; and replies to its pings and settings may not exceed Limits.unread.
"""

from __future__ import annotations

from tfopt_server.rpc.http2 import frames
from tfopt_server.rpc.http2.frames import ConnectionFailure, ErrorCode
from tfopt_server.rpc.http2.headers import SHRINK_TABLE, Block
from tfopt_server.rpc.http2.limits import Limits
from tfopt_server.rpc.http2.stream import Stream

# How much `take` gives at once, so that a large answer is written as the socket takes it.
PORTION = 256 * 1024
_LAST_CALL = b"lastcall"  # payload of the PING that follows the first GOAWAY
_ALIVE = b"areyouup"  # payload of keepalive PINGs


class Sender:
    """The part of a connection that writes. `held`: the socket takes nothing more for now."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.out: list[bytes] = []
        self.streams: dict[int, Stream] = {}
        self.last = 0  # the highest stream that the peer opened
        self.final: int | None = None  # the last stream that is looked at, once the second GOAWAY was sent
        self.leaving = False
        self.peer_leaves = False
        self.failed: ConnectionFailure | None = None
        self.held = False
        self.drained: list[Stream] = []  # streams whose queue ran empty and that are not at their end
        self.unanswered_pings = 0
        self._unread = 0
        self._sending: dict[int, Stream] = {}
        self._left = frames.DEFAULT_WINDOW
        self._initial = frames.DEFAULT_WINDOW
        self._frame_size = frames.DEFAULT_FRAME
        self._owes_shrink = False

    def greet(self) -> None:
        self.out.append(frames.settings(self._limits.settings()))
        more = self._limits.connection_window - frames.DEFAULT_WINDOW
        if more > 0:
            self.out.append(frames.window_update(0, more))

    def take(self) -> bytes:
        """The next bytes for the socket, about PORTION of them; b"" when there are none for now."""
        if self._sending and not self.held:
            self._pump()
        out = self.out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._unread = 0
        return data

    # Answers.

    def respond(self, stream: Stream, lead: Block, prefix: bytes, body: bytes, trailers: Block) -> None:
        """A whole answer: headers, `prefix` and `body` as DATA, trailers. Nothing when the stream is gone."""
        if stream.done:
            return
        size = len(prefix) + len(body)
        if (
            size > self._left or size > stream.left or size > self._frame_size
            or self.held or self._sending or self._owes_shrink
        ):  # fmt: skip
            self.start(stream, lead)
            self.send(stream, prefix, body)
            self.finish(stream, trailers)
            return
        self._left -= size
        number = stream.id.to_bytes(4, "big")
        start = size.to_bytes(3, "big") + b"\0\0"  # DATA
        self.out += (
            lead.first, number, lead.data, start, number, prefix, body, trailers.last, number, trailers.data,
        )  # fmt: skip
        self.answered(stream)

    def start(self, stream: Stream, lead: Block) -> None:
        stream.lead = lead
        self._sending[stream.id] = stream

    def send(self, stream: Stream, *parts: bytes) -> None:
        if stream.done:
            return
        for part in parts:
            if part:
                stream.queue.append(memoryview(part))
                stream.queued += len(part)
        self._sending[stream.id] = stream

    def finish(self, stream: Stream, trailers: Block) -> None:
        """Ends an answer. With nothing sent before, `trailers` is all of it ("Trailers-Only")."""
        if stream.done or stream.trailers is not None:
            return
        stream.trailers = trailers
        self._sending[stream.id] = stream

    def answered(self, stream: Stream) -> None:
        raise NotImplementedError

    def forget(self, stream: Stream) -> None:
        """Drops what waits on a stream that is over."""
        stream.done = True
        stream.queue.clear()
        stream.queued = 0
        self._sending.pop(stream.id, None)

    def _pump(self) -> None:
        """Moves a portion of what waits into `out`, a frame of each stream in turn."""
        room = PORTION
        moved = True
        while moved and room > 0:
            moved = False
            for stream in list(self._sending.values()):
                size = self._advance(stream)
                moved = moved or size > 0
                room -= size
                if room <= 0:
                    break

    def _advance(self, stream: Stream) -> int:
        """Sends what is next on a stream; the bytes of it, 0 when the windows let nothing through."""
        sent = 0
        if stream.lead is not None:
            sent = self._headers(stream, stream.lead, False)
            stream.lead = None
        if stream.queue:
            size = min(self._left, stream.left, self._frame_size, stream.queued)
            if size <= 0:
                return sent
            sent += self._data(stream, size)
        if not stream.queue:
            del self._sending[stream.id]
            if stream.trailers is not None:
                sent += self._headers(stream, stream.trailers, True)
                self.answered(stream)
            else:
                self.drained.append(stream)
                return sent
        elif sent:
            self._sending[stream.id] = self._sending.pop(stream.id)  # to the end of the row
        return sent

    def _data(self, stream: Stream, size: int) -> int:
        self._left -= size
        stream.left -= size
        stream.queued -= size
        self.out.append(frames.FRAME.pack(size >> 16, size & 0xFFFF, frames.DATA, 0, stream.id))
        wanted = size
        while wanted:
            part = stream.queue[0]
            if len(part) <= wanted:
                stream.queue.popleft()
            else:
                stream.queue[0] = part[wanted:]
                part = part[:wanted]
            self.out.append(part)  # type: ignore[arg-type] # join takes it as it is
            wanted -= len(part)
        return 9 + size

    def _headers(self, stream: Stream, block: Block, ended: bool) -> int:
        data = block.data
        if self._owes_shrink:
            data, self._owes_shrink = SHRINK_TABLE + data, False
        written = frames.headers(stream.id, data, self._frame_size, ended)
        self.out.append(written)
        return len(written)

    # What the peer's settings and windows allow.

    def configure(self, name: int, value: int) -> None:
        """One of the peer's settings (RFC 9113, 6.5.2). Unknown ones mean nothing."""
        if name == frames.INITIAL_WINDOW_SIZE:
            if value > frames.LARGEST:
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE over 2^31-1")
            change, self._initial = value - self._initial, value
            for stream in self.streams.values():
                stream.left += change
                if stream.left > frames.LARGEST:
                    raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window over 2^31-1")
        elif name == frames.MAX_FRAME_SIZE:
            if not frames.DEFAULT_FRAME <= value <= frames.LARGEST_FRAME:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"SETTINGS_MAX_FRAME_SIZE {value}")
            self._frame_size = value
        elif name == frames.ENABLE_PUSH:
            if value > 1:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"SETTINGS_ENABLE_PUSH {value}")
        elif name == frames.HEADER_TABLE_SIZE and value < frames.DEFAULT_TABLE:
            self._owes_shrink = True

    def widen(self, by: int) -> None:
        self._left += by
        if self._left > frames.LARGEST:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window over 2^31-1")

    def widen_stream(self, stream: Stream, by: int) -> bool:
        stream.left += by
        return stream.left <= frames.LARGEST

    def _control(self, data: bytes) -> None:
        """A frame that answers the peer's own. A peer that sends such frames and reads nothing is cut off."""
        self.out.append(data)
        if self.held:
            self._unread += len(data)
            if self._unread > self._limits.unread:
                raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "replies pile up that nobody reads")

    # The end (RFC 9113, 6.8), and signs of life.

    def leave(self) -> None:
        """First step: says that the end is near, and asks for an echo; calls that are on their way are still served."""
        if not self.leaving and self.failed is None:
            self.leaving = True
            self.out.append(frames.goaway(frames.LARGEST, ErrorCode.NO_ERROR))
            self.out.append(frames.frame(frames.PING, 0, 0, _LAST_CALL))

    def last_call(self) -> None:
        """Second step: names the last stream that is served. After the echo nothing is on its way any more."""
        if self.final is None and self.failed is None:
            self.leaving = True
            self.final = self.last
            self.out.append(frames.goaway(self.last, ErrorCode.NO_ERROR))

    def ping(self) -> None:
        """Asks whether the peer still lives; `unanswered_pings` counts what it owes."""
        self.unanswered_pings += 1
        self.out.append(frames.frame(frames.PING, 0, 0, _ALIVE))

    def pinged(self, payload: bytes) -> None:
        if payload == _LAST_CALL and self.leaving:
            self.last_call()
        elif payload == _ALIVE:
            self.unanswered_pings = 0

    @property
    def over(self) -> bool:
        """Nothing is left to do on it: both steps of the end are done and every stream is."""
        return self.final is not None and not self.streams
