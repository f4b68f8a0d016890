"""The client library: loaded when it is used, its errors put into words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from taktline.errors import LineError, SinkError, SourceError

CALL_SECONDS = 15.0  # seconds a request may take
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0  # seconds before something that failed is tried again
PASSING_CODES = (
    "ABORTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "UNKNOWN",
)
# As the library sets them for the real service; the errors of 1000 acknowledgements travel as metadata.
UNLIMITED = (
    ("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1), ("grpc.max_metadata_size", 4 << 20),
)  # fmt: skip

Trouble = type[SourceError] | type[SinkError]


def check_name(name: str, kind: str) -> None:
    """Raises LineError where this is no full name of a subscription or topic."""
    if not isinstance(name, str) or not re.fullmatch(rf"projects/[^/\s]+/{kind}s/[^/\s]+", name):
        raise LineError(f'{name!r} is no {kind}: give "projects/PROJECT/{kind}s/NAME"')


def connect(kind: str, endpoint: str | None, trouble: Trouble, credentials: Any = None) -> Any:
    """A client ("SubscriberClient", "PublisherClient") with a connection of its own; close its `transport`."""
    emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
    if emulator == "":  # the library would take it as unset, and use the real service
        raise LineError("PUBSUB_EMULATOR_HOST is empty: give the emulator's address, or unset it for the real service")
    try:
        import google.pubsub_v1
        import grpc
        from google.auth.exceptions import GoogleAuthError
    except ImportError as error:
        raise LineError(f"Pub/Sub needs google-cloud-pubsub: pip install 'taktline[pubsub]' ({error})") from error
    client = getattr(google.pubsub_v1, kind)
    if emulator:  # the library's own connection to one takes no message above 4 MB
        channel = grpc.insecure_channel(emulator, options=UNLIMITED)
        return client(transport=client.get_transport_class("grpc")(channel=channel))
    try:
        return client(credentials=credentials, client_options={"api_endpoint": endpoint} if endpoint else None)
    except GoogleAuthError as error:
        raise trouble(_no_credentials(error)) from error


def check_there(get: Callable[..., Any], kind: str, name: str, trouble: Trouble) -> Any:
    """What `get` says of it; None where the account may not ask. Raises `trouble` for what would only fail later."""
    from google.api_core.exceptions import GoogleAPICallError, PermissionDenied
    from google.auth.exceptions import GoogleAuthError

    try:
        return get(request={kind: name}, retry=None, timeout=CALL_SECONDS)
    except PermissionDenied:  # who may receive or publish need not be allowed to look: doing it will tell
        return None
    except GoogleAPICallError as error:
        raise explained(error, kind, name, trouble) from error
    except GoogleAuthError as error:
        raise trouble(_no_credentials(error)) from error


def passes(error: Any) -> bool:
    """Whether a failed request may succeed later."""
    return error.grpc_status_code is not None and error.grpc_status_code.name in PASSING_CODES


def explained(error: Any, kind: str, name: str, trouble: Trouble) -> Exception:
    """What it means that a request was refused."""
    code = error.grpc_status_code.name if error.grpc_status_code is not None else type(error).__name__
    if code == "NOT_FOUND":
        return trouble(f"there is no {kind} {name!r}; create it, or mend the name")
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
        role = "roles/pubsub." + ("subscriber" if kind == "subscription" else "publisher")
        return trouble(f"no permission to use the {kind} {name!r}: {error.message}. Grant this account {role} on it")
    if passes(error):
        emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
        remedy = f"is the emulator running at {emulator}?" if emulator else "is the network up?"
        return trouble(f"the {kind} {name!r} cannot be reached; {remedy} ({code}: {error.message})")
    return trouble(f"Pub/Sub refused a request for the {kind} {name!r}: {code}: {error.message}")


def _no_credentials(error: Exception) -> str:
    return (
        f"no credentials for Google Cloud: {error} Run `gcloud auth application-default login`, set "
        "GOOGLE_APPLICATION_CREDENTIALS, or for an emulator PUBSUB_EMULATOR_HOST"
    )
