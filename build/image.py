#!/usr/bin/env python3
"""Builds the container images, without a container engine: the same input produces the same bytes.

    dist/sigv4-filter.oci.tar               the filter as a Wasm image in the "compat" form, an image of one layer
    dist/sigv4-filter-artifact.oci.tar      the same in the "oci" form, with media types of its own
    dist/credential-refresher.oci.tar       the refresher with its runtime files, and nothing else

Each is an OCI image layout; `docker load` also accepts the refresher's. SOURCE_DATE_EPOCH sets the time of all files,
by default the last commit's.

The two forms of a Wasm image: https://github.com/solo-io/wasm/tree/master/spec
"""

import gzip
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import tarfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DIST = REPOSITORY / "dist"
# The user "nonroot" of distroless images.
USER = 65532
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

OCI = "application/vnd.oci.image."
MANIFEST, CONFIG, LAYER = OCI + "manifest.v1+json", OCI + "config.v1+json", OCI + "layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
WASM_CONFIG = "application/vnd.module.wasm.config.v1+json"
WASM_LAYER = "application/vnd.module.wasm.content.layer.v1+wasm"


def main() -> None:
    project = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["package"]
    version, created = project["version"], source_date()
    labels = {
        "org.opencontainers.image.created": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "org.opencontainers.image.description": project["description"],
        "org.opencontainers.image.licenses": licenses("sigv4_filter"),
        "org.opencontainers.image.title": "sigv4-filter",
        "org.opencontainers.image.version": version,
    }
    wasm = (DIST / "sigv4_filter.wasm").read_bytes()
    filter_layer = layer({"plugin.wasm": (0o644, wasm)}, created)
    # A module has no architecture; the field is required.
    filter_config = config("wasm", "wasip1", {"Labels": labels}, [filter_layer], labels)
    write_layout(
        DIST / "sigv4-filter.oci.tar", f"sigv4-filter:{version}", created, filter_config,
        [(LAYER, filter_layer)], {**labels, "module.wasm.image/variant": "compat"},
    )  # fmt: skip
    write_layout(
        DIST / "sigv4-filter-artifact.oci.tar", f"sigv4-filter:{version}", created, b"{}",
        [(WASM_CONFIG, encoded({"type": "envoy_proxy", "abiVersions": ["v0.2.1"], "config": {"root_ids": [""]}})),
         (WASM_LAYER, wasm)], {**labels, "module.wasm.image/variant": "oci"}, config_type=EMPTY,
    )  # fmt: skip

    labels = {
        **labels,
        "org.opencontainers.image.licenses": licenses("credential-refresher"),
        "org.opencontainers.image.title": "credential-refresher",
    }
    refresher_layer = layer(refresher_files(), created)
    execution = {
        "Entrypoint": ["/usr/local/bin/credential-refresher"],
        "Env": ["PATH=/usr/local/bin", f"SSL_CERT_FILE={CERTIFICATES}"],
        "Labels": labels,
        "User": f"{USER}:{USER}",
        "WorkingDir": "/",
    }
    architecture = ARCHITECTURES[platform.machine()]
    refresher_config = config(architecture, "linux", execution, [refresher_layer], labels)
    write_layout(
        DIST / "credential-refresher.oci.tar", f"credential-refresher:{version}", created, refresher_config,
        [(LAYER, refresher_layer)], labels,
    )  # fmt: skip


def source_date() -> int:
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "-C", REPOSITORY, "log", "-1", "--format=%ct"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit("image: no commit to take the time from; set SOURCE_DATE_EPOCH")
    return int(done.stdout)


def licenses(artifact: str) -> str:
    """Returns one SPDX expression for all contents of a bill of materials."""
    components = json.loads((DIST / f"{artifact}.cdx.json").read_text())["components"]
    expressions = {entry["expression"] for component in components for entry in component["licenses"]}
    return " AND ".join(["Apache-2.0", *sorted(f"({e})" if " " in e else e for e in expressions - {"Apache-2.0"})])


