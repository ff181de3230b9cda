"""docs/security.md, sentence by sentence: what holds each one, and the tests of those that no other file holds.

A section here is a section of the page. A sentence that changes there has to change here, with its tests.
"""

import hashlib
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from integration.harness import aws_chunked, probe_wasm, raw
from integration.harness.claims import Claim, Without, differences, missing_tests, untested_promises
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.manifests import MANIFESTS
from integration.harness.policies import api_route, policy, s3_route
from integration.harness.wasm_host import WasmHost
from integration.stack.client import curl, http2
from integration.stack.process import REPOSITORY, wait_until
from integration.stack.proxy import WASM

PAGE = (REPOSITORY / "docs" / "security.md").read_text()
PROMISE, CONTROL, PROTECTION = Without.PROMISE, Without.CONTROL, Without.PROTECTION

# Security

SECURITY = [
    Claim(
        "Where the secret is, who is trusted with what, and what an attacker in the app, on the node or in "
        "the policy can do.",
        PROMISE,
    ),
]

# Where the secret is

WHERE_THE_SECRET_IS = [
    Claim("place | what is there | for how long", PROMISE),
    Claim(
        "credential-refresher's memory | the credentials it renews | until they are replaced and wiped, "
        "except for what [libraries keep](operations.md#secrets)",
        "secrets_that_were_replaced_are_gone_from_memory",
    ),
    Claim(
        "the wire between refresher and proxy | one push | a Unix socket of mode 0600, or TLS with "
        "certificates on both sides",
        "test_the_socket_is_for_its_owner_alone",
        "test_plain_http_is_refused_with_the_cure",
        "test_a_port_is_supplied_with_certificates_that_are_read_again",
    ),
    Claim(
        "Envoy's memory | shared data of the `vm_id`, and a copy in each worker's virtual machine | until "
        "a newer push, a `DELETE`, 30 seconds after the last listener with the policy has drained, or "
        "Envoy's end",
        "test_a_push_replaces_what_was_held",
        "test_credentials_of_a_policy_that_is_gone_can_be_deleted_immediately",
        "test_credentials_go_when_the_last_policy_goes",
        "test_an_envoy_that_restarts_holds_nothing",
    ),
    Claim(
        "The secret key is nowhere else: not in the policy, in Envoy's configuration or its admin "
        "interface, in a log of either program at any level, in an error, in a metric, in an environment "
        "variable or an argument that this project sets, or on disk.",
        "test_the_secret_is_in_no_file_argument_variable_or_answer",
        "test_no_level_of_the_filters_log_shows_a_token_and_envoys_own_debug_log_does",
        "no_secret_is_logged_at_any_level_whatever_goes_wrong",
        "refusals_name_the_member_and_never_its_value",
    ),
    Claim(
        "`GET /v1/identities` shows access key ids and expiries.",
        "test_lists_what_the_policy_wants",
        "the_listing_has_the_shape_of_the_contract",
    ),
    Claim(
        "The session token and the signature are in each signed request, and so in Envoy's own debug log: "
        "see [what logs hold](#what-logs-hold).",
        "test_no_level_of_the_filters_log_shows_a_token_and_envoys_own_debug_log_does",
    ),
    Claim(
        "The app needs no credential.",
        "test_curl_puts_and_reads_an_object",
        "test_an_object_is_put_read_listed_and_deleted",
    ),
    Claim(
        "Others may still give it one: with a sidecar, EKS mounts the token of IRSA or Pod Identity into "
        "every container of the pod, and this token suffices for the role.",
        CONTROL,
    ),
    Claim(
        "The pod's annotation `eks.amazonaws.com/skip-containers` can exclude the app's container; with an "
        "[egress gateway](istio.md#where-the-credentials-are), the app's pod gets none.",
        "test_the_application_gets_no_token_of_the_role",
    ),
    Claim(
        "Whoever can read Envoy's or the refresher's memory (root, a debugger of the same user, a core "
        "dump) can read the secret.",
        PROTECTION,
    ),
    Claim(
        "Run both as a user of their own, and disable core dumps.",
        PROMISE,
    ),
]


def test_the_secret_is_in_no_file_argument_variable_or_answer(start_proxy, api, configuration):
    """The secret key is nowhere else: not in [...] Envoy's configuration or its admin interface [...] or on disk."""
    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)
    proxy.push(TEMPORARY_KEY)
    assert proxy.request("/api").status == 200
    secret = TEMPORARY_KEY.secret_key.encode()
    process = Path("/proc", str(proxy.envoy.process.pid))
    directories = (proxy.envoy.process.log_path.parent, proxy.socket.parent)
    files = [path for directory in directories for path in directory.rglob("*") if path.is_file()]
    assert len(files) >= 2
    pages = re.findall(r"^  (/\w+)(?=[ :])", proxy.envoy.admin("/help"), re.MULTILINE)
    readable = [page for page in pages if page in {"/certs", "/clusters", "/config_dump", "/listeners", "/runtime",
                                                   "/server_info", "/stats", "/init_dump", "/memory"}]  # fmt: skip
    assert len(readable) >= 8
    places = {str(path): path.read_bytes() for path in [*files, process / "cmdline", process / "environ"]}
    places |= {page: proxy.envoy.admin(page).encode() for page in readable}
    places["identities"] = proxy.intake("/v1/identities").body
    places["status"] = proxy.intake("/v1/status").body

    assert not [place for place, content in places.items() if secret in content]
    # Where it is, it would be found.
    assert memory_has(process, secret)


def memory_has(process: Path, text: bytes) -> bool:
    with (process / "mem").open("rb", buffering=0) as memory:
        for line in (process / "maps").read_text().splitlines():
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            if "rw" in line.split()[1] and end < 1 << 63:
                try:
                    memory.seek(begin)
                    if text in memory.read(min(end - begin, 1 << 28)):
                        return True
                except OSError:
                    continue
    return False


def test_no_shipped_file_sets_a_secret():
    """[...] in an environment variable or an argument that this project sets."""
    for path in MANIFESTS.rglob("*"):
        # The stand-in's test user is not AWS's: its keys are written down for everybody.
        if path.is_file() and path.parent.name != "aws":
            text = path.read_text(errors="replace")
            assert not re.search(r"aws_(secret_access_key|session_token)[\"']?\s*[:=]\s*\S", text, re.IGNORECASE), path


# What logs hold

