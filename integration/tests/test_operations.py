"""docs/operations.md, sentence by sentence: what holds each one. Of a table's row, its first cell stands for it.

The tables of options, metrics and log lines are compared with the program itself.
"""

import re
import socket
import subprocess

import pytest

from integration.harness.claims import Claim, Without, differences, missing_tests, untested_promises
from integration.stack.client import curl
from integration.stack.process import REPOSITORY, Process, wait_until
from integration.stack.refresher import BINARY

PAGE = (REPOSITORY / "docs" / "operations.md").read_text()
PROMISE, CONTROL, PROTECTION = Without.PROMISE, Without.CONTROL, Without.PROTECTION

# Running the refresher

RUNNING_THE_REFRESHER = [
    Claim(
        "`credential-refresher` needs no list of roles and keeps no state.",
        "a_refresher_that_is_killed_and_restarted_leaves_no_gap",
        "an_identity_that_a_new_policy_wants_is_supplied",
    ),
    Claim(
        "It asks each proxy which identities its policy requires, gets their credentials from AWS's "
        "provider chain and from STS, pushes them, and renews them after 30 to 50 % of their life.",
        "once_pushes_everything_that_the_policy_wants_and_exits_with_0",
        "renewal_comes_well_before_the_expiry_and_not_at_one_instant",
    ),
    Claim(
        "Roles are configured only in the policy.",
        "what_a_new_policy_wants_is_supplied_at_once_however_long_the_interval",
    ),
    Claim(
        "The refresher can be killed, restarted and upgraded at any time, as the proxy continues with what it holds.",
        "a_refresher_that_is_killed_and_restarted_leaves_no_gap",
    ),
]

# What AWS's SDKs take credentials from.
SOURCES = (
    "a_profile_that_assumes_a_role_from_another_that_assumes_one",
    "the_token_of_a_web_identity",
    "the_container_endpoint_of_ecs_and_eks_pod_identity",
    "the_keys_of_the_environment_with_their_session_token",
    "the_instance_metadata_of_ec2",
    "the_cached_token_of_a_single_sign_on",
)

# Options

OPTIONS = [
    Claim(
        "The `AWS_*` variables, shared config and credentials files, SSO, web identity, ECS, EKS Pod "
        "Identity and EC2 instance roles work as in any SDK.",
        *SOURCES,
    ),
    Claim(
        "IAM Roles Anywhere works through a `credential_process`.",
        "test_a_credential_process_means_what_it_means_to_botocore",
    ),
]

# Set-up

