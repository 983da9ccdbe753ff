"""Who may see the pages: processes of this machine that know the token, and no web site that a browser has open."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

TOKEN_BYTES = 24
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

OPENSEADRAGON_STYLE = "sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE="
"""The one rule of style that OpenSeadragon 6.1.1 writes into the page: no outline around a canvas that is touched."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'self'; "
    f"style-src 'self' '{OPENSEADRAGON_STYLE}'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Sent with every answer: nothing is loaded from elsewhere, and no other site learns the address or embeds a page."""


def new_token() -> str:
    """A secret for one server: 192 random bits, safe in a URL."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def is_token(given: str, token: str) -> bool:
    """Whether ``given`` is the token, in a time that does not depend on how much of it is right."""
    return hmac.compare_digest(given.encode(), token.encode())


def is_loopback(host: str) -> bool:
    """Whether the Host header names this machine's loopback; any port, for a tunnel may end on another one.

    A page of another site can give its own name the address 127.0.0.1 (DNS rebinding). The browser then still sends
    that name.
    """
    try:
        return urlsplit(f"//{host}").hostname in _LOOPBACK
    except ValueError:
        return False