WHAT_LOGS_HOLD = [
    Claim("log | at the stock level | with more", PROMISE),
    Claim(
        "the filter's lines, which are Envoy's `wasm` log | no secret key, session token or signature | "
        "none at `debug` and `trace` either",
        "test_no_level_of_the_filters_log_shows_a_token_and_envoys_own_debug_log_does",
    ),
    Claim(
        "Envoy's other lines | none | **at `debug`, the headers of each request: access key id, session "
        "token and signature; with `location: query`, a URL that anybody can use until it expires.** The "
        "secret key is in none",
        "test_no_level_of_the_filters_log_shows_a_token_and_envoys_own_debug_log_does",
    ),
    Claim(
        "the access log | the path without its query | depends on the format that you write: leave out the "
        "query, `authorization` and `x-amz-security-token`",
        "test_no_level_of_the_filters_log_shows_a_token_and_envoys_own_debug_log_does",
        "test_the_access_log_describes_a_request",
    ),
    Claim(
        "the refresher's | none | none at any level, except the standard error of a `credential_process` that fails",
        "no_secret_is_logged_at_any_level_whatever_goes_wrong",
        "what_a_broken_credential_process_prints_is_not_logged",
        "a_process_that_writes_without_an_end_is_cut_off",
        "test_nothing_of_a_secret_is_logged",
    ),
    Claim(
        "Envoy logs at debug with `-l debug`, or after `POST /logging?router=debug` on its admin interface.",
        "test_no_level_of_the_filters_log_shows_a_token_and_envoys_own_debug_log_does",
    ),
    Claim(
        "So in the stock configuration that interface is on a Unix socket, `/run/sigv4/admin.sock`, of "
        "mode 0600 in a directory of mode 0700: whoever may push credentials may use it as well.",
        "test_the_admin_interface_is_a_socket_of_its_user_alone",
        "test_the_folder_is_made_at_boot",
    ),
    Claim(
        "`127.0.0.1:9901` forwards `GET /stats/prometheus` and `GET /ready` to it, and nothing else, and "
        "only for the names `localhost`, `127.0.0.1` and `[::1]`.",
        "test_the_port_shows_the_statistics_and_readiness",
        "test_no_other_path_of_the_admin_interface_can_be_reached_over_tcp",
        "test_a_web_page_with_a_name_of_its_own_reads_no_statistics",
    ),
    Claim(
        "To see only the filter's lines, set the level of `wasm` alone: `--component-log-level wasm:debug`.",
        "test_the_filters_lines_alone_can_be_had_at_debug",
    ),
    Claim(
        "In a mesh, this project can't move the interface: Istio's is on `127.0.0.1:15000`, open to every "
        "container of the pod, and Envoy Gateway's is on `127.0.0.1:19000` of the proxy's pod.",
        CONTROL,
    ),
    Claim("Whoever reaches it and may read the proxy's log can read session tokens.", PROTECTION),
    Claim(
        "Give access to the log of a signing proxy only to those who may use its identities.",
        PROMISE,
    ),
]


def test_the_filters_lines_alone_can_be_had_at_debug(start_proxy, api, configuration):
    """To see only the filter's lines, set the level of `wasm` alone: `--component-log-level wasm:debug`."""
    configuration.envoy_arguments += ["--component-log-level", "wasm:debug"]
    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)
    proxy.push(TEMPORARY_KEY)
    assert proxy.request("/api").status == 200
    assert proxy.request("/nowhere").status == 404

    wait_until(lambda: "refused with NoRoute" in proxy.envoy.log, "the filter's line at debug")
    assert TEMPORARY_KEY.token not in proxy.envoy.log
    assert "[debug][router]" not in proxy.envoy.log


# Who is trusted

WHO_IS_TRUSTED = [
    Claim(
        "**Envoy's configuration** decides everything: which requests reach the signer, what the policy "
        "is, which filters come before it.",
        PROMISE,
    ),
    Claim("Whoever writes it can have anything signed that the credentials allow.", PROTECTION),
    Claim("**The policy** names the roles that the refresher assumes.", PROMISE),
    Claim(
        "`--allow-role` limits that on the refresher's side: a role that matches no pattern is never "
        "assumed, whoever wrote it into a policy, not even as a link of a `roleChain`.",
        "a_role_that_no_pattern_covers_is_never_assumed",
        "a_pattern_covers_every_role_of_a_chain",
        "test_a_role_that_is_not_allowed_is_not_assumed",
    ),
    Claim(
        "Once it or another `--allow-…` is given, the refresher's own credentials, `default`, are not "
        "pushed without `--allow-default`: they may assume every role that trusts them.",
        "the_base_identity_needs_a_permission_of_its_own_once_roles_are_bounded",
        "the_base_identity_is_not_given_to_who_may_have_roles_alone",
    ),
    Claim(
        "`--allow-session-name`, `--allow-external-id`, `--allow-source-identity` and `--allow-tag` limit "
        "the rest of a session.",
        "names_external_ids_source_identities_and_tags_of_a_session_can_be_bounded",
    ),
    Claim(
        "With `policyArns` and `sessionPolicy`, a route may do only a part of what its role may do.",
        "test_a_route_does_only_what_its_session_policies_allow_whatever_its_role_may",
        "sts_is_asked_for_all_that_the_policy_says_of_the_session",
    ),
    Claim(
        "**Callers of the intake** can replace or revoke credentials, not read them.",
        "test_no_answer_and_no_log_holds_a_secret",
        "test_a_revoked_key_is_not_used_any_more_and_taken_again_only_from_who_insists",
    ),
    Claim(
        "A caller is admitted over the Unix socket (the kernel checks the file's mode), with a client "
        "certificate that Envoy verified, or with a token whose SHA-256 is in the configuration; comparing "
        "digests takes the same number of instructions wherever they differ.",
        "a_caller_is_let_in_by_socket_certificate_or_listed_token",
        "test_intake.py::test_a_verified_client_certificate_lets_in",
        "test_over_the_network_nobody_else_is_let_in",
        "test_a_tokens_digest_takes_as_long_wherever_it_differs",
    ),
    Claim(
        "With client certificates, leave `trust_chain_verification` at its default: `ACCEPT_UNTRUSTED` "
        "admits certificates that nobody verified.",
        "test_a_certificate_that_envoy_takes_unverified_authenticates_nobody",
    ),
    Claim(
        "**The app** is trusted with what its routes' identities may do, and with nothing else.",
        "test_each_identity_signs_only_its_own_routes",
    ),
    Claim(
        "Anyone who reaches the traffic listener is the app, unless a route has `allowUnauthenticatedRequests: false` "
        "or `callers`.",
        "test_who_is_not_authenticated_is_refused_and_nothing_is_sent",
        "a_route_may_ask_for_authentication",
        "without_authentication_it_stays_401",
    ),
    Claim("The stock configuration listens on loopback.", "test_the_stock_configuration_listens_on_loopback"),
    Claim(
        "**Certificate authorities and token issuers** decide who a [caller](policy.md#callers) is.",
        "test_the_most_exact_route_signs",
        "test_the_claims_of_a_verified_token_choose_the_role",
    ),
    Claim(
        "Envoy's usual validation lets each CA that it trusts issue any name, so list only CAs that may name every "
        "caller; for several trust domains, Envoy's SPIFFE validator binds each to CAs of its own.",
        "test_envoys_spiffe_validator_binds_a_trust_domain_to_its_authority",
    ),
    Claim(
        "As above, `ACCEPT_UNTRUSTED` admits names that nobody verified.",
        "test_a_certificate_that_envoy_takes_unverified_authenticates_nobody",
    ),
    Claim("A provider of `jwt_authn` without `issuer` accepts any `iss` that its keys have signed.", CONTROL),
]


def test_a_tokens_digest_takes_as_long_wherever_it_differs():
    """[...] comparing digests takes the same number of instructions wherever they differ."""
    token = b"a token that is listed"
    digest = hashlib.sha256(token).digest()

    def instructions(listed: bytes) -> int:
        host = WasmHost(WASM, {"intake": {"tokenSha256": [listed.hex()]}}, {}, counts_instructions=True)
        before = host.instructions
        request = [(b":method", b"GET"), (b":path", b"/v1/status"), (b":authority", b"intake"), (b":scheme", b"http"),
                   (b"authorization", b"Bearer " + token)]  # fmt: skip
        assert host.send(request).reply.status == (503 if listed == digest else 401)
        return host.instructions - before

    # The first call of a machine has less to do where a digest's text is shorter: all of these are 64 digits.
    differing = [bytes([*digest[:place], digest[place] ^ 1, *digest[place + 1 :]]) for place in (0, 1, 15, 30, 31)]
    assert len({instructions(other) for other in [*differing, bytes(32), b"\xff" * 32]}) == 1


