"""What can go wrong inside the optimizer and the engines, by audience."""

from __future__ import annotations


class OptimizeError(Exception):
    """No plan could be made at all (for the operator). One failed candidate is never this: it is a line in the plan."""


class NoSpace(OptimizeError):
    """A disk is full. No candidate's fault: a plan that was chosen for want of space would be kept and used."""


class EngineError(Exception):
    """An engine refused or failed one call.

    `code` is a canonical code name ("INVALID_ARGUMENT", "INTERNAL", ...), `message` the engine's own text; for
    TensorFlow both are what TensorFlow Serving would answer the client.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)  # both in args, so that the error survives pickling between processes
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


EXHAUSTED = "RESOURCE_EXHAUSTED"  # the word by which a reason is known to be one of memory


class OutOfMemory(EngineError):
    """The device has no memory left for a bucket: smaller ones, or plain TensorFlow, must answer."""

    def __init__(self, message: str) -> None:
        super().__init__(EXHAUSTED, message)

    def __reduce__(self) -> tuple[type[OutOfMemory], tuple[str]]:
        return OutOfMemory, (self.message,)


class DeviceMissing(Exception):
    """The device that was asked for is not there, with its runtime's reason (for the operator)."""


class NotLowerable(Exception):
    """A signature that an engine cannot take, for a reason known before or while compiling (a line in the log)."""


def first_line(error: BaseException) -> str:
    """What fits into a log line of an exception that may be pages long."""
    return (str(error).strip() or repr(error)).splitlines()[0][:500]


class NeedsConversion(NotLowerable):
    """The engine's own form of a signature is not in the plan yet: its converter must run first."""


class Declined(EngineError):
    """An engine cannot take these values, although types and shapes are right: plain TensorFlow must answer."""
