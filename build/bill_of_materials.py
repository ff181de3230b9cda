#!/usr/bin/env python3
"""Lists the contents of the filter and the refresher, from Cargo.lock: for each, a bill of materials in CycloneDX and
the texts of the licenses.

    dist/sigv4_filter.cdx.json          dist/sigv4_filter.licenses.txt
    dist/credential-refresher.cdx.json  dist/credential-refresher.licenses.txt

Packages that are only for builds or tests are not listed. The standard library is.
"""

import json
import platform
import re
import subprocess
import tomllib
import uuid
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CARGO = ["build/with-rust.sh", "cargo"]
ARTIFACTS = {
    "sigv4_filter": ("sigv4-filter", "wasm32-unknown-unknown"),
    "credential-refresher": ("credential-refresher", f"{platform.machine()}-unknown-linux-gnu"),
}


def main() -> None:
    rust = re.search(r"rustc (\S+)", output("build/with-rust.sh", "rustc", "--version"))[1]
    for artifact, (name, target) in ARTIFACTS.items():
        packages = linked_packages(name, target)
        [root] = [package for package in packages if package["name"] == name]
        # The project's own other packages are part of the program.
        packages = [root, *(package for package in packages if package["source"] is not None)]
        components = [component(package) for package in packages[1:]]
        components.append({
            "type": "library", "bom-ref": "std", "name": "std", "version": rust,
            "description": "The Rust standard library", "licenses": [{"expression": "MIT OR Apache-2.0"}],
        })  # fmt: skip
        main_component = {**component(root), "type": "application", "name": artifact}
        document = {
            "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
            "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
            "metadata": {"component": main_component}, "components": components,
        }  # fmt: skip
        # Derived from the content: the same input has the same number.
        document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(document, sort_keys=True)).urn
        write(f"{artifact}.cdx.json", json.dumps(document, indent=2) + "\n")
        write(f"{artifact}.licenses.txt", "\n".join(license_texts(package) for package in packages))


def linked_packages(name: str, target: str) -> list[dict]:
    """Returns the linked packages of `cargo metadata`, without build scripts' dependencies and procedural macros."""
    tree = output(
        *CARGO, "tree", "--locked", "--package", name, "--edges", "normal,no-proc-macro", "--target", target,
        "--prefix", "none", "--format", "{p}",
    )  # fmt: skip
    wanted = {tuple(line.split()[:2]) for line in tree.splitlines()}
    metadata = json.loads(output(*CARGO, "metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    linked = [package for package in metadata["packages"] if (package["name"], f"v{package['version']}") in wanted]
    return sorted(linked, key=lambda package: (package["name"], package["version"]))


def component(package: dict) -> dict:
    name, version = package["name"], package["version"]
    purl = f"pkg:cargo/{name}@{version}"
    described = {
        "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
        "licenses": [{"expression": (package["license"] or "").replace("/", " OR ")}],
    }  # fmt: skip
    if checksum := CHECKSUMS.get((name, version)):
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        described["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return described


def license_texts(package: dict) -> str:
    directory = Path(package["manifest_path"]).parent if package["source"] else REPOSITORY
    found = sorted(
        path for path in directory.iterdir()
        if path.is_file() and re.match(r"(?i)(licen[cs]e|copying|notice|copyright|unlicense)", path.name)
    )  # fmt: skip
    heading = f"{package['name']} {package['version']}: {package['license']}"
    texts = [path.read_text(errors="replace").strip() for path in found]
    if not texts:
        texts = [f"(without a text of its own; by {', '.join(package['authors']) or 'its authors'})"]
    return "\n\n".join([heading, "=" * len(heading), *texts]) + "\n"


def lock_checksums() -> dict[tuple[str, str], str]:
    packages = tomllib.loads((REPOSITORY / "Cargo.lock").read_text())["package"]
    return {(package["name"], package["version"]): package.get("checksum") for package in packages}


def output(*command: str) -> str:
    return subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True).stdout


def write(name: str, text: str) -> None:
    path = REPOSITORY / "dist" / name
    path.write_text(text)
    print(path.relative_to(REPOSITORY))


CHECKSUMS = lock_checksums()

if __name__ == "__main__":
    main()
