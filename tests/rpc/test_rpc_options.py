"""--grpc_channel_arguments by gRPC core's names."""

from __future__ import annotations

import math

from tfopt_server.rpc.http2.limits import Limits
from tfopt_server.rpc.options import MESSAGE_LIMIT, Options, read


def test_nothing_given_is_tensorflow_servings_limit_and_grpcs_times():
    assert read({}) == (Options(Limits()), ())
    assert (Options(Limits()).receive_limit, Options(Limits()).keepalive_s) == (2**31 - 1, 7200)


def test_what_has_a_counterpart_is_followed():
    options, lines = read({
        "grpc.max_receive_message_length": 100, "grpc.max_send_message_length": -1, "grpc.keepalive_time_ms": 1500,
        "grpc.keepalive_permit_without_calls": 1, "grpc.max_connection_age_ms": 2**31 - 1,
        "grpc.max_connection_idle_ms": 60_000, "grpc.max_concurrent_streams": 7, "grpc.max_metadata_size": 9000,
        "grpc.http2.max_frame_size": 16_384, "grpc.http2.lookahead_bytes": 100_000,
    })  # fmt: skip
    limits = Limits(streams=7, headers=9000, frame=16_384, stream_window=100_000)
    assert lines == ()
    assert options == Options(
        limits, receive_limit=100, send_limit=MESSAGE_LIMIT, keepalive_s=1.5, keepalive_without_calls=True,
        age_s=math.inf, idle_s=60,
    )  # fmt: skip


def test_what_is_not_followed_is_said_once_each():
    options, lines = read({
        "grpc.so_reuseport": 1, "grpc.max_concurrent_streams": "many", "grpc.http2.max_frame_size": 5,
    })  # fmt: skip
    assert options == Options(Limits())
    assert lines == (
        "--grpc_channel_arguments: grpc.so_reuseport has no counterpart in this server",
        "--grpc_channel_arguments: grpc.max_concurrent_streams: expected a whole number, received 'many'; ignored",
        "--grpc_channel_arguments: grpc.http2.max_frame_size: expected 16384 to 16777215, received 5; ignored",
    )