SET_UP = [
    Claim("It runs **as the user that Envoy runs as**.", PROMISE),
    Claim(
        "Over a Unix socket, it pushes credentials only to a listener of its own user or of root, and only "
        "if the socket is closed to other users and its directory is not writable for everybody.",
        "a_socket_that_others_can_open_or_replace_is_given_nothing",
    ),
    Claim(
        "Over a port, it needs TLS with certificates on both sides (`--proxy https://…`, `--proxy-ca`, "
        "`--client-cert`, `--client-key`): give the intake's listener a certificate for the name in the "
        "address, and a validation context with the CA of the refresher's certificate.",
        "a_port_needs_certificates",
        "credentials_go_to_nobody_who_has_not_shown_who_it_is",
        "test_plain_http_is_refused_with_the_cure",
    ),
    Claim(
        "The files are read again for every connection: rotated ones take effect without a restart.",
        "test_a_port_is_supplied_with_certificates_that_are_read_again",
    ),
    Claim(
        "AWS is set up as for any SDK.",
        *SOURCES,
    ),
    Claim(
        "The chain is evaluated again at every renewal, so a changed profile or key file is seen within a "
        "minute without a restart.",
        "a_process_that_rotates_and_a_changed_config_file",
    ),
    Claim(
        "A `credential_process` must not write secrets to its standard error, which is shown when it fails.",
        "a_process_that_writes_without_an_end_is_cut_off",
        "what_others_wrote_becomes_one_harmless_line",
    ),
    Claim("Several refreshers may supply one proxy.", "test_two_refreshers_do_not_take_turns"),
    Claim("Each pushes its new credentials once; nobody takes turns.", "test_two_refreshers_do_not_take_turns"),
    Claim(
        "SIGHUP checks every source and proxy again (`systemctl reload`); SIGTERM and SIGINT end the refresher.",
        "test_sighup_looks_again_and_sigterm_ends_it",
    ),
    Claim(
        "It writes nothing but its log, to standard error, with one exception: with SSO, the SDK stores a "
        "refreshed token in `~/.aws/sso/cache`, which must be writable (with the systemd unit: "
        "`ReadWritePaths=`).",
        "test_the_refresher_runs_in_its_root_file_system",
        "a_token_of_a_single_sign_on_that_has_to_be_refreshed",
    ),
    Claim(
        "It needs the system's CA certificates (`ca-certificates`), unless all endpoints are plain HTTP.",
        "test_an_sts_that_is_not_trusted_is_told_with_its_cure",
    ),
    Claim(
        "**The socket's directory.",
        PROMISE,
    ),
    Claim("`/run` is empty after a reboot.", CONTROL),
    Claim(
        "If systemd starts Envoy, the unit creates the directory:",
        PROMISE,
    ),
    Claim(
        "Otherwise, `envoy/systemd/tmpfiles.conf` creates it at boot, for a user named `envoy`:",
        "test_the_folder_is_made_at_boot",
    ),
    Claim(
        "**With systemd**: `envoy/systemd/credential-refresher.service`, and a configuration file instead of flags:",
        PROMISE,
    ),
    Claim(
        "**In a container**, the program is the entry point and its options are the arguments.",
        "test_the_refresher_has_what_it_needs_and_no_shell",
    ),
    Claim(
        "It runs as any user and with a read-only root file system:", "test_the_refresher_runs_in_its_root_file_system"
    ),
    Claim(
        "Run it as Envoy's user, and share the socket's directory with Envoy alone.",
        PROMISE,
    ),
    Claim(
        "Kubernetes opens an `emptyDir` to every user (mode 0777), in which the refresher pushes nothing: "
        "let an init container of the same user create a directory in it (`mkdir -m 700`), and put the "
        "socket there.",
        "a_socket_that_others_can_open_or_replace_is_given_nothing",
        "test_the_refresher_feeds_the_sidecar_over_the_pods_volume",
    ),
    Claim(
        "Use `/healthz` for the liveness probe and `/readyz` for the readiness probe: a restart fixes "
        "nothing that `/readyz` reports.",
        "test_a_pod_is_ready_that_can_sign_or_could_until_the_source_failed",
    ),
    Claim("As a sidecar, stop it after Envoy or with it.", PROMISE),
    Claim(
        "Envoy continues with what it holds, so the order matters little.",
        "a_refresher_that_is_killed_and_restarted_leaves_no_gap",
    ),
    Claim(
        "**What it uses**: 9 MiB of resident memory at its peak, with 20 roles over TLS, and 0.01 % of a "
        "processor between renewals, at the default interval.",
        "test_it_is_small_and_idle",
    ),
    Claim(
        "`integration/tests/test_refresher.py` measures that with the release build, and fails at 20 MiB or 1 %.",
        "test_it_is_small_and_idle",
    ),
    Claim(
        "**Many roles**: `integration/tests/test_many_roles.py` measures them with the release build, "
        "under `ulimit -n 64`.",
        "test_many_roles_are_supplied_in_little_memory_with_few_descriptors",
    ),
    Claim("roles", PROMISE),
    Claim("1,000, pushed", "test_many_roles_are_supplied_in_little_memory_with_few_descriptors"),
    Claim("10,000, pushed", "test_many_roles_are_supplied_in_little_memory_with_few_descriptors"),
    Claim("10,000, no STS", "test_many_roles_without_an_sts_take_little_memory_and_few_descriptors"),
    Claim(
        "The manifests' limit is 64 MiB: raise it to 160 MiB for 10,000 roles.",
        "test_each_container_of_ours_is_confined_and_has_the_limits_that_were_measured",
    ),
    Claim(
        "A push costs Envoy the same with any number of identities, so STS takes most of the time: with "
        "one that answers after 50 ms, on a busy machine with two cores, 1,000 roles are in the proxy "
        "after 8 s and 10,000 after 105 s.",
        CONTROL,
    ),
    Claim(
        "The time to list them still grows with their number, and so does the renewal of their lease every "
        "ten seconds.",
        CONTROL,
    ),
    Claim(
        "STS itself allows [600 calls per "
        "second](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html) per account "
        "and region, shared by all its callers.",
        CONTROL,
    ),
    Claim(
        "A session of an hour costs one call in 18 to 30 minutes: 10,000 roles make about 7 calls per "
        "second, and less with longer sessions (`roleDurationSeconds`).",
        "renewal_comes_well_before_the_expiry_and_not_at_one_instant",
    ),
]

