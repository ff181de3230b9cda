"""Writes src/core/tests/data/older-botocore-endpoints.tsv: the endpoints of older releases of botocore that the current
one no longer has, or has with another scope.

    .venv/bin/python -m integration.endpoints.older

People run SDKs of all ages. Each release here resolves its endpoints by `endpoints.json` and the host prefixes of its
operations; its data files are read without its code. One region stands for all that share a form of the host. It is a
fixed set of releases, so the file changes only when one is added, or when the current data are written again.
"""

import gzip
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from integration.endpoints.data import read_data
from integration.stack.process import REPOSITORY

OUTPUT = REPOSITORY / "src/core/tests/data/older-botocore-endpoints.tsv"

# About one for each year since 2017, newest first.
RELEASES = ["1.37.38", "1.34.162", "1.29.165", "1.24.46", "1.21.65", "1.17.63", "1.12.253", "1.10.84", "1.5.95"]


class Release:
    """The data files of one release."""

    def __init__(self, wheel: Path):
        self.files = zipfile.ZipFile(wheel)
        self.names = self.files.namelist()

    def read(self, name: str) -> dict:
        content = self.files.read(name)
        return json.loads(gzip.decompress(content) if name.endswith(".gz") else content)

    def services(self):
        """Returns the newest model of each service."""
        newest = {}
        for name in self.names:
            parts = name.split("/")
            if len(parts) == 5 and parts[1] == "data" and parts[4].startswith("service-2.json"):
                newest[parts[2]] = max(newest.get(parts[2], name), name)
        return [self.read(name) for name in newest.values()]

    def rows(self):
        """Returns (host, signing name, signing region), one region for each form of a host."""
        [endpoints] = [name for name in self.names if name.startswith("botocore/data/endpoints.json")]
        partitions = self.read(endpoints)["partitions"]
        for model in self.services():
            metadata = model["metadata"]
            if metadata.get("signatureVersion") in ("v2", "bearer", "none"):
                continue
            prefixes = host_prefixes(model)
            for partition in partitions:
                yield from rows_of_service(metadata, partition, prefixes)


def host_prefixes(model: dict) -> set[str]:
    """Returns the host prefixes of the signed operations."""
    found = set()
    for operation in model["operations"].values():
        if operation.get("authtype") != "none":
            prefix = operation.get("endpoint", {}).get("hostPrefix", "")
            while "{" in prefix:
                before, _, rest = prefix.partition("{")
                prefix = before + "resource" + rest.partition("}")[2]
            found.add(prefix)
    return found


def rows_of_service(metadata: dict, partition: dict, prefixes: set[str]):
    name = metadata["endpointPrefix"]
    listed = partition["services"].get(name)
    if listed is None and partition["partition"] != "aws":
        return
    listed = listed or {"endpoints": {}}
    # A service that is not listed has the default form, shown by one region.
    regions = listed["endpoints"] or {"us-east-1": {}}
    forms = set()
    for region, own in sorted(regions.items()):
        merged = {**partition["defaults"], **listed.get("defaults", {}), **own}
        scope = merged.get("credentialScope", {})
        is_region = region in partition["regions"]
        # Old names of variants (`fips-us-east-1`) are listed as regions; they have a host name of their own.
        if not is_region and not ("hostname" in own and "region" in scope):
            continue
        signing_region = scope.get("region", region)
        values = {"service": name, "region": region, "dnsSuffix": partition["dnsSuffix"]}
        names = [merged["hostname"], *([merged["sslCommonName"]] if is_region and "sslCommonName" in merged else [])]
        for template in names:
            host = template.format(**values).lower()
            if host.startswith("localhost"):
                continue
            form = host.replace(signing_region, "{region}")
            if form in forms:
                continue
            forms.add(form)
            signing_name = scope.get("service", metadata.get("signingName", name))
            for prefix in prefixes:
                # Some hosts have their operations' prefix already.
                if not host.startswith(("api.", "data.")):
                    yield prefix + host, signing_name, signing_region
                elif host.startswith(prefix):
                    yield host, signing_name, signing_region


def download(release: str, directory: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", directory, f"botocore=={release}"], check=True)
    [wheel] = directory.glob(f"botocore-{release}-*.whl")
    return wheel


def render() -> str:
    """Returns the file's text."""
    seen, lines = set(read_data()), []
    with tempfile.TemporaryDirectory() as directory:
        for release in RELEASES:
            rows = set(Release(download(release, Path(directory))).rows()) - seen
            seen |= rows
            lines += ["\t".join((*row, release)) for row in rows]
    head = (
        "# Endpoints of older botocores, written by integration/endpoints/older.py: host, signing name, signing "
        "region, and the\n# newest of these releases that has it.\n"
    )
    return head + "".join(line + "\n" for line in sorted(lines))


if __name__ == "__main__":
    OUTPUT.write_text(render())