def refresher_files() -> dict[str, tuple[int, bytes]]:
    """Returns the binary, its libraries, certificates, and the texts of all their licenses."""
    binary = DIST / "credential-refresher"
    files = {
        "usr/local/bin/credential-refresher": (0o755, binary.read_bytes()),
        str(CERTIFICATES)[1:]: (0o644, CERTIFICATES.read_bytes()),
        "etc/nsswitch.conf": (0o644, b"hosts: files dns\n"),
        "etc/passwd": (0o644, f"nonroot:x:{USER}:{USER}::/:/sbin/nologin\n".encode()),
        "etc/group": (0o644, f"nonroot:x:{USER}:\n".encode()),
        "usr/share/doc/credential-refresher/LICENSE": (0o644, (REPOSITORY / "LICENSE").read_bytes()),
    }
    for name in ("credential-refresher.cdx.json", "credential-refresher.licenses.txt"):
        files[f"usr/share/doc/credential-refresher/{name}"] = (0o644, (DIST / name).read_bytes())
    linked = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+) \(0x", linked):
        path = Path(library)
        files[library[1:]] = (0o755, path.read_bytes())
        package = owner(path)
        notice = Path(f"/usr/share/doc/{package}/copyright")
        files[str(notice)[1:]] = (0o644, notice.read_bytes())
    return files


def owner(library: Path) -> str:
    """Returns the Debian package of a library. If /lib is a link to /usr/lib, dpkg knows it by one of two names."""
    real = library.resolve()
    for name in (library, real, str(real).removeprefix("/usr")):
        found = subprocess.run(["dpkg", "--search", name], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return found.stdout.partition(":")[0]
    raise SystemExit(f"image: {library} belongs to no Debian package, so its license is unknown")


def layer(files: dict[str, tuple[int, bytes]], created: int) -> bytes:
    """Returns an uncompressed tar of files by path, with their modes, and their directories."""
    directories = {str(parent) for path in files for parent in Path(path).parents if str(parent) != "."}
    entries = {**{directory: (0o755, None) for directory in directories}, **files}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, (mode, content) in sorted(entries.items()):
            add(archive, path, content, created, mode)
    return buffer.getvalue()


def add(archive: tarfile.TarFile, path: str, content: bytes | None, created: int, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path)
    entry.mtime, entry.mode = created, mode
    if content is None:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    else:
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


def config(architecture: str, system: str, execution: dict, layers: list[bytes], labels: dict) -> bytes:
    created = labels["org.opencontainers.image.created"]
    return encoded({
        "architecture": architecture, "os": system, "created": created, "config": execution,
        "rootfs": {"type": "layers", "diff_ids": [digest(content) for content in layers]},
        "history": [{"created": created, "created_by": "build/image.py"} for _ in layers],
    })  # fmt: skip


def write_layout(
    path: Path, name: str, created: int, config: bytes, layers: list[tuple[str, bytes]], annotations: dict,
    config_type: str = CONFIG,
) -> None:  # fmt: skip
    """Writes an OCI image layout of one image as a tar. Layers with a compressed type are compressed."""
    layers = [(kind, gzip.compress(data, mtime=0) if kind.endswith("+gzip") else data) for kind, data in layers]
    manifest = encoded({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(config_type, config),
        "layers": [descriptor(kind, data) for kind, data in layers],
        "annotations": annotations,
    })  # fmt: skip
    index = {
        "schemaVersion": 2, "mediaType": OCI + "index.v1+json",
        "manifests": [{**descriptor(MANIFEST, manifest), "annotations": {
            "org.opencontainers.image.ref.name": name.partition(":")[2],
        }}],
    }  # fmt: skip
    files = {"oci-layout": encoded({"imageLayoutVersion": "1.0.0"}), "index.json": encoded(index)}
    for blob in (manifest, config, *(data for _, data in layers)):
        files[blob_path(blob)] = blob
    if config_type == CONFIG:
        # For `docker load` of engines that do not know the layout.
        paths = [blob_path(data) for _, data in layers]
        files["manifest.json"] = encoded([{"Config": blob_path(config), "RepoTags": [name], "Layers": paths}])
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for directory in ("blobs", "blobs/sha256"):
            add(archive, directory, None, created, 0o755)
        for file, content in sorted(files.items()):
            add(archive, file, content, created)
    print(f"{path.relative_to(REPOSITORY)}  {digest(manifest)}")


def encoded(document: dict | list) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def descriptor(media_type: str, content: bytes) -> dict:
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def blob_path(content: bytes) -> str:
    return digest(content).replace("sha256:", "blobs/sha256/")


if __name__ == "__main__":
    main()