# When things fail

WHEN_THINGS_FAIL = [
    Claim("what happens", PROMISE),
    Claim(
        "Envoy ends, restarts, is hot-restarted or replaced, or its listener moves",
        "test_a_restarted_envoy_is_supplied_within_a_second",
        "test_a_hot_restart_is_noticed_within_a_second",
        "test_a_pod_that_is_replaced_is_noticed_within_a_second",
        "test_a_listener_that_moved_is_supplied_within_a_second",
        "test_no_request_fails_after_envoy_was_killed",
        "test_no_request_fails_during_a_hot_restart",
        "test_no_request_fails_after_a_pod_was_replaced",
        "test_no_request_fails_after_a_listener_moved",
    ),
    Claim(
        "a policy requires another role",
        "test_what_a_new_policy_requires_is_supplied_at_once",
    ),
    Claim(
        "the last policy is removed",
        "test_credentials_go_when_the_last_policy_goes",
        "test_credentials_of_a_policy_that_is_gone_can_be_deleted_immediately",
    ),
    Claim("no policy is loaded under the intake's `vm_id`", "test_an_intake_that_shares_no_vm_id_is_not_ready"),
    Claim(
        "a wrong secret is pushed by hand under the right key id",
        "test_a_wrong_secret_under_the_right_key_is_corrected",
    ),
    Claim(
        "somebody pushes another key by hand",
        "test_another_key_by_hand_is_left_and_the_only_key_revoked_makes_the_proxy_unready",
        "what_somebody_else_pushed_is_replaced_when_it_does_not_last",
    ),
    Claim(
        "a revoked key is pushed again by hand",
        "test_a_revocation_that_is_taken_back_by_hand_is_taken_back_for_the_refresher",
        "a_revocation_is_the_proxys_own_and_can_be_taken_back",
    ),
    Claim(
        "two refreshers supply one proxy",
        "test_two_refreshers_do_not_take_turns",
        "a_secret_that_goes_back_and_forth_under_one_key_is_pushed_each_time",
        "credentials_of_our_key_that_expire_soon_are_replaced_whoever_pushes_them",
    ),
    Claim(
        "STS or another source fails",
        "retries_get_rarer_up_to_a_minute",
        "old_credentials_serve_while_sts_is_at_fault_and_new_ones_come_when_it_recovers",
    ),
    Claim(
        "the provider chain fails, or its `credential_process` hangs",
        "roles_are_assumed_with_what_a_source_gave_before_it_failed",
    ),
    Claim("STS is slow", "roles_that_get_no_answer_delay_another_for_seconds_only"),
    Claim("STS does not answer for some roles", "roles_that_get_no_answer_delay_another_for_seconds_only"),
    Claim(
        "STS throttles",
        "a_pause_that_sts_asks_for_has_a_bound",
        "an_sts_that_has_too_many_calls_is_left_alone_for_as_long_as_it_says",
    ),
    Claim(
        "STS can't be reached or fails: no network, no name, a certificate that is not trusted, a status "
        "of 500 or more",
        "what_keeps_sts_from_being_called_is_told_with_its_cure",
        "all_roles_are_supplied_as_soon_as_sts_is_back",
    ),
    Claim(
        "a call to the intake has a query that it does not know, such as `?unless_revoked`",
        "a_query_that_a_call_does_not_have_is_refused_and_changes_nothing",
    ),
    Claim(
        "a push and a `DELETE` of the same key cross",
        "test_a_push_that_crosses_a_revocation_leaves_nothing_of_the_revoked_key",
    ),
    Claim(
        "the list of an identity's revoked keys can't be read: it is damaged, or of a later version of the filter",
        "an_identity_whose_revocations_can_not_be_read_is_not_signed_for_and_takes_no_push",
    ),
    Claim(
        "a source fails or recovers, or credentials expire",
        "a_failure_and_an_expiry_are_told_immediately_however_long_the_interval",
    ),
    Claim(
        "the only key of a proxy is revoked, and the source has no other",
        "test_another_key_by_hand_is_left_and_the_only_key_revoked_makes_the_proxy_unready",
        "a_proxy_whose_only_key_was_revoked_is_not_ready",
    ),
    Claim(
        "a push gets 404, as no policy requires the identity any longer",
        "a_proxy_that_no_longer_wants_what_is_pushed_holds_nothing_by_that",
    ),
    Claim(
        "the listing is long",
        "test_three_hundred_roles_with_fifty_tags_keep_nobody_from_being_supplied",
        "a_listing_is_read_page_by_page",
    ),
    Claim(
        "the metadata of a container or an instance has white space, an empty token, or an expiry with `+00:00`",
        "odd_documents_of_containers_and_instances_mean_what_they_say_or_are_refused",
    ),
    Claim(
        "another program has bound the intake's port while Envoy was down",
        "test_who_has_bound_the_port_of_a_proxy_that_is_down_is_told_nothing",
    ),
    Claim(
        "it gets SIGTERM",
        "sigterm_ends_it_within_a_second_whatever_it_waits_for",
        "sigterm_ends_it_within_a_second_whatever_files_it_waits_for",
    ),
    Claim(
        "it gets SIGHUP",
        "test_sighup_looks_again_and_sigterm_ends_it",
        "sighup_has_everything_looked_at_again",
        "sighup_has_the_region_read_again",
    ),
    Claim(
        "the region can't be read, for example from a slow metadata service",
        "a_region_that_could_not_be_read_is_looked_for_again_and_a_found_one_is_kept",
    ),
    Claim(
        "a role can't be assumed",
        "once_names_the_role_that_failed_and_still_pushes_the_others",
        "one_bad_role_of_two_makes_nobody_unready_and_a_source_that_fails_later_neither",
    ),
    Claim(
        "a certificate or key for an `https://` proxy can't be read, or is a pipe that nobody writes",
        "tls_files_that_can_not_be_read_hold_nobody_up",
    ),
    Claim(
        "an `--allow-…` option does not cover an identity that a proxy requires",
        "a_role_that_no_pattern_covers_is_never_assumed",
        "the_base_identity_is_not_given_to_who_may_have_roles_alone",
        "an_empty_list_of_patterns_does_not_allow_everything",
    ),
    Claim("a proxy does not answer", "a_proxy_that_never_answers_delays_no_other"),
    Claim(
        "a source's answer does not end",
        "an_answer_without_an_end_is_cut_off",
    ),
    Claim(
        "a `credential_process` hangs, or leaves processes behind",
        "a_process_that_hangs_is_ended_with_all_that_it_started",
        "a_process_that_leaves_others_behind_is_not_waited_for",
    ),
    Claim("its program file is replaced while it runs", "a_process_runs_after_the_program_was_replaced"),
    Claim("nobody reads its log", "lines_that_nobody_reads_are_dropped_and_counted_and_the_supply_goes_on"),
    Claim("the refresher is killed", "a_refresher_that_is_killed_and_restarted_leaves_no_gap"),
    Claim(
        "strangers hold connections to `--listen`",
        "a_probe_is_answered_whatever_strangers_hold",
        "a_probe_is_answered_while_strangers_connect_again_and_again",
    ),
    Claim(
        "a secret, key or token has white space around it, or the token is empty",
        "keys_with_white_space_around_them_and_an_empty_token",
        "white_space_around_a_part_is_no_part_of_it",
    ),
    Claim(
        "a secret has blanks in it, or a push has expired or has a number for its expiry",
        "test_credentials_that_can_not_be_meant_are_refused_by_name",
        "an_expiration_is_read_in_each_form_in_which_its_zone_is_written",
    ),
    Claim("the machine sleeps, or Envoy is stopped for a while", "test_a_pause_of_the_process_takes_nothing_away"),
    Claim("the clock is set, forwards or back", "test_a_clock_that_jumps_stops_nobody_else_and_is_recovered_from"),
    Claim(
        "refresher and filter, or signer and intake, are of different versions",
        "versions_read_each_other",
        "an_intake_from_before_there_were_versions_is_supplied",
        "a_listing_of_a_later_version_is_not_guessed_at",
        "an_identity_that_is_not_understood_is_given_nothing_less",
    ),
    Claim(
        "Credentials are renewed when 30 to 50 % of their life is over, at random, so that identities "
        "fetched together are not renewed together.",
        "renewal_comes_well_before_the_expiry_and_not_at_one_instant",
        "identities_that_were_got_together_are_not_renewed_together",
    ),
    Claim(
        "A source that still returns the old ones is asked again by the same rule.",
        "renewal_comes_well_before_the_expiry_and_not_at_one_instant",
    ),
    Claim(
        "Credentials without an expiry are checked once a minute.", "a_process_that_rotates_and_a_changed_config_file"
    ),
    Claim(
        "`make soak` shows this: a real Envoy with two workers under full load, credentials that rotate "
        "every second, a refresher that is killed repeatedly, and a new listener configuration in between.",
        "integration/soak/__main__.py",
    ),
    Claim(
        "No request is lost, not even together with clients that stall uploads, flood with headers, reset "
        "connections or stream to a failing upstream, while the disk of the access log is full and the "
        "clock jumps by four minutes.",
        "integration/soak/__main__.py",
    ),
    Claim(
        "An Envoy that is killed signs again within two seconds of its restart, on an otherwise idle machine.",
        "integration/soak/__main__.py",
    ),
    Claim(
        "Envoy's own start takes 1.3 to 1.5 s of processor time, most of it to compile the filter: 5 s on "
        "two processors with a load of 14.",
        "integration/soak/__main__.py",
    ),
    Claim("It signed 0.03 to 0.2 s after it was ready.", "integration/soak/__main__.py"),
]