def test_the_stock_configuration_listens_on_loopback(configuration):
    """The stock configuration listens on loopback."""
    for listener in configuration.document["static_resources"]["listeners"]:
        address = listener["address"]
        assert "pipe" in address or address["socket_address"]["address"] == "127.0.0.1"


# The virtual machine

THE_VIRTUAL_MACHINE = [
    Claim(
        "The filter can only make the host calls that Envoy gives it.",
        "test_the_list_is_what_the_filter_imports_and_exports",
    ),
    Claim(
        "The stock configurations list those that it makes, and the callbacks that Envoy makes "
        "(`capability_restriction_config`): other code in its place could not open a connection of its "
        "own, nor call Envoy's foreign functions.",
        "test_every_stock_configuration_has_the_list",
        "test_other_code_in_the_filters_place_calls_nothing_else",
    ),
    Claim("It could still read the credentials, so pin the image by its digest.", PROMISE),
    Claim(
        "Istio's WasmPlugin and TrafficExtension have no field for the list.",
        "test_every_stock_configuration_has_the_list",
    ),
    Claim(
        "If the list lacks one of them, Envoy or the filter refuses, or no harm is done, with one "
        "exception: without `proxy_on_request_headers`, Envoy does not ask the filter, and every request "
        "without a body passes unsigned.",
        "test_without_any_of_them_nothing_leaves_unsigned",
    ),
    Claim("Signer and intake have the same list.", "test_every_stock_configuration_has_the_list"),
    Claim(
        "Up to Envoy 1.39, two plugins with the same `vm_id` and code share a machine, which has the list "
        "of the one that was configured first; from 1.40 on, another list creates another machine.",
        "test_the_first_plugins_list_is_the_machines_up_to_envoy_1_39",
    ),
    Claim(
        "From 1.40 on, which warns that the plugin's field is deprecated, the list may be in `vm_config` instead.",
        "test_envoy_takes_the_list_where_it_knows_the_field",
    ),
    Claim(
        "**A plugin with the filter's `vm_id` reads the credentials.",
        "test_a_plugin_with_the_filters_vm_id_reads_the_secret_and_no_other_does",
    ),
    Claim(
        "Shared data belongs to the `vm_id`, whatever the code, on any listener of the same Envoy.",
        "test_a_plugin_with_the_filters_vm_id_reads_the_secret_and_no_other_does",
    ),
    Claim(
        "A plugin with another `vm_id` reads none of it.",
        "test_a_plugin_with_the_filters_vm_id_reads_the_secret_and_no_other_does",
    ),
    Claim("configuration | `vm_id` | who could add a plugin that shares it | how to prevent it", PROMISE),
    Claim(
        "`envoy/envoy.yaml`, compose | `sigv4` | whoever writes Envoy's configuration | the file's owner and mode",
        PROTECTION,
    ),
    Claim(
        "`envoy/istio/base` | `sigv4` | whoever may write EnvoyFilters in the pod's namespace or in "
        "`istio-system` | RBAC: give nobody but the mesh's operators `create`, `update` and `patch` on "
        "`envoyfilters`; have an admission policy refuse a `vm_id` of `sigv4` in all others",
        PROTECTION,
    ),
    Claim(
        "`envoy/istio/traffic-extension`, `envoy/istio/wasm-plugin` | empty | whoever may write TrafficExtensions or "
        "WasmPlugins there, as they have the same, empty `vm_id` | the same for `trafficextensions` and "
        "`wasmplugins`; or `base/`, whose `vm_id` none of them can have",
        "test_what_a_traffic_extension_has_no_field_for_is_seen",
        "test_a_wasm_plugin_shares_credentials_with_the_intake_and_streams_to_s3",
        "test_a_plugin_with_the_filters_vm_id_reads_the_secret_and_no_other_does",
    ),
    Claim(
        "`envoy/gateway` | `envoyextensionpolicy/aws-egress/sigv4/wasm/0` | whoever may write "
        "EnvoyPatchPolicies in `aws-egress`; another EnvoyExtensionPolicy has a `vm_id` of its own name | "
        "RBAC on `envoypatchpolicies`, and on the policy `sigv4` itself",
        PROTECTION,
    ),
]

# What a request can't do

