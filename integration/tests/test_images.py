"""The contents of the images that `make image` writes to dist/."""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.stack.process import REPOSITORY
from integration.stack.proxy import WASM
from integration.stack.refresher import BINARY

DIST = REPOSITORY / "dist"
FILTER, ARTIFACT, REFRESHER = (
    DIST / f"{name}.oci.tar" for name in ("sigv4-filter", "sigv4-filter-artifact", "credential-refresher")
)
COMPRESSED_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
USER = 65532


@pytest.fixture(scope="module", autouse=True)
def built() -> dict[str, str]:
    return build()


def build() -> dict[str, str]:
    """Runs build/image.py; returns the digests of the manifests that it prints, by file."""
    subprocess.run([REPOSITORY / "build" / "bill_of_materials.py"], check=True, capture_output=True)
    done = subprocess.run([REPOSITORY / "build" / "image.py"], capture_output=True, text=True, check=True)
    return dict(line.split() for line in done.stdout.splitlines())


@dataclass
class Image:
    """An OCI image layout in a tar. Every blob's digest and size are checked on the way."""

    path: Path

    def __post_init__(self):
        with tarfile.open(self.path) as archive:
            self.files = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}
        assert self.json("oci-layout") == {"imageLayoutVersion": "1.0.0"}
        [self.descriptor] = self.json("index.json")["manifests"]
        self.manifest = json.loads(self.blob(self.descriptor))
        self.config = json.loads(self.blob(self.manifest["config"]))
        self.layers = [self.blob(layer) for layer in self.manifest["layers"]]

    def json(self, name: str):
        return json.loads(self.files[name])

    def blob(self, descriptor: dict) -> bytes:
        content = self.files[descriptor["digest"].replace("sha256:", "blobs/sha256/")]
        assert descriptor["size"] == len(content)
        assert descriptor["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        return content

    def unpacked(self, layer: int = 0) -> dict[str, tuple[tarfile.TarInfo, bytes | None]]:
        """Returns a layer's members by path."""
        assert self.manifest["layers"][layer]["mediaType"] == COMPRESSED_LAYER
        content = gzip.decompress(self.layers[layer])
        assert self.config["rootfs"]["diff_ids"][layer] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = archive.getmembers()
            return {each.name: (each, archive.extractfile(each).read() if each.isfile() else None) for each in members}


def test_the_filter_is_a_compat_image():
    image = Image(FILTER)

    assert image.manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert image.manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert image.manifest["annotations"]["module.wasm.image/variant"] == "compat"
    [(name, (_, content))] = image.unpacked().items()
    assert (name, content) == ("plugin.wasm", WASM.read_bytes())


def test_the_filter_is_an_artifact_too():
    image = Image(ARTIFACT)

    assert image.manifest["annotations"]["module.wasm.image/variant"] == "oci"
    assert [layer["mediaType"] for layer in image.manifest["layers"]] == [
        "application/vnd.module.wasm.config.v1+json",
        "application/vnd.module.wasm.content.layer.v1+wasm",
    ]
    assert json.loads(image.layers[0])["type"] == "envoy_proxy"
    assert image.layers[1] == WASM.read_bytes()


def test_the_refresher_has_what_it_needs_and_no_shell():
    image = Image(REFRESHER)
    files = {name: content for name, (entry, content) in image.unpacked().items() if entry.isfile()}

    assert image.config["config"]["User"] == f"{USER}:{USER}"
    assert files[image.config["config"]["Entrypoint"][0].removeprefix("/")] == BINARY.read_bytes()
    assert b"BEGIN CERTIFICATE" in files["etc/ssl/certs/ca-certificates.crt"]
    executable = {name for name, (entry, _) in image.unpacked().items() if entry.isfile() and entry.mode & 0o111}
    libraries = {name for name in executable if re.search(r"\.so(\.\d+)*$", name)}
    assert executable - libraries == {"usr/local/bin/credential-refresher"}
    notices = {name.split("/")[3] for name in files if name.endswith("/copyright")}
    assert notices >= {"libc6"}


def test_the_refresher_runs_in_its_root_file_system(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("chroot needs root")
    content = gzip.decompress(Image(REFRESHER).layers[0])
    root = tmp_path / "root"
    root.mkdir(mode=0o755)
    subprocess.run(["tar", "--extract", "--directory", root], input=content, check=True)

    command = ["chroot", f"--userspec={USER}:{USER}", root, "/usr/local/bin/credential-refresher", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.split()[0]) == (0, "credential-refresher"), done.stderr


def test_docker_loads_and_runs_the_refresher():
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine answers here")
    [entry] = Image(REFRESHER).json("manifest.json")
    [tag] = entry["RepoTags"]
    try:
        subprocess.run(["docker", "load", "--quiet", "--input", REFRESHER], check=True, capture_output=True)
        confined = ["--rm", "--read-only", "--network=none", "--cap-drop=ALL"]
        done = subprocess.run(
            ["docker", "run", *confined, tag, "--version"], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, f"credential-refresher {tag.partition(':')[2]}\n"), done.stderr
    finally:
        subprocess.run(["docker", "image", "rm", "--force", tag], capture_output=True, check=False)


def test_the_same_input_gives_the_same_images(built):
    before = {path: path.read_bytes() for path in (FILTER, ARTIFACT, REFRESHER)}

    assert build() == built
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("artifact", ["sigv4_filter", "credential-refresher"])
def test_the_bill_of_materials_names_all_that_is_linked(artifact):
    bill = json.loads((DIST / f"{artifact}.cdx.json").read_text())
    names = {component["name"] for component in bill["components"]}
    lock = {(name, version) for name, version in re.findall(
        r'\[\[package\]\]\nname = "(.*)"\nversion = "(.*)"', (REPOSITORY / "Cargo.lock").read_text()
    )}  # fmt: skip

    assert bill["bomFormat"] == "CycloneDX"
    assert {"serde_json", "sha2", "std"} <= names
    assert "sigv4-core" not in names
    assert ("clap" in names) == (artifact == "credential-refresher")
    # Procedural macros and test dependencies are not inside.
    assert not names & {"serde_derive", "proptest", "criterion"}
    for component in bill["components"]:
        if component["name"] != "std":
            assert (component["name"], component["version"]) in lock
            assert component["hashes"], component
        assert component["licenses"][0]["expression"], component


@pytest.mark.parametrize("artifact", ["sigv4_filter", "credential-refresher"])
def test_the_licenses_of_all_that_is_linked_come_with_it(artifact):
    bill = json.loads((DIST / f"{artifact}.cdx.json").read_text())
    texts = (DIST / f"{artifact}.licenses.txt").read_text()

    for component in bill["components"]:
        if component["name"] != "std":
            assert f"{component['name']} {component['version']}: " in texts
    assert len(texts) > 100_000