# Limits

LIMITS = [
    Claim("what", PROMISE),
    Claim(
        "connections to `--listen`", "a_probe_is_answered_whatever_strangers_hold", "a_connection_carries_one_request"
    ),
    Claim("a request's head at `--listen`", "a_head_that_trickles_in_and_an_idle_connection_are_closed"),
    Claim("a connection to `--listen`", "a_head_that_trickles_in_and_an_idle_connection_are_closed"),
    Claim("reasons on `/readyz`", "readiness_names_only_the_first_of_many_reasons"),
    Claim("idle connections to Envoy's intake", "test_callers_that_are_idle_or_slow_are_not_waited_for"),
    Claim("a request to Envoy's intake", "test_callers_that_are_idle_or_slow_are_not_waited_for"),
    Claim("an answer of STS or of another source over HTTP", "an_answer_without_an_end_is_cut_off"),
    Claim(
        "a file with profiles, a token or options: `AWS_CONFIG_FILE`, `AWS_SHARED_CREDENTIALS_FILE`, the default "
        "ones in `~/.aws`, `AWS_WEB_IDENTITY_TOKEN_FILE`, `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`, a profile's "
        "`web_identity_token_file`, `--config`",
        "a_device_in_place_of_a_file_is_not_read",
        "a_device_in_place_of_a_default_file_is_not_read",
        "a_token_file_of_a_profile_is_not_read_if_it_is_a_device",
        "a_file_that_is_too_large_is_not_read",
        "a_pipe_in_place_of_a_file_is_not_waited_for",
        "a_configuration_that_is_a_device_a_pipe_or_too_large_is_not_read",
        "a_linked_file_is_read_and_the_null_device_disables_one",
    ),
    Claim("calls of STS in flight", "roles_that_get_no_answer_delay_another_for_seconds_only"),
    Claim(
        "file descriptors",
        "three_hundred_roles_need_less_than_64_descriptors",
        "test_many_roles_are_supplied_in_little_memory_with_few_descriptors",
    ),
    Claim(
        "concurrent name lookups",
        "three_hundred_roles_need_less_than_64_descriptors",
    ),
    Claim(
        "output of a `credential_process`",
        "a_process_that_writes_without_an_end_is_cut_off",
    ),
    Claim("a `credential_process`", "a_process_that_hangs_is_ended_with_all_that_it_started"),
    Claim(
        "unread log lines",
        "lines_that_nobody_reads_are_dropped_and_counted_and_the_supply_goes_on",
    ),
    Claim(
        "retries for identities without credentials, after a few failures",
        "what_is_missing_is_asked_for_every_few_seconds_and_more_rarely_if_much_is",
    ),
    Claim("a page of a proxy's listing", "a_listing_is_read_page_by_page"),
    Claim("the pages of a proxy's listing together", "the_pages_of_a_listing_are_bounded_together"),
    Claim("an answer of a proxy's intake", "an_answer_of_an_intake_is_read_up_to_a_bound"),
    Claim(
        "polls of a proxy for changes",
        "a_proxy_that_does_not_wait_for_a_change_is_polled_four_times_a_second",
    ),
    Claim(
        "credentials from an instance's metadata after their expiry",
        "what_expired_lately_may_still_be_taken_and_what_expired_in_2020_not",
    ),
    Claim("the text of one error", "what_others_wrote_becomes_one_harmless_line"),
    Claim(
        "Envoy does not limit the number of connections to the intake: somebody could use up a limit and "
        "lock the refresher out.",
        PROTECTION,
    ),
    Claim(
        "Only the user that Envoy runs as can open the socket.",
        "test_the_socket_is_for_its_owner_alone",
    ),
]

