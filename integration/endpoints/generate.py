"""Writes src/core/tests/data/botocore-endpoints.tsv: every endpoint that botocore knows, with its signing name and
region; and botocore-unsigned-operations.tsv: its operations whose body is not signed.

    .venv/bin/python -m integration.endpoints.generate

`integration/tests/test_endpoint_data.py` fails if the file differs from the output for the botocore of
`requirements.txt`.

Two sources inside botocore are used, for every service, region and variant (plain, FIPS, dual-stack):

- the endpoint rule sets, which botocore resolves today, with the static parameters and host prefixes of each
  operation, and with the resources below for services that put a resource into the host name;
- `endpoints.json`, which older SDKs resolve, for the regions that it lists, its `sslCommonName`s included.

Omitted, as no request signed with SigV4 goes there: services that sign otherwise, operations without authentication,
regional hosts of a service that `endpoints.json` calls global, pseudo regions (`aws-global`) instead of a region, and
DynamoDB Local.
"""

import collections
import itertools
import re
from urllib.parse import urlsplit

import botocore
import botocore.session
from botocore.client import ClientEndpointBridge
from botocore.config import Config
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import EndpointProviderError, EndpointVariantError, UnknownServiceError

from integration.endpoints.data import DATA, UNSIGNED_OPERATIONS

ACCOUNT = "123456789012"

# Labels of hosts that are not AWS endpoints: pseudo regions, and DynamoDB Local.
UNREAL = re.compile(r"aws(-[a-z]+)*-global|localhost:8000")


def resources(service, region, partition):
    """Returns parameters that put a resource into the host name."""
    arn = f"arn:{partition}:%s:{region}:{ACCOUNT}:%s"
    by_account = {"AccountId": ACCOUNT, "AccountIdEndpointMode": "preferred"}
    return {
        "cloudfront-keyvaluestore": [{"KvsARN": f"arn:aws:cloudfront::{ACCOUNT}:key-value-store/store"}],
        "dynamodb": [by_account],
        "dynamodbstreams": [by_account],
        "eventbridgev2": [by_account],
        "events": [{"EndpointId": "abc123.456"}],
        "kinesis": [{"StreamARN": arn % ("kinesis", "stream/orders")}, by_account],
        "opensearchmemory": [{"SpaceId": "space1"}],
        "s3": [
            {"Bucket": "bucket"},
            {"Bucket": "bucket.with.dots"},
            {"Bucket": "bucket", "UseGlobalEndpoint": True},
            {"Bucket": "bucket", "Accelerate": True},
            {"Bucket": "bucket--use1-az4--x-s3", "DisableS3ExpressSessionAuth": True},
            {"Bucket": arn % ("s3", "accesspoint/point")},
            {"Bucket": arn % ("s3-object-lambda", "accesspoint/point")},
            {"Bucket": arn % ("s3-outposts", "outpost/op-01/accesspoint/point")},
            {"Bucket": f"arn:{partition}:s3::{ACCOUNT}:accesspoint/m1.mrap"},
            {"UseObjectLambdaEndpoint": True},
            {"UseS3ExpressControlEndpoint": True},
        ],
        "s3control": [
            {"AccountId": ACCOUNT, "RequiresAccountId": True},
            {"Bucket": arn % ("s3-outposts", "outpost/op-01/bucket/bucket"), "RequiresAccountId": True},
        ],
        "sesv2": [{"EndpointId": "abc123.456"}],
        "sts": [{"UseGlobalEndpoint": True}],
    }.get(service, [])