WHAT_A_REQUEST_CANT_DO = [
    Claim(
        "**Leave its target's path.",
        "dot_segments_are_refused_in_every_spelling",
        "test_a_path_that_could_leave_its_target_is_refused",
        "nothing_that_is_sent_can_be_read_as_a_path_outside_of_its_target",
    ),
    Claim(
        "A path is refused with 400 before it is matched against anything if it has a `.` or `..` segment "
        "in any spelling that an upstream may see after decoding once: raw, percent-encoded, between `/`, "
        "`\\`, `%2f` or `%5c`, or followed by `;`, `?`, `#` or NUL.",
        "dot_segments_are_refused_in_every_spelling",
        "test_a_path_that_could_leave_its_target_is_refused",
        "nothing_that_is_sent_can_be_read_as_a_path_outside_of_its_target",
        "test_dot_segments_in_every_spelling_are_refused",
    ),
    Claim(
        "Malformed escapes and raw control characters are refused too.",
        "what_two_parsers_would_read_in_two_ways_is_refused",
        "test_control_characters_in_a_path_are_refused",
    ),
    Claim(
        "A doubly encoded dot, decoded once, is not a dot.",
        "what_only_looks_like_a_dot_segment_passes",
        "test_what_only_looks_like_a_dot_segment_is_signed",
        "escapes_are_decoded_once",
    ),
    Claim(
        "**Get past a stricter route by spelling.",
        "test_no_spelling_is_signed_for_another_route_than_an_upstream_may_see",
        "the_route_of_every_reading_is_found_or_the_path_is_refused",
    ),
    Claim(
        "Prefixes are compared segment by segment, percent-decoded: `/a/%61dmin` takes the route of `/a/admin`.",
        "segments_are_compared_decoded",
    ),
    Claim(
        "Upstreams read other spellings in different ways, so such a path is looked up in every way that "
        "one may read it: as written; with `%2F`, or `%5C` and `\\`, as slashes; with empty segments "
        "dropped; with path parameters dropped, a segment ending at `;`, `?`, `#` or NUL, raw or encoded; "
        "and with several of these, in any order.",
        "test_no_spelling_is_signed_for_another_route_than_an_upstream_may_see",
        "the_route_of_every_reading_is_found_or_the_path_is_refused",
        "a_path_has_the_readings_of_the_upstreams",
    ),
    Claim(
        "If they lead to different routes, or one of them to none, the request is refused with 400.",
        "a_spelling_that_an_upstream_may_read_as_the_strict_route_is_refused",
        "a_path_that_one_reading_takes_to_no_route_is_refused",
    ),
    Claim(
        "With `unmatched: pass`, a path that is refused for its dot segments or escapes passes, unsigned, "
        "only if none of these readings has a route, with its dot segments resolved once or not.",
        "test_a_path_that_is_refused_passes_unsigned_only_if_no_reading_has_a_route",
        "a_path_that_is_refused_is_looked_for_in_every_reading",
    ),
    Claim(
        "The same rule applies to prefixes: one that an upstream may read as another's (`/a%2Fb` beside "
        "`/a`) is refused when the policy loads.",
        "a_prefix_with_several_readings_stands_alone_below_and_above_them",
        "a_prefix_is_read_like_the_path_that_begins_with_it",
    ),
    Claim(
        "A route that Envoy's own route names in its metadata is chosen by Envoy's matching, and a host "
        "pattern with a port matches only requests that name the port: list the name without it for the "
        "others.",
        "test_a_named_route_takes_paths_that_do_not_begin_with_its_prefix",
        "the_patterns_of_an_authority_are_those_that_match_it",
    ),
    Claim("Not covered: an upstream that decodes twice, or ignores case, or Unicode forms.", PROTECTION),
    Claim("Give such an upstream one route.", PROMISE),
    Claim(
        "**Reach another object through S3's copy headers.",
        "an_object_of_another_bucket_or_path_is_refused",
        "test_an_object_outside_of_the_route_is_refused",
    ),
    Claim(
        "`x-amz-copy-source` and `x-amz-rename-source` make S3 read the object that they name.",
        "test_these_are_all_the_headers_by_which_s3_names_an_object",
    ),
    Claim(
        "It has to be one that a request on the same route could name by its path: in the target's bucket, "
        "under its path, and not one that a stricter route takes, in each form that S3 takes.",
        "an_object_of_another_bucket_or_path_is_refused",
        "test_an_object_outside_of_the_route_is_refused",
        "a_source_that_a_stricter_route_takes_is_refused",
        "an_object_under_the_targets_bucket_and_path_passes_in_every_form",
    ),
    Claim(
        "An access point's ARN passes if the target is that access point, or the whole endpoint.",
        "an_access_point_is_reached_by_its_arn_alone",
    ),
    Claim(
        "Outside of AWS, the policy's `s3Domain` says whether a host name begins with a bucket; without "
        "it, such headers are refused.",
        "outside_of_aws_the_policy_says_where_the_bucket_is",
    ),
    Claim(
        "A bucket that any route of the policy names in its `hosts` is that route's, whatever the region.",
        "a_bucket_that_another_route_names_in_any_region_is_that_routes",
    ),
    Claim(
        "With `signing.scope: client` these rules hold for every service, as the client names it.",
        "test_a_client_that_names_the_service_does_not_switch_the_check_off",
    ),
    Claim(
        "With `signing.redirect` they apply to the first request; in the one that follows, S3 refuses such "
        "a header, as it is not signed.",
        "test_the_copy_headers_of_a_redirected_request_are_checked",
    ),
    Claim(
        "Headers sent twice are refused, and so are query parameters of these names, which S3 reads in presigned URLs.",
        "test_a_copy_header_that_is_sent_twice_is_refused",
        "test_a_presigned_urls_form_of_the_header_is_refused",
        "a_header_in_the_query_is_refused_in_every_spelling",
    ),
    Claim(
        "**Choose its upstream.",
        "test_a_client_can_not_choose_the_upstream_cluster",
        "test_a_client_can_not_choose_plain_http",
    ),
    Claim(
        "With a target, scheme, host and port come from the policy alone.",
        "test_a_client_can_not_choose_the_upstream_cluster",
        "test_a_client_can_not_choose_plain_http",
        "test_whatever_host_the_client_names_the_targets_is_signed",
    ),
    Claim(
        "The header by which the stock configuration distinguishes http targets from https ones, "
        "`x-sigv4-upstream`, is set only by the signer.",
        "test_a_client_can_not_choose_the_upstream_cluster",
        "test_a_client_can_not_choose_plain_http",
        "test_a_client_can_not_choose_plain_http_over_http2",
    ),
    Claim(
        "If a client sends one, it is removed before Envoy chooses a route by it, also from requests that "
        "pass unsigned; in a configuration that does not remove it, the filter refuses the request with "
        "400.",
        "test_a_client_can_not_choose_the_upstream_cluster",
        "test_a_client_can_not_choose_plain_http",
        "test_headers_that_would_take_the_signature_off_or_lead_elsewhere",
        "test_a_client_does_not_choose_the_metadata_by_the_header_of_the_signer",
    ),
    Claim(
        "A route without a target keeps the request's own authority, and its `hosts` limit which that can be.",
        "without_a_target_the_requests_own_authority_is_signed_for",
        "test_a_route_without_a_target_keeps_its_own_hosts",
    ),
    Claim(
        "**Be sent in clear text.",
        "test_an_https_target_is_reached_over_tls_with_its_name_checked",
        "test_no_host_is_signed_for_without_tls",
        "test_nothing_signed_leaves_through_istios_pass_through_cluster",
    ),
    Claim(
        "What is signed is sent over TLS, including the session token, unless the policy itself says "
        '`http` in a target or `"upstreamTls": false`.',
        "test_an_https_target_is_reached_over_tls_with_its_name_checked",
        "test_no_host_is_signed_for_without_tls",
        "test_nothing_signed_leaves_through_istios_pass_through_cluster",
        "the_upstream_has_tls_unless_the_policy_says_otherwise",
    ),
    Claim("The filter can't see whether a cluster has TLS, so this rests on more than the filter:", PROTECTION),
    Claim("where | what guarantees it", PROMISE),
    Claim(
        "`envoy/envoy.yaml`, compose | Envoy: there are two routes, and the one to the cluster without TLS "
        "needs the header that only the signer sets",
        "test_a_client_can_not_choose_plain_http",
    ),
    Claim(
        "`envoy/istio/` | the manifests: the policy signs for listed hosts, each of which has a "
        "ServiceEntry and a DestinationRule that originates TLS. `envoy/check_hosts.py` compares them; a "
        "test runs it on every kustomization here",
        "test_no_host_is_signed_for_without_tls",
        "test_the_sidecar_signs_for_the_very_hosts_that_get_tls",
        "test_a_sidecar_signs_for_the_hosts_of_the_mesh_and_originates_tls",
    ),
    Claim(
        "`envoy/istio/`, a host that was forgotten there | the filter: for a route without a target, it "
        "checks which cluster Envoy chose, and refuses `PassthroughCluster` (500 `SigningFailed`)",
        "test_a_signed_host_that_the_mesh_has_no_tls_for_is_refused",
        "test_nothing_signed_leaves_through_istios_pass_through_cluster",
    ),
    Claim(
        "`envoy/gateway/` | the manifests, likewise: HTTPRoute, Backend and BackendTLSPolicy. A host "
        "without a route gets 404 from Envoy",
        "test_the_gateway_signs_and_originates_tls",
        "test_a_host_of_envoy_gateway_that_is_signed_without_tls_is_found",
    ),
    Claim(
        "Not covered by the filter: a ServiceEntry of your own without TLS, and, in a mesh, a route with a "
        "target whose host has no ServiceEntry, as Envoy chooses the cluster of a rewritten request only "
        "after the filter.",
        PROTECTION,
    ),
    Claim(
        "`check_hosts.py` finds both, and VirtualServices and subsets that send a signed host elsewhere "
        "without TLS, in the manifests that it is given.",
        "test_the_check_sees_what_is_wrong",
        "test_a_host_that_is_signed_without_tls_is_found",
    ),
    Claim(
        "It sees neither those of other repositories nor EnvoyFilters.",
        PROTECTION,
    ),
    Claim(
        "**Be sent unsigned where the policy says sign.",
        "no_failing_call_lets_a_request_pass_unsigned",
        "test_a_virtual_machine_that_died_refuses_until_a_new_one_runs",
    ),
    Claim(
        "A request goes on after a successful signature, or because the policy or, with "
        "`routeMetadata`, Envoy's route lets it pass, and for no other reason.",
        "no_failing_call_lets_a_request_pass_unsigned",
        "no_failing_call_sends_a_redirected_request_on",
        "no_failing_call_authenticates_a_client",
        "a_request_that_no_route_takes_is_refused_or_passes_as_the_policy_says",
    ),
    Claim(
        "A failed host call, a missing credential, an unreadable header, a virtual machine that failed: "
        "each ends in a refusal, or in a request that waits until it times out.",
        "no_failing_call_lets_a_request_pass_unsigned",
        "test_without_credentials_nothing_is_sent",
        "test_without_any_of_them_nothing_leaves_unsigned",
        "test_a_virtual_machine_that_died_refuses_until_a_new_one_runs",
    ),
    Claim(
        "The stock configuration sets `failure_policy: FAIL_RELOAD`, which refuses until a new machine runs.",
        "test_a_virtual_machine_that_died_refuses_until_a_new_one_runs",
    ),
    Claim(
        "Envoy's routes can disable signing in their metadata only under a policy with "
        '`"routeMetadata": true`; whoever may write them then decides that.',
        "test_where_signing_is_off_requests_pass_untouched",
        "test_a_policy_that_does_not_ask_for_the_metadata_decides_alone_and_warns",
    ),
    Claim(
        "Otherwise such metadata is ignored, with a warning in the log and the metric `sigv4_ignored_route_metadata`.",
        "test_a_policy_that_does_not_ask_for_the_metadata_decides_alone_and_warns",
    ),
    Claim(
        "**Bring a signature of its own in its headers or query.",
        "a_signature_of_the_client_gives_way",
        "test_what_the_client_sends_of_the_signatures_headers_gives_way",
    ),
    Claim(
        "`authorization`, `x-amz-date`, `x-amz-security-token`, `x-amz-content-sha256`, "
        "`x-amz-region-set`, `x-amz-s3session-token` and the query parameters of presigning are dropped "
        "before signing; to S3, those of Signature Version 2 too if all three are there.",
        "a_signature_of_the_client_gives_way",
        "test_what_the_client_sends_of_the_signatures_headers_gives_way",
        "presigning_parameters_of_the_client_are_left_out",
        "a_query_presigned_with_version_2_is_left_out_for_s3",
        "test_the_region_set_of_the_client_is_dropped",
        "test_the_signatures_headers_of_a_client_go_where_the_signature_has_none",
    ),
    Claim(
        "A body with signatures that can't be replaced (signed events, SigV4A chunks) is refused at its "
        "headers with 400.",
        "test_signed_events_are_refused_in_every_mode",
        "test_signed_chunks_can_not_be_signed_so_and_are_refused",
        "signatures_in_a_body_that_can_not_be_replaced_are_refused_in_every_mode",
    ),
    Claim(
        "Trailers are not inspected: an HTTP/2 upstream gets them unchanged.",
        "test_trailers_go_on_to_an_http2_upstream_as_they_came",
    ),
    Claim(
        "A form with a policy and a signature of its own (S3's POST uploads) is a body like any other.",
        "test_a_form_with_a_signature_of_its_own_is_a_body_like_any_other",
    ),
    Claim(
        "**Pass off a hash of its own as Envoy's.",
        "test_envoy_hashes_the_body_and_the_client_can_not",
    ),
    Claim(
        'With `"payload": "envoy"`, the signer reads the hash of the body from dynamic metadata alone, '
        "which Envoy's configuration sets.",
        "test_a_hash_in_any_header_is_not_envoys",
        "the_hash_by_envoy_is_signed_where_the_route_asks_for_it_and_the_clients_never",
    ),
    Claim(
        "`envoy/hasher.yaml` removes the client's header before Envoy hashes.",
        "test_envoy_hashes_the_body_and_the_client_can_not",
        "test_a_body_that_ends_with_trailers_is_hashed_by_the_signer",
    ),
    Claim(
        "If there is no hash there, the signer hashes the body: if it ends with trailers, if the matcher "
        "skips the request, or if the hasher is missing.",
        "test_a_body_that_ends_with_trailers_is_hashed_by_the_signer",
        "test_what_the_matcher_skips_is_hashed_by_the_signer",
        "test_without_a_part_of_the_hasher_no_hash_of_the_client_is_signed",
    ),
    Claim(
        "The hasher has no credentials, not even with `AWS_*` in Envoy's environment: it signs nothing and "
        "adds no header.",
        "test_the_hasher_signs_nothing_and_adds_no_header",
    ),
    Claim(
        "**Silence the probes, so that the kubelet restarts a gateway.",
        "a_probe_is_answered_whatever_strangers_hold",
        "a_probe_is_answered_while_strangers_connect_again_and_again",
    ),
    Claim(
        "Whoever reaches the refresher's `--listen` may hold and open any number of connections: a probe "
        "is still answered, and the manifests' NetworkPolicies let only Prometheus's namespace reach the "
        "port.",
        "a_probe_is_answered_whatever_strangers_hold",
        "a_probe_is_answered_while_strangers_connect_again_and_again",
        "test_the_kubelet_alone_and_prometheus_reach_the_probes_port",
    ),
    Claim(
        "No answer of a source, and no unread log, stops the supply: see [the limits](operations.md#limits).",
        "an_answer_without_an_end_is_cut_off",
        "a_process_that_hangs_is_ended_with_all_that_it_started",
        "lines_that_nobody_reads_are_dropped_and_counted_and_the_supply_goes_on",
    ),
    Claim("**Fill the disk with log lines.", "test_clients_can_not_fill_the_log"),
    Claim(
        "A refusal is a line at debug, which Envoy does not write by default.",
        "test_a_refusal_is_one_line_at_debug_and_none_at_info",
    ),
    Claim(
        "A warning or error of one kind is written at most once a second by each worker; the next one says "
        "how many were omitted.",
        "test_clients_can_not_fill_the_log",
        "one_of_a_kind_is_written_in_a_second_and_the_next_tells_how_many_were_left_out",
    ),
    Claim("Envoy's access log has a line for each request.", "test_the_access_log_describes_a_request"),
    Claim("**Be signed for as another caller.", "test_the_most_exact_route_signs"),
    Claim(
        "A route with `callers` takes only a client whose verified certificate has such a name, or whose verified "
        "token has such claims, and refuses all others with 403, or with 401 if Envoy has verified nothing.",
        "test_a_certificate_with_another_name_is_refused",
        "test_a_certificate_of_another_authority_gets_nowhere",
        "test_the_claims_of_a_verified_token_choose_the_role",
        "test_a_token_that_is_not_verified_has_no_claims",
        "test_without_a_certificate_nobody_is_a_caller",
    ),
    Claim(
        "A name is compared as a whole: `*` in a SPIFFE id stands for one segment of letters, digits, `-`, `.` and "
        "`_`.",
        "a_wildcard_stands_for_one_whole_segment",
        "a_dns_name_and_another_uri_are_matched_whole",
    ),
    Claim(
        "The first URI and the first DNS name of a certificate count, and no other.",
        "test_only_the_first_uri_counts",
    ),
    Claim(
        "All claims are read from one token.",
        "a_token_is_admitted_by_issuer_and_claims_of_one_payload",
    ),
    Claim(
        "A caller whom two routes admit equally is refused.",
        "test_a_caller_of_two_teams_is_admitted_by_neither_route",
        "a_caller_whom_two_routes_admit_equally_is_admitted_by_none",
        "routes_that_could_not_be_told_apart_are_refused",
    ),
    Claim("A property that can't be read admits nobody.", "a_caller_who_can_not_be_read_is_not_admitted"),
    Claim(
        "A placeholder in a role takes only letters, digits and `_+=,.@-` of a caller, none of which ends a part of an "
        "ARN; others get 403.",
        "a_value_that_could_change_an_arn_is_refused",
        "a_callers_value_that_makes_no_role_is_refused",
        "test_a_claim_names_the_role",
    ),
    Claim(
        "A client can't choose another caller's route by its spelling of the path or by a header, nor can Envoy's "
        "route metadata: it selects the prefix and host, and the caller decides among their routes.",
        "no_spelling_of_the_path_and_no_metadata_chooses_among_callers",
        "test_without_a_certificate_nobody_is_a_caller",
    ),
    Claim(
        "**Write what it likes into the access log as its name.",
        "test_the_access_log_names_a_tokens_subject_without_control_characters",
    ),
    Claim(
        "The caller's name there has up to 256 visible ASCII characters.",
        "a_text_is_short_and_visible",
        "test_the_access_log_names_a_tokens_subject_without_control_characters",
    ),
    Claim(
        "It is no label of a metric.",
        "test_the_access_log_names_caller_and_identity_and_the_metrics_neither",
    ),
    Claim(
        "**Claim to be authenticated.",
        "test_what_a_client_claims_of_itself_counts_nothing",
        "test_a_certificate_that_is_only_claimed_counts_nothing",
    ),
    Claim(
        "`allowUnauthenticatedRequests: false` looks at the connection's verified client certificate and "
        "at the payload that `jwt_authn` keeps in its dynamic metadata (`payload_in_metadata`).",
        "test_authentication.py::test_a_verified_client_certificate_lets_a_request_through",
        "test_a_verified_token_lets_a_request_through_and_stays_behind",
        "test_the_reason_of_a_failed_token_in_the_metadata_is_no_authentication",
    ),
    Claim(
        "No header is consulted.",
        "test_what_a_client_claims_of_itself_counts_nothing",
        "test_a_certificate_that_is_only_claimed_counts_nothing",
    ),
]


