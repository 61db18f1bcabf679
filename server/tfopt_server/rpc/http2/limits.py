"""How much one connection may ask for at once."""

from __future__ import annotations

from dataclasses import dataclass

from tfopt_server.rpc.http2 import frames

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Bytes, except `streams`. `headers`: the largest header list (RFC 9113, 6.5.2).

    The windows are how much may be on the way; messages are gathered as they come, so the windows do not bound them.
    """

    streams: int = 1024
    headers: int = 16 * 1024
    frame: int = MIB
    stream_window: int = 4 * MIB
    connection_window: int = 32 * MIB
    # What may wait for a peer that asks (pings, settings, resets) and does not read.
    unread: int = MIB

    def settings(self) -> dict[int, int]:
        return {
            frames.MAX_CONCURRENT_STREAMS: self.streams,
            frames.INITIAL_WINDOW_SIZE: self.stream_window,
            frames.MAX_FRAME_SIZE: self.frame,
            frames.MAX_HEADER_LIST_SIZE: self.headers,
        }