class Endpoints:
    def __init__(self):
        self.session = botocore.session.get_session()
        self.loader = self.session.get_component("data_loader")
        self.resolver = self.session.get_component("endpoint_resolver")
        self.partitions = self.loader.load_data("partitions")
        self.listed = {
            partition["partition"]: partition for partition in self.loader.load_data("endpoints")["partitions"]
        }
        self.regions = {
            partition["id"]: sorted(region for region in partition["regions"] if not region.endswith("-global"))
            for partition in self.partitions["partitions"]
        }

    def rows(self):
        """Returns (host, signing name, signing region) of everything that is signed with SigV4 or SigV4A."""
        found = set()
        for name in self.session.get_available_services():
            service = self.session.get_service_model(name)
            if service.signature_version in ("bearer", "v2"):
                continue
            for partition in self.regions:
                found.update(self.of_rule_set(service, partition))
                found.update(self.of_endpoints_json(service, partition))
        return sorted(row for row in found if not any(UNREAL.fullmatch(label) for label in row[0].split(".")))

    def of_rule_set(self, service, partition):
        try:
            rules = self.loader.load_service_model(service.service_name, "endpoint-rule-set-1")
        except UnknownServiceError:
            return
        provider = EndpointProvider(rules, self.partitions)
        operations = self.operations(service)
        for region in self.regions_of(service, partition):
            for fips, dual_stack in itertools.product((False, True), repeat=2):
                scope = self.scope(service, partition, region, fips, dual_stack)
                for extra, (static, prefixes) in itertools.product(
                    [{}, *resources(service.service_name, region, partition)], operations
                ):
                    parameters = {"Region": region, "UseFIPS": fips, "UseDualStack": dual_stack, **extra, **static}
                    try:
                        endpoint = provider.resolve_endpoint(**parameters)
                    except EndpointProviderError:
                        continue
                    host = urlsplit(endpoint.url).hostname
                    signed_for = self.signed_for(endpoint, scope)
                    # Rule sets that put a resource into the host name leave no place for a prefix.
                    for prefix in [""] if extra else prefixes:
                        yield (prefix + host, *signed_for)

    def of_s3_control(self):
        """Returns (name before the region, signing name) of the hosts of S3's control API."""
        express = {"UseS3ExpressControlEndpoint": True}
        found = set()
        for partition, regions in self.regions.items():
            for region, fips, dual_stack in itertools.product(regions, (False, True), (False, True)):
                variant = {"Region": region, "UseFIPS": fips, "UseDualStack": dual_stack}
                cases = [("s3", express), ("s3control", express), ("s3control", {})]
                cases += [("s3control", resource) for resource in resources("s3control", region, partition)]
                for service, parameters in cases:
                    rules = self.loader.load_service_model(service, "endpoint-rule-set-1")
                    try:
                        endpoint = EndpointProvider(rules, self.partitions).resolve_endpoint(**variant, **parameters)
                    except EndpointProviderError:
                        continue
                    name = urlsplit(endpoint.url).hostname.partition(f".{region}.")[0]
                    found.add((name, self.signed_for(endpoint, ("s3", region))[0]))
        return sorted(found)

    def of_endpoints_json(self, service, partition):
        listed = self.listed.get(partition, {"services": {}})["services"].get(service.endpoint_prefix)
        if listed is None:
            return
        for region, endpoint in listed["endpoints"].items():
            # Old names of variants (`fips-us-east-1`) are listed as regions; they have a host name of their own.
            is_region = region in self.regions[partition]
            if not is_region and not ("hostname" in endpoint and "region" in endpoint.get("credentialScope", {})):
                continue
            for fips, dual_stack in itertools.product((False, True) if is_region else (False,), repeat=2):
                try:
                    resolved = self.resolver.construct_endpoint(
                        service.endpoint_prefix,
                        region,
                        partition,
                        use_dualstack_endpoint=dual_stack,
                        use_fips_endpoint=fips,
                    )
                except EndpointVariantError:
                    continue
                name = resolved.get("credentialScope", {}).get("service", service.signing_name)
                signing_region = resolved.get("credentialScope", {}).get("region", region)
                yield (resolved["hostname"], name, signing_region)
                if is_region and "sslCommonName" in resolved:
                    yield (resolved["sslCommonName"], name, signing_region)

    def regions_of(self, service, partition):
        listings = {id: listed["services"].get(service.endpoint_prefix) for id, listed in self.listed.items()}
        if all(listing is None or listing.get("isRegionalized", True) for listing in listings.values()):
            return self.regions[partition]
        listing = listings.get(partition) or {"endpoints": {}}
        return sorted(r for r in listing["endpoints"] if r in self.regions[partition] or r == f"{partition}-global")

    @staticmethod
    def operations(service):
        """Returns the distinct static endpoint parameters of the service's signed operations, with their host
        prefixes."""
        prefixes = collections.defaultdict(set)
        for name in service.operation_names:
            operation = service.operation_model(name)
            if operation.auth == ["smithy.api#noAuth"] or operation.auth_type == "none":
                continue
            static = tuple(sorted((p.name, p.value) for p in operation.static_context_parameters))
            prefix = operation.endpoint["hostPrefix"] if operation.endpoint else ""
            prefixes[static].add(re.sub(r"\{[^}]*\}", "resource", prefix))
        return [(dict(static), sorted(hosts)) for static, hosts in sorted(prefixes.items(), key=repr)]

    def scope(self, service, partition, region, fips, dual_stack):
        """Returns a client's signing scope if the rule set has none."""
        bridge = ClientEndpointBridge(
            self.resolver,
            {},
            Config(use_fips_endpoint=fips, use_dualstack_endpoint=dual_stack),
            service_signing_name=service.signing_name,
            service_signature_version=service.signature_version,
        )
        try:
            resolved = bridge.resolve(service.endpoint_prefix, region)
        except EndpointVariantError:
            return service.signing_name, region
        # Entries missing in endpoints.json are looked up again in the commercial partition.
        known = resolved["metadata"].get("partition") == partition
        return service.signing_name, resolved["signing_region"] if known else region

    @staticmethod
    def signed_for(endpoint, scope):
        schemes = endpoint.properties.get("authSchemes", [])
        # If both SigV4 and SigV4A are accepted, SigV4 is the one to infer.
        for kind in ("sigv4", "sigv4-s3express", "sigv4a"):
            for scheme in schemes:
                if scheme["name"] == kind:
                    region = scheme.get("signingRegion") or ",".join(scheme.get("signingRegionSet", [])) or scope[1]
                    return scheme.get("signingName", scope[0]), region
        return scope