# What to do

WHAT_TO_DO = [
    Claim("**Upgrade.", PROMISE),
    Claim(
        "Replace the old version with the new one (`systemctl restart`, a rolling update).",
        PROMISE,
    ),
    Claim(
        "The proxy keeps signing with what it holds, which lasts for at least half a session's life; the "
        "new refresher gets its own within seconds.",
        "renewal_comes_well_before_the_expiry_and_not_at_one_instant",
        "a_refresher_that_is_killed_and_restarted_leaves_no_gap",
    ),
    Claim(
        "Upgrade the refresher before the filter: if a policy requires more of a session than the "
        "refresher knows, it supplies nothing and logs `upgrade credential-refresher`, and that identity's "
        "requests get 503 once its credentials have expired.",
        "an_identity_that_is_not_understood_is_given_nothing_less",
    ),
    Claim(
        "Envoy itself keeps its credentials when a listener changes (LDS), but not when it restarts; with "
        "several Envoys, restart them one by one, or let `credentialsWaitMs` cover the time until the push.",
        "test_an_envoy_that_restarts_holds_nothing",
    ),
    Claim("**STS is down for an hour.", PROMISE),
    Claim(
        '`source_failures_total{reason="sts"}` rises, and `can\'t get credentials` says how long the old '
        "ones can be used (`serving_until`).",
        "probes_and_prometheus_are_told_how_it_goes",
    ),
    Claim(
        "Nothing has to be done immediately: a session of an hour survives at least 30 minutes of the "
        "outage, and at most the hour; after that, its requests get 503 `NoCredentials`.",
        "renewal_comes_well_before_the_expiry_and_not_at_one_instant",
        "old_credentials_serve_while_sts_is_at_fault_and_new_ones_come_when_it_recovers",
    ),
    Claim(
        "They are signed again a few seconds after STS answers again.",
        "what_is_missing_is_there_a_few_seconds_after_its_source_recovers",
    ),
    Claim(
        'If that is not enough, set longer sessions in the policy: with `"roleDurationSeconds": 10800` '
        "and a role that allows it, requests fail only in an outage of more than one and a half hours.",
        "renewal_comes_well_before_the_expiry_and_not_at_one_instant",
        "sts_is_asked_for_all_that_the_policy_says_of_the_session",
    ),
    Claim(
        "Sessions obtained through a `roleChain` last for an hour at most, and so do those that an assumed "
        "role assumes, such as an instance's or a pod's: STS refuses longer ones, and `can't get "
        "credentials` is logged.",
        CONTROL,
    ),
    Claim("**A key has leaked.", PROMISE),
    Claim(
        "Revoke it at AWS first (deactivate the user's access key; for a role, `Revoke active sessions`, "
        "which makes AWS refuse what was issued before).",
        CONTROL,
    ),
    Claim(
        "Then remove it from each proxy that holds it; `GET /v1/identities` lists the ids and keys:",
        "test_lists_what_the_policy_wants",
    ),
    Claim(
        "Within a second, no worker signs a request with it, and no refresher pushes it again; a `PUT` by hand does.",
        "test_a_revoked_key_is_not_used_any_more_and_taken_again_only_from_who_insists",
        "a_revoked_access_key_is_replaced_and_pushed_no_more",
    ),
    Claim(
        "Requests get 503 until the refresher has pushed another key.",
        "test_a_revoked_key_is_not_used_any_more_and_taken_again_only_from_who_insists",
        "a_revoked_access_key_is_replaced_and_pushed_no_more",
    ),
    Claim(
        "For a role, that is a new session.",
        "test_a_revoked_key_is_not_used_any_more_and_taken_again_only_from_who_insists",
        "a_revoked_access_key_is_replaced_and_pushed_no_more",
    ),
    Claim(
        "If the source has only one key, as a credentials file does, the refresher waits: `the source "
        "still returns the revoked access key` is in the log once, and on `/readyz`; once the file has "
        "another key, that one is pushed.",
        "a_source_that_only_has_the_revoked_key_is_waited_for_and_told_once",
    ),
    Claim(
        "Envoy forgets the revocation when it ends, or when no policy has required the identity for 30 seconds.",
        "a_revoked_key_is_not_read_again_for_as_long_as_its_identity_is_required",
        "test_an_envoy_that_restarts_holds_nothing",
    ),
    Claim(
        "The refresher keeps no list of its own: what a proxy lists as revoked is not pushed to that proxy.",
        "a_revocation_is_the_proxys_own_and_can_be_taken_back",
    ),
    Claim("**A role was changed.", PROMISE),
    Claim("Changed permissions take effect at AWS immediately.", CONTROL),
    Claim(
        "A changed trust policy takes effect at the next renewal; `DELETE` forces one.",
        "a_revoked_access_key_is_replaced_and_pushed_no_more",
    ),
]