def test_a_copy_header_that_is_sent_twice_is_refused(start_proxy, s3):
    """Headers sent twice are refused."""
    proxy = start_proxy(policy({"/dir": s3_route(s3, "/mine/dir")}))
    proxy.push(TEMPORARY_KEY)
    once = ("x-amz-copy-source", "/mine/dir/from")

    assert proxy.request("/dir/to", "PUT", headers=[once]).status == 200
    assert proxy.request("/dir/to", "PUT", headers=[once, once]).status == 400
    assert len(s3.received) == 1


def test_the_copy_headers_of_a_redirected_request_are_checked(start_proxy, s3):
    """With `signing.redirect` they apply to the first request; in the one that follows, S3 refuses such a header."""
    by_redirect = {"location": "query", "redirect": True}
    proxy = start_proxy(policy({"/dir": s3_route(s3, "/mine/dir", signing=by_redirect)}))
    proxy.push(TEMPORARY_KEY)
    elsewhere = {"x-amz-copy-source": "/other-bucket/secret"}

    assert proxy.request("/dir/to", "PUT", headers=elsewhere).status == 400
    redirect = proxy.request("/dir/to", "PUT")
    assert redirect.status == 307
    assert curl(redirect.headers["location"], "PUT", headers=elsewhere).status == 403
    assert s3.last.refusal == "present but not signed: x-amz-copy-source"
    assert curl(redirect.headers["location"], "PUT").status == 200