def render(endpoints):
    """Returns one line for all regions of a partition if they share a form, else one per host."""
    suffixes = sorted(
        {
            (partition["id"], partition["outputs"][key])
            for partition in endpoints.partitions["partitions"]
            for key in ("dnsSuffix", "dualStackDnsSuffix")
        }
    )
    forms = collections.defaultdict(lambda: collections.defaultdict(set))
    hosts = []
    for host, name, region in endpoints.rows():
        partition = next((id for id, regions in endpoints.regions.items() if region in regions), None)
        suffix = next((s for id, s in suffixes if id == partition and host.endswith("." + s)), None)
        if suffix is None or f".{region}." not in "." + host:
            hosts.append((host, name, region))
            continue
        head = ("." + host.removesuffix("." + suffix) + ".").replace(f".{region}.", ".{region}.").strip(".")
        forms[head, name][partition, suffix].add(region)

    lines = []
    for (head, name), groups in sorted(forms.items()):
        whole = []
        for (partition, suffix), regions in sorted(groups.items()):
            if regions == set(endpoints.regions[partition]):
                whole.append(f"{partition}:{suffix}")
            else:
                hosts.extend((f"{head}.{suffix}".replace("{region}", region), name, region) for region in regions)
        if whole:
            lines.append("\t".join((head, name, " ".join(whole))))

    yield f"# The endpoints of botocore {botocore.__version__}, written by integration/endpoints/generate.py. Lines:"
    yield "# partition, its regions"
    yield "# form of the host without its suffix, signing name, partition:suffix that have it for every region"
    yield "# host, signing name, signing region"
    yield "# name before the region in a host of S3's control API, signing name"
    yield "[partitions]"
    for partition, regions in endpoints.regions.items():
        yield f"{partition}\t{' '.join(regions)}"
    yield "[forms]"
    yield from lines
    yield "[hosts]"
    yield from ("\t".join(row) for row in sorted(hosts))
    yield "[s3 control]"
    yield from ("\t".join(row) for row in endpoints.of_s3_control())


def render_unsigned_operations(endpoints):
    """Returns a line for each operation whose body is not signed: signing name, method, and path with examples."""
    yield f"# The operations of botocore {botocore.__version__} whose body is not signed, written by"
    yield "# integration/endpoints/generate.py: signing name, method, path with an example for each parameter"
    found = set()
    for name in endpoints.session.get_available_services():
        service = endpoints.session.get_service_model(name)
        for operation in map(service.operation_model, service.operation_names):
            if operation.auth_type == "v4-unsigned-body" or operation.unsigned_payload:
                path = re.sub(r"\{\w+\+\}", "a/b", operation.http["requestUri"])
                found.add((service.signing_name, operation.http["method"], re.sub(r"\{\w+\}", "a", path)))
    yield from ("\t".join(row) for row in sorted(found))


if __name__ == "__main__":
    known = Endpoints()
    DATA.write_text("".join(line + "\n" for line in render(known)))
    UNSIGNED_OPERATIONS.write_text("".join(line + "\n" for line in render_unsigned_operations(known)))
