//! The policies that limit a role's session.

use serde::de::IgnoredAny;

use super::super::document::RawJson;
use super::super::error::{Location, PolicyError};
use super::super::iam_names::is_iam_arn;
use super::super::role_template::{check_is_fixed, check_session_policy};

/// Source: STS API reference, AssumeRole, `PolicyArns`; the size is that of all policies of a session in plain text.
const POLICY_ARNS_MAX: usize = 10;
const SIZE_MAX: usize = 2048;

/// Compiles the ARNs of the managed policies, sorted and each once: their order is not significant.
pub(super) fn policy_arns(
    written: Option<Vec<String>>,
    role_arn: &str,
    location: &Location,
) -> Result<Vec<String>, PolicyError> {
    let Some(mut arns) = written else { return Ok(Vec::new()) };
    if !(1..=POLICY_ARNS_MAX).contains(&arns.len()) {
        return Err(
            location.error(format!("lists {} policies; list 1 to {POLICY_ARNS_MAX}, or remove this", arns.len()))
        );
    }
    for (i, arn) in arns.iter().enumerate() {
        check_is_fixed(arn, &location.index(i))?;
        if !is_iam_arn(arn, "policy/") || ![account(role_arn), Some("aws")].contains(&account(arn)) {
            return Err(location.index(i).error(format!(
                "{arn:?} is not the ARN of an IAM policy of AWS or of the role's account; use arn:aws:iam::aws:policy/name or arn:aws:iam::123456789012:policy/name"
            )));
        }
    }
    arns.sort_unstable();
    arns.dedup();
    Ok(arns)
}

fn account(arn: &str) -> Option<&str> {
    arn.split(':').nth(4)
}

/// Compiles the inline policy to the text that STS receives: as written, without white space.
pub(super) fn session_policy(
    written: Option<RawJson>,
    policy_arns: &[String],
    location: &Location,
) -> Result<Option<String>, PolicyError> {
    let Some(written) = written else { return Ok(None) };
    let text = match written {
        RawJson(quoted) if quoted.starts_with('"') => {
            let text: String = serde_json::from_slice(quoted.as_bytes()).unwrap_or_default();
            let whole = serde_json::from_slice::<IgnoredAny>(text.as_bytes());
            whole.map_err(|error| location.error(format!("is not valid JSON: {error}")))?;
            text
        }
        RawJson(json) => json,
    };
    let text = compact(text);
    check_session_policy(&text, location)?;
    if !text.starts_with('{') || !text.contains("\"Statement\":") {
        return Err(location
            .error("is not an IAM policy; write one, such as {\"Version\": \"2012-10-17\", \"Statement\": […]}"));
    }
    if text.chars().any(|character| character > '\u{ff}') {
        return Err(
            location.error("has a character after U+00FF, which STS rejects; write its JSON escape, such as \\u4e2d")
        );
    }
    let size = policy_arns.iter().chain([&text]).map(|part| part.chars().count()).sum::<usize>();
    if size > SIZE_MAX {
        return Err(location.error(format!(
            "has {size} characters together with policyArns; use at most {SIZE_MAX}, or a managed policy in policyArns"
        )));
    }
    Ok(Some(text))
}

/// Returns JSON without the white space around its tokens.
fn compact(mut json: String) -> String {
    let (mut in_string, mut escaped) = (false, false);
    json.retain(|character| {
        let kept = in_string || !character.is_ascii_whitespace();
        in_string ^= character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        kept
    });
    json
}