def test_a_virtual_machine_that_died_refuses_until_a_new_one_runs(start_proxy, api, configuration, tmp_path):
    """The stock configuration sets `failure_policy: FAIL_RELOAD`, which refuses until a new machine runs."""
    configuration.signer["vm_config"]["code"]["local"]["filename"] = str(probe_wasm.mortal(tmp_path / "mortal.wasm"))
    # Other code, which signs nothing: what is not refused arrives, wherever it was to go.
    configuration.lead_https_to(api.port)
    proxy = start_proxy(None, configuration, concurrency=1)
    proxy.envoy.expects_dead_vm = "the test asks it to die"
    proxy.request("/api/x")
    assert len(api.received) == 1

    assert proxy.request("/die").status == 503
    assert proxy.request("/api/x").status == 503
    assert len(api.received) == 1

    def arrives() -> bool:
        proxy.request("/api/x")
        return len(api.received) == 2

    wait_until(arrives, "a new machine")


def test_trailers_go_on_to_an_http2_upstream_as_they_came(start_proxy, configuration):
    """Trailers are not inspected: an HTTP/2 upstream gets them unchanged."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as threads:
        received = threads.submit(one_http2_request, server)
        port = server.getsockname()[1]
        configuration.lead_https_to(port)
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        configuration.cluster("https")["typed_extension_protocol_options"] = {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
        proxy = start_proxy(policy({"/sqs": "https://sqs.eu-west-1.amazonaws.com"}), configuration)
        proxy.push(TEMPORARY_KEY)
        trailers = [("x-amz-date", "20200101T000000Z"), ("authorization", "AWS4-HMAC-SHA256 of the client")]

        assert http2(proxy.port, "POST", "/sqs", body=b"a body", trailers=trailers).status == 200

        headers, sent = received.result(timeout=10)
    assert TEMPORARY_KEY.access_key in dict(headers)["authorization"]
    assert sent == trailers


def one_http2_request(server: socket.socket) -> tuple[list, list]:
    """The headers and the trailers of one request, which is answered with 200."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    headers, trailers = [], []
    tcp, _ = server.accept()
    with tcp:
        tcp.settimeout(10)
        ended = False
        while not ended:
            tcp.sendall(connection.data_to_send())
            for event in connection.receive_data(tcp.recv(65536)):
                match event:
                    case h2.events.RequestReceived():
                        headers = event.headers
                    case h2.events.TrailersReceived():
                        trailers = event.headers
                    case h2.events.StreamEnded():
                        connection.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
                        ended = True
        tcp.sendall(connection.data_to_send())
        # Until the proxy has read the answer and closes, too.
        tcp.shutdown(socket.SHUT_WR)
        while tcp.recv(65536):
            pass
    return headers, trailers


