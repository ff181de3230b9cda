"""Kubernetes manifests: built with kustomize, and checked against the schemas in their packages."""

import importlib
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from integration.stack.process import REPOSITORY

from . import istio_extensions

MANIFESTS = REPOSITORY / "envoy"
ISTIO = MANIFESTS / "istio"
_KUBERNETES = "1.37"


class Invalid(Exception):
    """The API server would reject the manifest, or drop a part of it."""


def build(kustomization: Path) -> list[dict]:
    """Returns the manifests that `kubectl apply --kustomize` would send."""
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([kubectl, "kustomize", kustomization], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def check(manifest: dict) -> None:
    """Validates strictly: a field that the schema does not have is an error too."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    if group == "extensions.istio.io":
        schema = Draft202012Validator(istio_extensions.SPECS[manifest["kind"]])
        if problems := [f"{error.json_path}: {error.message}" for error in schema.iter_errors(manifest["spec"])]:
            raise Invalid("; ".join(problems))
    elif group.endswith(".istio.io"):
        # The models are generated from the custom resource definitions of Istio's release.
        module = importlib.import_module(f"cloudcoil.models.istio.{group.removesuffix('.istio.io')}.{version}")
        try:
            parsed = getattr(module, manifest["kind"]).model_validate(manifest)
        except ValidationError as error:
            raise Invalid(str(error)) from None
        kept = parsed.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if dropped := list(_missing(manifest, kept, manifest["kind"])):
            raise Invalid(f"no such field: {', '.join(dropped)}")
    else:
        try:
            kubernetes_validate.validate(manifest, _KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Invalid(str(error)) from None


def _missing(written, kept, place: str):
    # The models ignore unknown fields.
    if isinstance(written, dict):
        for key, value in written.items():
            if key not in kept:
                yield f"{place}.{key}"
            else:
                yield from _missing(value, kept[key], f"{place}.{key}")
    elif isinstance(written, list):
        for index, (value, other) in enumerate(zip(written, kept, strict=True)):
            yield from _missing(value, other, f"{place}[{index}]")
