"""Pages for people: where OAuth cannot go on, and there is no driver that could be told so."""

from __future__ import annotations

from html import escape

from starlette.responses import HTMLResponse, RedirectResponse, Response

_HEADERS = {
    "cache-control": "no-store",
    # Neither where the person goes next nor what they load may see the code in this page's URL.
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title></head>
<body>
<h1>{title}</h1>
<p>{words}</p>
<p>{mend}</p>
</body>
</html>
"""
_BEGIN_AGAIN = "Go back to the app that sent you here and begin again."


class Stop(Exception):
    """The visit ends with a page: what is wrong in `words`, and the `mend`."""

    def __init__(self, status: int, words: str, mend: str = _BEGIN_AGAIN) -> None:
        super().__init__(words)
        self.status = status
        self.words = words
        self.mend = mend


def page(stop: Stop) -> Response:
    """The page that a visit ends with."""
    title = "Too many visits" if stop.status == 429 else "This cannot be connected"
    content = _PAGE.format(title=escape(title), words=escape(stop.words), mend=escape(stop.mend))
    headers = _HEADERS | ({"retry-after": "1"} if stop.status in (429, 503) else {})
    return HTMLResponse(content, stop.status, headers)


def send_to(url: str) -> Response:
    """Send the person on."""
    return RedirectResponse(url, 303, {name: _HEADERS[name] for name in ("cache-control", "referrer-policy")})
