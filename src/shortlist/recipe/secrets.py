"""Passwords and keys in addresses: kept out of messages and of files that are written.

A training uses the address of the recipe as it is; every copy of it is redacted.
"""

from __future__ import annotations

import base64
import os
import re
from urllib.parse import parse_qsl, unquote, urlsplit

HIDDEN = "***"
# Up to the last @ before a blank or quote: a password may contain @ and / as well.
_USER = re.compile(r"(?<!sqlite)(?<!file)(://)[^\s'\"<>]*@")
_QUERY = re.compile(r"([?&;][^=&;?\s'\"<>]+=)[^&;\s'\"<>]+")
_ENVIRONMENT = re.compile(r"(?:KEY|TOKEN|PASSWORD|SECRET)(?:_|$)")
_SHORTEST = 4  # a shorter text stands in messages for other reasons too


def redacted(text: str, *addresses: str) -> str:
    """A text in which no secret of an address can be read.

    The user and password of any URL are hidden, and all values of its query.

    Args:
        text: a message, or an address itself.
        addresses: whose secrets are hidden wherever they stand, as are the values of
            environment variables that hold keys, tokens and passwords.
    """
    secrets = {value for address in addresses for value in _secrets(address)}
    if addresses:
        secrets |= {v for k, v in os.environ.items() if _ENVIRONMENT.search(k)}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, HIDDEN)
    text = _USER.sub(rf"\1{HIDDEN}@", text)
    return _QUERY.sub(rf"\1{HIDDEN}", text)


def _secrets(address: str) -> set[str]:
    """The password of an address and the values of its query, in all spellings."""
    try:
        parts = urlsplit(address)
    except ValueError:  # the address cannot be used, nor its parts be told apart
        return {address}
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    # Without a password the user is the key.
    found = {password or user, *(value for _, value in parse_qsl(parts.query))}
    both = f"{unquote(user)}:{unquote(password)}"
    found |= {unquote(secret) for secret in found}
    if password:
        found.add(base64.b64encode(both.encode()).decode())
    return found