# Probes and metrics

PROBES_AND_METRICS = [
    Claim(
        "`--listen 127.0.0.1:9903` serves them; they contain no secrets.",
        "no_secret_is_logged_at_any_level_whatever_goes_wrong",
        "probes_and_prometheus_are_told_how_it_goes",
    ),
    Claim("`/healthz`: 200 while the process answers.", "probes_and_prometheus_are_told_how_it_goes"),
    Claim(
        "`/readyz`: 200 if every proxy answers, has a policy, and holds unexpired credentials for at least "
        "one identity; or if it was supplied since it started, its credentials have expired, and the "
        "source fails: then no other instance could sign either.",
        "a_proxy_is_ready_that_can_sign_for_somebody_or_could_until_a_source_failed",
        "test_a_pod_is_ready_that_can_sign_or_could_until_the_source_failed",
    ),
    Claim(
        "`envoy/compose/rules.yaml` has an alert rule to copy: `CredentialsNotSupplied` fires if a proxy "
        "has had no credentials for an identity of its policy for a minute.",
        "test_an_identity_that_is_wanted_and_not_supplied_alerts_after_a_minute",
    ),
    Claim(
        "Else 503.",
        "a_proxy_is_ready_that_can_sign_for_somebody_or_could_until_a_source_failed",
        "test_a_pod_is_ready_that_can_sign_or_could_until_the_source_failed",
    ),
    Claim(
        "In both cases, the body names what is missing; for what is missing while it is ready, set an "
        "alert, such as one on `proxy_unsupplied_identities`.",
        "a_proxy_is_ready_that_can_sign_for_somebody_or_could_until_a_source_failed",
        "test_a_pod_is_ready_that_can_sign_or_could_until_the_source_failed",
    ),
    Claim(
        "The intake's own `GET /v1/status` is stricter: 200 only if every identity holds unexpired credentials.",
        "status_is_ready_only_while_every_identity_holds",
    ),
    Claim("`/metrics`, for Prometheus.", "probes_and_prometheus_are_told_how_it_goes"),
    Claim(
        "Times are Unix times: an age is `time() - x`, a remaining life `x - time()`.",
        "probes_and_prometheus_are_told_how_it_goes",
    ),
]

