"""The contracts of the two ends, for the rooms of the engine; `taktline.abc` is where they are written."""

from taktline.abc import Live, Part, Resumable, Sink, Source, Splitter, Unread

__all__ = ["Live", "Part", "Resumable", "Sink", "Source", "Splitter", "Unread"]
