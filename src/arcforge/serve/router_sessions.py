"""Which session a request belongs to: requests of one session go to one worker, which holds their common prefix."""

from __future__ import annotations

import json
import re

from arcforge.serve.router_http import Incoming

HEADERS = ("x-session-id", "x-smg-routing-key")
FIELDS = ("session_id", "user")
LARGEST_BODY = 1 << 20  # bytes; larger ones are not searched: who sends those can say the session in a header

# `clients.arcforge` names its requests SESSION-RUN-COUNT, "request" being no session.
_RID = re.compile(r"(?P<session>.+)-[0-9a-f]{12}-\d+", re.S)


def session_key(request: Incoming) -> str:
    """X-Session-ID, X-SMG-Routing-Key, or of a JSON body session_id, user, or the session in rid; "" without one."""
    for name in HEADERS:
        if value := request.header(name):
            return value
    if not request.body.lstrip(b" \t\r\n").startswith(b"{") or len(request.body) > LARGEST_BODY:
        return ""
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):  # the worker will say so
        return ""
    for name in FIELDS:
        if (value := body.get(name)) and isinstance(value, str | int):
            return str(value)
    named = _RID.fullmatch(body["rid"]) if isinstance(body.get("rid"), str) else None
    return named["session"] if named and named["session"] != "request" else ""
