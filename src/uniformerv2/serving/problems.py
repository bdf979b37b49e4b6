"""What a service refuses and why: every kind of refusal with its status, and ServiceError, which carries one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from uniformerv2.media.video_error import VideoError, VideoErrorKind

__all__ = ["KINDS", "ProblemKind", "ServiceError", "problem_of"]


@dataclass(frozen=True)
class ProblemKind:
    """A kind of refusal.

    Attributes:
        status: Of HTTP.
        title: What it is, in one line.
    """

    status: int
    title: str


KINDS: Final[Mapping[str, ProblemKind]] = {
    "bad-request": ProblemKind(400, "The request is malformed."),
    "unauthorized": ProblemKind(401, "A token is needed."),
    "cross-site": ProblemKind(403, "Pages of other sites may not use this service."),
    "not-found": ProblemKind(404, "There is nothing at this address."),
    "method-not-allowed": ProblemKind(405, "This address takes another method."),
    "slow-upload": ProblemKind(408, "The upload took too long."),
    "upload-too-large": ProblemKind(413, "The upload is too large."),
    "video-too-large": ProblemKind(413, "The video is too large."),
    "not-a-video": ProblemKind(415, "This is not a video."),
    "encoded-body": ProblemKind(415, "The body may not be compressed."),
    "wrong-host": ProblemKind(421, "The service is not called by this name."),
    "invalid-parameter": ProblemKind(422, "A parameter is not allowed."),
    "unsupported-model": ProblemKind(422, "The model cannot do this."),
    "unreadable-video": ProblemKind(422, "The video cannot be read."),
    "request-too-large": ProblemKind(422, "The request asks for too much."),
    "queue-full": ProblemKind(429, "The queue is full."),
    "client-left": ProblemKind(499, "The client left."),
    "internal": ProblemKind(500, "The service failed."),
    "draining": ProblemKind(503, "The service is about to stop."),
    "not-ready": ProblemKind(503, "The service is not ready yet."),
    "no-memory": ProblemKind(503, "The service is out of memory."),
    "too-slow": ProblemKind(504, "The answer took too long."),
    "slow-decoding": ProblemKind(504, "The video took too long to read."),
    "disk-full": ProblemKind(507, "The service has no room for the upload."),
}
"""Kind -> its status and title."""

OF_VIDEO: Final[Mapping[VideoErrorKind, str]] = {
    "not a video": "not-a-video",
    "no video": "not-a-video",
    "too large": "video-too-large",
    "timeout": "slow-decoding",
    "missing": "internal",
    "unreadable": "internal",
    "no score": "internal",
}
"""What is wrong with a video -> what the client is told; anything else is an unreadable video."""


class ServiceError(Exception):
    """A request is refused.

    Args:
        kind: Of ``KINDS``.
        detail: What came, what is allowed, what to do; names no file and no place of the server.
        retry_after: Seconds after which it may be tried again.
    """

    def __init__(self, kind: str, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        """The status of HTTP."""
        return KINDS[self.kind].status


def problem_of(error: VideoError) -> ServiceError:
    """What a client is told of a video that cannot be read: the reason, without the path."""
    kind = OF_VIDEO.get(error.kind, "unreadable-video")
    detail = error.detail.partition("; to allow it")[0].replace(str(error.path), "the video")
    return ServiceError(kind, f"{error.kind}: {detail}.")
