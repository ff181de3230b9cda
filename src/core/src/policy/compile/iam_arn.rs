//! The ARNs of roles and policies.

use super::is_word;

/// Returns whether `arn` is the ARN of a role or policy, by the `kind` of resource: `role/` or `policy/`.
pub(in super::super) fn is_iam_arn(arn: &str, kind: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts[..] else { return false };
    let lower = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let partition =
        partition == "aws" || partition.strip_prefix("aws-").is_some_and(|rest| !rest.is_empty() && lower(rest));
    let (name_max, has_aws) = if kind == "policy/" { (128, account == "aws") } else { (64, false) };
    let account = has_aws || account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    // A path is printable ASCII, a name letters, digits and `_+=,.@-`.
    let name = resource.strip_prefix(kind).and_then(|path_and_name| path_and_name.rsplit('/').next());
    let name =
        name.is_some_and(|name| (1..=name_max).contains(&name.len()) && name.bytes().all(|b| is_word(b, b"+=,.@-")));
    partition && account && name && arn.len() <= 2048 && arn.bytes().all(|b| b.is_ascii_graphic())
}
