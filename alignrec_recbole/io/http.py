"""HTTP sessions that repeat what may succeed the next time."""

from __future__ import annotations

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

PASSING = (429, 500, 502, 503, 504)  # statuses of servers that are busy or restarting


def make_session(retries: int = 0, *, accept: str = "*/*") -> requests.Session:
    """A session for http and https.

    Args:
        retries: of requests that found no server or one of the statuses PASSING, with growing
            pauses; 0: the caller repeats.
        accept: the media types that are asked for.
    """
    session = requests.Session()
    session.headers["Accept"] = accept
    retry = Retry(retries, backoff_factor=0.2, status_forcelist=PASSING if retries else ())
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session
