"""Reads the proxy's own answers, in whichever form a client gets them."""

import xml.etree.ElementTree as ElementTree

from integration.stack.client import Response


def local_error(response: Response) -> dict[str, str]:
    """Returns code, message and route of a local reply, from JSON or from S3's XML."""
    if response.headers["content-type"] != "application/xml":
        return response.json["error"]
    error = ElementTree.fromstring(response.body)
    assert error.tag == "Error", response.text
    return {child.tag.lower(): child.text for child in error}
