"""The format of the result of a request."""

from __future__ import annotations

from perceptual.serve.refusals import Refused

MEDIA = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".tiff": "image/tiff",
    ".bmp": "image/bmp",
}
"""The media type of each ending that can be written."""


def choose_ending(wanted: str | None, accept: str, own: str) -> str:
    """The ending of the result. wanted: the option format. accept: the header. own: the ending of the picture.

    Raises:
        Refused: status 406 if the header accepts none of the formats.
    """
    if wanted is not None:
        return f".{wanted}"
    accepted = _accepted(accept)
    if not accepted:
        return own
    shares = {ending: _share(media, accepted) for ending, media in MEDIA.items()}
    best = max(shares.values())
    if best == 0:
        raise Refused(406, "format", f"Accept names no format that can be written: choose {', '.join(MEDIA.values())}.")
    return own if shares[own] == best else next(ending for ending, share in shares.items() if share == best)


def _accepted(accept: str) -> dict[str, float]:
    """{media type or range: its weight q}, from the header Accept."""
    found: dict[str, float] = {}
    for part in accept.split(","):
        media, *parameters = (each.strip().lower() for each in part.split(";"))
        share = 1.0
        for each in parameters:
            if each.startswith("q="):
                try:
                    share = float(each[2:])
                except ValueError:
                    share = 0.0
        if media:
            found[media] = share if 0 <= share <= 1 else 0.0
    return found


def _share(media: str, accepted: dict[str, float]) -> float:
    """The weight of a media type: that of its own name, else of image/*, else of */*."""
    return next((accepted[name] for name in (media, "image/*", "*/*") if name in accepted), 0.0)
