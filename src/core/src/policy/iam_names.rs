//! The names, values and ARNs of IAM, and the characters that they may have.

/// Returns whether `arn` is the ARN of a role or policy, by the `kind` of resource: `role/` or `policy/`.
pub(super) fn is_iam_arn(arn: &str, kind: &str) -> bool {
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

/// Returns whether a session may have this name.
pub(super) fn is_session_word(word: &str) -> bool {
    (2..=64).contains(&word.len()) && word.bytes().all(|byte| is_word(byte, b"+=,.@-"))
}

/// Returns whether a tag may have this value.
pub(super) fn is_tag_value(value: &str) -> bool {
    value.chars().count() <= 256 && value.chars().all(is_tag_character)
}

/// Returns whether a key or value of a tag may have this character.
pub(super) fn is_tag_character(character: char) -> bool {
    character.is_alphanumeric() || " _.:/=+-@".contains(character)
}

/// Returns whether a name in a credential scope may contain a byte: a slash or comma would shift the scope's parts.
pub(super) fn is_scope_byte(byte: u8) -> bool {
    is_word(byte, b"-")
}

/// Returns whether a byte is a letter, a digit, `_`, or one of `more`.
pub(super) fn is_word(byte: u8, more: &[u8]) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || more.contains(&byte)
}
