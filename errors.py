"""The errors that a user of facrt can cause and mend; each message is one sentence: found, allowed, what mends it."""

from __future__ import annotations


class FacrtError(Exception):
    """Any fault of the user's input or environment. The command line prints it on one line and exits with 2."""


class CheckpointError(FacrtError):
    """A checkpoint folder that cannot be loaded: missing files, wrong, missing or extra tensors."""


class BundleError(FacrtError):
    """A bundle folder that cannot be trusted: wrong format version, missing file, wrong hash, wrong shape."""


class AudioError(FacrtError):
    """Audio that cannot be used: unreadable, empty, too short, too long, or with samples that are not finite."""


class RequestError(FacrtError):
    """A call whose arguments do not fit: unknown target, bad message, prompt too long for the engine's caches."""


class DatasetError(FacrtError):
    """A dataset that breaks its format; the message names file, line and field."""