# The log

THE_LOG = [
    Claim(
        "With `--log-level debug` there are more lines, about what has not changed (`the source returned "
        "the same credentials`, `still can't ask the proxy`, `still can't get credentials`), about an "
        "identity that is no longer required (`no policy wants this identity any longer`), and about "
        "callers of `--listen` (`a status connection broke off`, `can't accept a connection`).",
        "test_every_line_of_the_table_is_one_that_it_writes",
    ),
]

# Secrets

SECRETS = [
    Claim(
        "Only the program's own events are logged, at every level, and none of them has a secret in it; "
        "metrics, probes and errors have none either.",
        "no_secret_is_logged_at_any_level_whatever_goes_wrong",
    ),
    Claim(
        "Secrets come from AWS and go to the intake, never through an argument of a process.",
        "test_every_option_is_in_the_table_and_takes_no_secret",
        "test_no_shipped_file_sets_a_secret",
    ),
    Claim(
        "What is held is wiped when it is replaced, which a test checks in the memory of the running "
        "process, and at the end.",
        "secrets_that_were_replaced_are_gone_from_memory",
    ),
    Claim(
        "The buffers of the TLS and HTTP libraries, and the SDK's copies of an answer of STS, are not "
        "under this program's control.",
        PROTECTION,
    ),
]

