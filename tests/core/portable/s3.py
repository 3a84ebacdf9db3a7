"""A server of the S3 protocol on loopback."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # noqa: S105 - nobody's
BUCKET = "bucket"
MIRROR = f"s3://{BUCKET}/some/prefix"


@dataclass(frozen=True)
class S3:
    """A running server with one bucket."""

    url: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables with which it is used."""
        return variables_for(self.url)

    def names(self) -> list[str]:
        """The names of all objects."""
        with urlopen(f"{self.url}/{BUCKET}?list-type=2") as response:  # noqa: S310 - http
            tree = ET.parse(response)  # noqa: S314 - of our own server
        return [key.text or "" for key in tree.iter("{http://s3.amazonaws.com/doc/2006-03-01/}Key")]

    def put(self, name: str, content: bytes) -> None:
        """Make an object, whatever its name."""
        kind = {"Content-Type": "application/octet-stream"}
        urlopen(Request(f"{self.url}/{BUCKET}/{name}", content, kind, method="PUT")).close()  # noqa: S310 - http

    def get(self, name: str) -> bytes:
        """An object's content."""
        # Objects are private, but nobody checks the signature.
        with urlopen(f"{self.url}/{BUCKET}/{name}?Signature=any") as response:  # noqa: S310 - http
            content: bytes = response.read()
        return content


def variables_for(url: str) -> dict[str, str]:
    """The environment variables with which a server at this address is used."""
    return {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": url,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@contextmanager
def s3_server(port: int = 0) -> Iterator[S3]:
    """A running server with an empty bucket."""
    # Every worker reads this file, and one of them runs it.
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    host, found = server.get_host_and_port()
    url = f"http://{host}:{found}"
    try:
        urlopen(Request(f"{url}/moto-api/reset", method="POST")).close()  # noqa: S310 - http
        urlopen(Request(f"{url}/{BUCKET}", method="PUT")).close()  # noqa: S310 - http
        yield S3(url)
    finally:
        server.stop()