def test_a_form_with_a_signature_of_its_own_is_a_body_like_any_other(start_proxy, s3):
    """A form with a policy and a signature of its own (S3's POST uploads) is a body like any other."""
    proxy = start_proxy(policy({"/bucket": s3_route(s3, "/mine", payload="signed")}))
    proxy.push(TEMPORARY_KEY)
    fields = {"policy": "eyJ9", "x-amz-signature": "0" * 64, "x-amz-credential": "of/the/client", "file": "text"}
    form = "".join(f'--b\r\ncontent-disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items())
    body = f"{form}--b--\r\n".encode()

    response = proxy.request("/bucket/", "POST", headers={"content-type": "multipart/form-data; boundary=b"}, body=body)

    assert response.status == 200, s3.last.refusal
    assert s3.last.request.body == body


# Exhaustion

EXHAUSTION = [
    Claim(
        "What a client can make the proxy keep is bounded, so that a flood leaves room for others:",
        "test_a_flood_leaves_the_requests_of_others_untouched",
    ),
    Claim("a flood of | is bounded by", PROMISE),
    Claim(
        "bodies that never end, headers, stalled chunks, requests that wait for credentials | "
        "`maxHeldRequests` and `maxHeldBytes` for each worker; past them 503 `Overloaded`",
        "test_a_flood_leaves_the_requests_of_others_untouched",
        "a_worker_holds_as_many_requests_as_it_may_and_signs_others_all_the_same",
        "a_worker_holds_as_many_bytes_as_it_may",
    ),
    Claim(
        "large bodies | the same, and 413 past the listener's `per_connection_buffer_limit_bytes`",
        "test_a_flood_leaves_the_requests_of_others_untouched",
        "test_a_body_that_outgrows_the_buffer_gets_413_and_is_not_sent",
    ),
    Claim(
        "bodies that Envoy's hasher holds | the clients that the matcher of `envoy/hasher.yaml` names, by "
        "default those of this machine. They can fill Envoy's memory; the bodies of others are held by the "
        "signer, within its bounds",
        "test_bodies_of_clients_that_may_not_fill_the_memory_fit_a_sidecar",
    ),
    Claim(
        "headers that HPACK compressed | `max_concurrent_streams: 100`, in the stock configuration, "
        "compose, the egress gateway of Istio and Envoy Gateway. A sidecar has Envoy's own bound: its only "
        "client is its pod, and the setting would also apply to its connections to other services",
        "test_a_connection_has_a_hundred_requests_at_a_time",
    ),
    Claim(
        "callers that each need a role of their own | `maxCallerIdentities`; past them 503 `Overloaded`. A caller "
        "that came within two minutes keeps its place, unless its role has not come for half a minute",
        "a_flood_of_callers_takes_no_place_of_those_in_use_and_makes_room_for_others",
        "an_identity_whose_credentials_do_not_come_makes_room_though_it_is_used",
    ),
    Claim(
        "names of hosts, on a route without a target or where requests pass | a separate resolver and "
        "cluster in the stock configuration, with 1,024 names; the policy's targets have others. The "
        "filter state `wasm.sigv4.host` is `policy` for the latter",
        "test_many_names_of_clients_leave_targets_reachable",
        "test_a_client_can_not_say_whose_its_host_is",
    ),
    Claim("log lines | see above", PROMISE),
    Claim(
        "A V8 virtual machine is limited to 1 GiB, which such floods would fill without a bound.",
        CONTROL,
    ),
    Claim(
        "With the defaults and two workers, of 300 uploads that stall in a chunk of 1 MiB, 62 are held, "
        "the others are refused, and Envoy grows by less than 200 MiB; of 4,000 requests with 54,600 bytes "
        "of headers each, 1,224 are held.",
        "test_of_a_flood_as_much_is_held_as_the_defaults_say",
    ),
    Claim(
        "Requests that need not be held are answered meanwhile.", "test_of_a_flood_as_much_is_held_as_the_defaults_say"
    ),
    Claim(
        "`integration/tests/test_overload.py` sends each kind of flood ten times over its bound, and "
        "checks that requests that need not be held, and one that was held before, are answered as usual.",
        "test_a_flood_leaves_the_requests_of_others_untouched",
    ),
    Claim(
        "An honest request that has to be held gets 503 while a flood fills the bound.",
        "test_what_is_too_much_is_refused_with_a_time_to_try_again",
    ),
    Claim(
        "`make soak` mixes floods below the bound with honest load, of which a quarter has to be held, and "
        "rotating credentials, with a full disk for the access log and a clock that jumps by four minutes "
        "in either direction: no honest request was lost, and Envoy grew by 27 MiB.",
        "integration/soak/__main__.py",
    ),
    Claim("**File descriptors.", CONTROL),
    Claim(
        "An Envoy that has none left keeps answering requests on its open connections; new connections "
        "wait in the kernel until others close.",
        "integration/soak/exhaustion.py",
    ),
    Claim("But a request that needs a new connection to its upstream gets 503 from Envoy.", CONTROL),
    Claim(
        "Where strangers reach the listener, limit connections to less than half of the descriptors (`ulimit -n`), "
        "with Envoy's `global_downstream_max_connections`.",
        CONTROL,
    ),
    Claim("**A clock that jumps.", CONTROL),
    Claim(
        "Requests are signed with the time of Envoy's clock, which AWS accepts if it is off by less than "
        "five minutes, and credentials that have expired by that clock are not used: if it jumps forwards "
        "by more than the rest of a session, requests get 503 `NoCredentials` until it is corrected.",
        "integration/soak/clock.py",
    ),
    Claim(
        "What Envoy keeps of requests that are not held, Envoy itself has to bound.",
        CONTROL,
    ),
    Claim(
        "It decodes all headers of a read before it frees any: in one measurement, 20,000 concurrent "
        "requests with 54,600 bytes of headers over 200 connections briefly took 540 MiB, although most "
        "were refused.",
        CONTROL,
    ),
    Claim(
        "Where strangers reach the listener, set Envoy's [overload "
        "manager](https://www.envoyproxy.io/docs/envoy/latest/configuration/operations/overload_man"
        "ager/overload_manager), a connection limit, and a lower `max_request_headers_kb`.",
        PROMISE,
    ),
]


STALLED_CHUNK = b"100000;chunk-signature=" + b"0" * 64 + b"\r\n" + bytes((1 << 20) - 1)
STALLED_UPLOAD = (
    raw.http1_head(
        "PUT /s3/bucket/key HTTP/1.1",
        f"Content-Length: {len(STALLED_CHUNK) + 3 + 88}",
        f"x-amz-decoded-content-length: {1 << 20}",
        f"x-amz-content-sha256: {aws_chunked.SIGNED}",
    )
    + STALLED_CHUNK
)
LARGE_HEADERS = [(b"x-a", b"v" * 3900)] * 14


def stalled_uploads(port: int, count: int):
    return raw.http1_flood(port, STALLED_UPLOAD, count)


FLOODS = {
    "uploads": ("/s3", 300, 62, stalled_uploads),
    "headers": ("/api", 4000, 1224, lambda port, count: raw.http2_heads(port, b"/api/x", LARGE_HEADERS, count)),
}


@pytest.mark.parametrize(("route", "count", "held", "flood"), FLOODS.values(), ids=FLOODS)
def test_of_a_flood_as_much_is_held_as_the_defaults_say(start_proxy, api, s3, route, count, held, flood):
    """With the defaults and two workers, of 300 uploads [...], 62 are held, [...] of 4,000 requests [...] 1,224."""
    proxy = start_proxy(policy({"/api": api_route(api), "/s3": s3_route(s3, payload="unsigned")}))
    proxy.push(TEMPORARY_KEY)
    assert proxy.request("/api").status == 200
    before = resident_mib(proxy.envoy.process.pid)

    def refused() -> int:
        return proxy.envoy.stat(f"wasmcustom.sigv4.requests;route={route};outcome=Overloaded")

    with flood(proxy.port, count):
        wait_until(lambda: refused() >= count - held, "the flood to be refused", 60)
        assert proxy.request("/api").status == 200
        # Counts are published with a second's delay.
        time.sleep(2)
        assert refused() == count - held
        if flood is stalled_uploads:
            assert resident_mib(proxy.envoy.process.pid) - before < 200


def resident_mib(pid: int) -> int:
    return int(re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1]) >> 10


def test_a_connection_has_a_hundred_requests_at_a_time(proxy):
    """The stock listener's `max_concurrent_streams: 100`."""
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as tcp:
        tcp.sendall(connection.data_to_send())
        connection.receive_data(tcp.recv(65536))

    assert connection.remote_settings.max_concurrent_streams == 100


# Web pages