# The page itself

SECTIONS = {
    "Running the refresher": RUNNING_THE_REFRESHER,
    "Options": OPTIONS,
    "Set-up": SET_UP,
    "When things fail": WHEN_THINGS_FAIL,
    "Limits": LIMITS,
    "What to do": WHAT_TO_DO,
    "Probes and metrics": PROBES_AND_METRICS,
    "The log": THE_LOG,
    "Secrets": SECRETS,
}
# Headings whose table is compared with the program.
COMPARED = ("Options", "Probes and metrics", "The log")


def table_of(heading: str) -> list[list[str]]:
    """Returns the rows of a heading's table, below its head."""
    section = re.split(rf"^## {heading}$", PAGE, flags=re.MULTILINE)[1].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


def test_every_option_is_in_the_table_and_takes_no_secret():
    """Secrets come in from AWS and go out to the intake, never through an argument of a process."""
    described = {option for row in table_of("Options") for option in re.findall(r"`(--[\w-]+)", row[0])}
    shown = subprocess.run([BINARY, "--help"], capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"^ +(?:-\w, )?(--[\w-]+)", shown, re.MULTILINE))

    assert described == options - {"--help", "--version"}
    assert not [option for option in options if re.search("secret|token|password", option)]


def test_every_metric_is_in_the_table(tmp_path):
    described = {name for row in table_of("Probes and metrics") for name in re.findall(r"`(\w+)`", row[0])}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--proxy", f"unix:{tmp_path}/nowhere", "--listen", f"127.0.0.1:{port}"]
    with Process("credential-refresher", [BINARY, *arguments], tmp_path / "log") as refresher:
        wait_until(lambda: "listening for probes" in refresher.log, "the port")
        shown = curl(f"http://127.0.0.1:{port}/metrics").text
    # Those that have no value yet are not shown.
    source = (REPOSITORY / "src" / "refresher" / "src" / "metrics.rs").read_text()
    names = set(re.findall(r'\.register(?:_with_unit)?\("(\w+)"', source))
    names |= set(re.findall(r"^# TYPE credential_refresher_(\w+) ", shown, re.MULTILINE))

    assert {re.sub("_(total|timestamp_seconds)$", "", name) for name in described} == names


def test_every_line_of_the_table_is_one_that_it_writes():
    """[...] there are more lines, on what stays as it was [...]"""
    described = [line for row in table_of("The log") for line in re.findall(r"`([^`]+)`", row[0])]
    [more] = [claim.sentence for claim in THE_LOG if claim.sentence.startswith("With `--log-level debug`")]
    described += [line for line in re.findall(r"`([^`]+)`", more) if not line.startswith("--")]
    sources = "".join(path.read_text() for path in (REPOSITORY / "src" / "refresher" / "src").rglob("*.rs"))

    assert len(described) > 20
    assert not [line for line in described if line not in sources]


def without_compared_tables() -> str:
    page = PAGE
    for heading in COMPARED:
        section = re.split(rf"^## {heading}$", page, flags=re.MULTILINE)[1].partition("\n## ")[0]
        page = page.replace(section, re.sub(r"^\|.*\n", "", section, flags=re.MULTILINE))
    return page


def test_every_sentence_of_the_page_is_carried_here():
    assert not differences(without_compared_tables(), SECTIONS, whole_rows=False)


@pytest.mark.parametrize("section", SECTIONS)
def test_what_holds_a_sentence_is_a_test_that_there_is(section):
    assert missing_tests(SECTIONS[section]) == []


def test_no_promise_goes_without_a_test():
    assert untested_promises([claim for section in SECTIONS.values() for claim in section]) == []