WEB_PAGES = [
    Claim(
        "A browser on the same machine can reach loopback addresses for any page that it shows.",
        CONTROL,
    ),
    Claim(
        "Two things in the stock configurations (`envoy/envoy.yaml`, compose; the demo has the first) keep "
        "pages of other sites from having requests signed:",
        PROMISE,
    ),
    Claim(
        "**`hosts`** on each route with a target: `localhost`, `127.0.0.1`, `[::1]`, on any port; in "
        "compose `envoy`, too.",
        "test_programs_on_this_machine_are_served",
        "test_only_the_service_name_of_compose_is_taken_beside_loopback",
    ),
    Claim(
        "A page whose own name is made to resolve to this machine (DNS rebinding) sends that name as "
        "`host` and gets 404 `NoRoute`.",
        "test_a_name_that_was_led_to_this_machine_finds_no_route",
        "test_a_foreign_host_in_the_request_line_finds_no_route",
    ),
    Claim(
        "Routes without a target match the AWS names that they list.",
        "test_a_route_without_a_target_keeps_its_own_hosts",
    ),
    Claim(
        "A policy without `hosts` matches every name.",
        "test_whatever_host_the_client_names_the_targets_is_signed",
    ),
    Claim(
        "**The filter `web_pages`**, before the signer: 403 if `sec-fetch-site` is sent and is not "
        "`same-origin`, `same-site` or `none`, and if `origin` is sent and is not that of a loopback host; "
        "`null` is foreign.",
        "test_a_page_of_another_site_is_refused",
        "test_of_several_lines_one_of_another_site_counts",
        "test_a_header_sent_twice_and_a_websocket_are_refused_too",
    ),
    Claim("Clients that are not browsers send neither.", "test_own_pages_and_programs_are_served"),
    Claim(
        "`same-site` is allowed: for a loopback host, that is a page that this machine itself serves on another port.",
        "test_own_pages_and_programs_are_served",
    ),
    Claim(
        "A browser that sends no `sec-fetch-site` (Safari before 16.4) is stopped only at requests with an "
        "`origin`, which plain `GET`s lack; such a page can't read the answer.",
        CONTROL,
    ),
    Claim(
        "If the proxy has other names, add them to `hosts` and to the expression for `origin`.",
        PROMISE,
    ),
    Claim(
        "The port of the statistics answers only loopback names.",
        "test_a_web_page_with_a_name_of_its_own_reads_no_statistics",
    ),
]

# What remains

WHAT_REMAINS = [
    Claim(
        "**A hostile policy** can have everything signed that its identities may do, for any target, and "
        "send it there with the session token.",
        PROTECTION,
    ),
    Claim(
        "With `default` it can route to STS and assume, as the app, every role that trusts the refresher's "
        "own credentials; with a role, every role that trusts that one (`sts:AssumeRole` in its "
        "permissions).",
        PROTECTION,
    ),
    Claim(
        "Bound it with `--allow-role`, leave `--allow-default` out, give the roles no `sts:AssumeRole`, "
        "and protect Envoy's configuration like the credentials.",
        PROTECTION,
    ),
    Claim(
        "**An attacker in the app** can use the routes it can reach, any number of times, and with "
        "`signing.redirect` or a query location it gets presigned URLs that hold for `expiresSeconds`.",
        PROTECTION,
    ),
    Claim(
        "It can't take the credentials away.",
        "test_the_secret_is_in_no_file_argument_variable_or_answer",
        "test_over_the_network_nobody_else_is_let_in",
        "test_the_socket_is_for_its_owner_alone",
    ),
    Claim(
        "Give each app its own roles, and each role few permissions.",
        PROMISE,
    ),
    Claim(
        "**An attacker on the network** between Envoy and AWS meets TLS, whose certificate is checked "
        "against the target's host.",
        "test_an_https_target_is_reached_over_tls_with_its_name_checked",
    ),
    Claim(
        "An `http` target has no such protection: the signature keeps the request from being changed (with "
        "`payload: signed`, the body too), not from being read.",
        "test_a_byte_changed_between_envoy_and_the_upstream_is_refused",
    ),
    Claim(
        "**An upstream that lies about the time** in a refusal, or a cache on the way that does not say "
        "that it answers, can have requests to this host signed for up to 24 hours ahead or back.",
        "test_a_clock_more_than_a_day_off_is_not_followed",
        "test_nothing_is_learned_from_a_refusal_out_of_a_cache",
    ),
    Claim(
        "It learns nothing from that, and other hosts are not affected.",
        "test_other_hosts_keep_their_own_clock",
    ),
    Claim(
        "The differences of 1,024 hosts are kept, and no metric is made for a host that a client chose.",
        "the_hosts_of_a_mesh_do_not_fill_the_memory",
        "test_hosts_that_clients_choose_share_one_gauge",
    ),
    Claim(
        "**A chunked upload** is signed as it streams: if its framing turns out to be malformed, part of "
        "it has been sent; the rest never is, and the upstream's stream is reset.",
        "test_malformed_framing_cuts_off_what_went_upstream",
    ),
    Claim(
        "S3 stores nothing of an incomplete body.",
        "test_malformed_framing_ends_the_request_and_stores_nothing",
    ),
    Claim(
        "**A `payload: unsigned` body** can be changed by whoever can change the connection: over TLS, nobody.",
        "test_the_mode_decides_what_is_signed",
    ),
]

# The page itself

SECTIONS = {
    "Security": SECURITY,
    "Where the secret is": WHERE_THE_SECRET_IS,
    "What logs hold": WHAT_LOGS_HOLD,
    "Who is trusted": WHO_IS_TRUSTED,
    "The virtual machine": THE_VIRTUAL_MACHINE,
    "What a request can't do": WHAT_A_REQUEST_CANT_DO,
    "Exhaustion": EXHAUSTION,
    "Web pages": WEB_PAGES,
    "What remains": WHAT_REMAINS,
}
CLAIMS = [claim for section in SECTIONS.values() for claim in section]


def test_every_sentence_of_the_page_is_carried_here():
    assert not differences(PAGE, SECTIONS)


@pytest.mark.parametrize("sentence", ["A request can't fly.", "It never leaves.", "| who | no secret |"])
def test_a_sentence_that_is_added_to_the_page_is_missed(sentence):
    for heading in SECTIONS:
        added = PAGE.replace(f"# {heading}\n", f"# {heading}\n\n{sentence}\n\n", 1)
        [difference] = differences(added, SECTIONS)
        assert difference.endswith(sentence.strip("| ")), heading


@pytest.mark.parametrize("section", SECTIONS)
def test_what_holds_a_sentence_is_a_test_that_there_is(section):
    assert missing_tests(SECTIONS[section]) == []


def test_no_promise_goes_without_a_test():
    """What is said not to happen is held by a test, or it is somebody else's to keep."""
    assert untested_promises(CLAIMS) == []


def test_what_a_request_can_not_do_stays_on_the_page():
    """Each of its promises is the beginning of a paragraph; one that goes has to be taken from here, too."""
    bold = re.findall(
        r"^\*\*([^*]+)\*\*", PAGE.partition("## What a request can't do")[2].partition("\n## ")[0], re.MULTILINE
    )
    assert bold == [
        "Leave its target's path.",
        "Get past a stricter route by spelling.",
        "Reach another object through S3's copy headers.",
        "Choose its upstream.",
        "Be sent in clear text.",
        "Be sent unsigned where the policy says sign.",
        "Bring a signature of its own in its headers or query.",
        "Pass off a hash of its own as Envoy's.",
        "Silence the probes, so that the kubelet restarts a gateway.",
        "Fill the disk with log lines.",
        "Be signed for as another caller.",
        "Write what it likes into the access log as its name.",
        "Claim to be authenticated.",
    ]
