//! Roles that come with the caller: placeholders in a route's role, and the caller's values in their place.
//!
//! A value goes into an ARN or a session's name as it is, so it may have only the characters of an IAM name: nothing that
//! separates the parts of an ARN, and no wildcard.

use crate::credentials::Role;

use super::caller::{Admitted, CallerPattern};
use super::error::{Location, PolicyError};
use super::iam_names::{is_iam_arn, is_session_word, is_tag_value, is_word};
use super::placeholder::Placeholder;

/// The longest value, in bytes: that of a tag. What else it is part of has a smaller bound.
const VALUE_MAX: usize = 256;

/// A role with placeholders.
#[derive(Debug)]
pub struct RoleTemplate {
    role: Role,
    /// The placeholders in it, each once.
    placeholders: Vec<Placeholder>,
}

/// The reason why a caller's values make no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The caller has no such value, or one that can't be part of an IAM name.
    #[error("its {0} is missing, or is not 1 to 256 letters, digits and _+=,.@-")]
    Value(Placeholder),
    /// The role's ARN, its session's name or a tag would be too long.
    #[error("with its values, the role's ARN, session name, source identity or a tag is too long")]
    Length,
}

impl RoleTemplate {
    /// Makes the template of a role; `None` if no text of it has a placeholder.
    ///
    /// # Errors
    /// A text in braces that is not a placeholder.
    pub(super) fn of(role: &Role) -> Result<Option<Self>, String> {
        let mut placeholders = Vec::new();
        for text in texts(role) {
            for part in parts(text) {
                if let Part::Braces(name) = part {
                    let placeholder = Placeholder::parse(name).ok_or_else(|| {
                        format!(
                            "{{{name}}} is not a placeholder; use {{namespace}}, {{serviceAccount}}, {{trustDomain}} or \
                             {{claim:NAME}}"
                        )
                    })?;
                    if !placeholders.contains(&placeholder) {
                        placeholders.push(placeholder);
                    }
                }
            }
        }
        Ok((!placeholders.is_empty()).then(|| Self { role: role.clone(), placeholders }))
    }

    /// Returns the role, with its placeholders.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// Returns a placeholder for which a pattern gives no value.
    pub(super) fn lacks(&self, pattern: &CallerPattern) -> Option<&Placeholder> {
        self.placeholders.iter().find(|placeholder| !pattern.gives(placeholder))
    }

    /// Writes the caller's values, each followed by a NUL: two callers with the same values have the same role.
    ///
    /// # Errors
    /// If a value is missing, or could not be part of any role.
    pub fn values(&self, caller: &Admitted<'_>, out: &mut Vec<u8>) -> Result<(), ValueError> {
        self.placeholders.iter().try_for_each(|placeholder| {
            let value = caller.value(placeholder).filter(|value| {
                (1..=VALUE_MAX).contains(&value.len()) && value.iter().all(|byte| is_word(*byte, b"+=,.@-"))
            });
            out.extend_from_slice(value.ok_or_else(|| ValueError::Value(placeholder.clone()))?);
            out.push(0);
            Ok(())
        })
    }

    /// Returns the role of a caller with these [values](Self::values).
    ///
    /// # Errors
    /// If a part of the role would be too long.
    pub fn expand(&self, values: &[u8]) -> Result<Role, ValueError> {
        let values: Vec<_> = values.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let fill = |text: &str| -> String {
            let value = |name: &str| {
                let index = self.placeholders.iter().position(|known| Some(known) == Placeholder::parse(name).as_ref());
                index.and_then(|index| values.get(index)).map_or("", |value| value.as_ref())
            };
            parts(text)
                .map(|part| match part {
                    Part::Text(text) => text,
                    Part::Braces(name) => value(name),
                })
                .collect()
        };
        let mut role = self.role.clone();
        for text in texts_mut(&mut role) {
            *text = fill(text);
        }
        let is_valid = is_iam_arn(&role.arn, "role/")
            && is_session_word(&role.session_name)
            && role.source_identity.as_deref().is_none_or(is_session_word)
            && role.tags.iter().all(|(_, value)| is_tag_value(value));
        if is_valid { Ok(role) } else { Err(ValueError::Length) }
    }
}

/// Returns a text with each placeholder replaced by a letter, to check the rest of it.
pub(super) fn sample(text: &str) -> String {
    parts(text)
        .map(|part| match part {
            Part::Text(text) => text,
            Part::Braces(_) => "xx",
        })
        .collect()
}

/// Checks that an ARN that is the same for all callers has no placeholder, not even a misspelled one.
pub(super) fn check_is_fixed(arn: &str, location: &Location) -> Result<(), PolicyError> {
    let name = parts(arn).find_map(|part| if let Part::Braces(name) = part { Some(name) } else { None });
    name.map_or(Ok(()), |name| Err(not_replaced(&format!("{{{name}}}"), location)))
}

/// Checks that a session's policy, whose JSON has braces of its own, has no placeholder.
pub(super) fn check_session_policy(policy: &str, location: &Location) -> Result<(), PolicyError> {
    let placeholder = policy.split('{').skip(1).find_map(|after| Placeholder::parse(after.split_once('}')?.0));
    placeholder.map_or(Ok(()), |placeholder| Err(not_replaced(&placeholder.to_string(), location)))
}

fn not_replaced(placeholder: &str, location: &Location) -> PolicyError {
    location.error(format!(
        "{placeholder} is not replaced here; use it in roleArn, roleSessionName, sourceIdentity or a value of roleTags"
    ))
}

fn texts(role: &Role) -> impl Iterator<Item = &String> {
    [&role.arn, &role.session_name]
        .into_iter()
        .chain(&role.source_identity)
        .chain(role.tags.iter().map(|(_, value)| value))
}

fn texts_mut(role: &mut Role) -> impl Iterator<Item = &mut String> {
    [&mut role.arn, &mut role.session_name]
        .into_iter()
        .chain(&mut role.source_identity)
        .chain(role.tags.iter_mut().map(|(_, value)| value))
}

enum Part<'t> {
    Text(&'t str),
    /// Text between braces.
    Braces(&'t str),
}

/// Returns the parts of a text; an unclosed brace is text.
fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    let mut in_braces = None;
    std::iter::from_fn(move || {
        if let Some(name) = in_braces.take() {
            return Some(Part::Braces(name));
        }
        if rest.is_empty() {
            return None;
        }
        let Some((before, (name, after))) =
            rest.split_once('{').and_then(|(before, after)| Some((before, after.split_once('}')?)))
        else {
            return Some(Part::Text(std::mem::take(&mut rest)));
        };
        rest = after;
        in_braces = Some(name);
        Some(Part::Text(before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header_map::HeaderMap;

    const ARN: &str = "arn:aws:iam::123456789012:role/";

    fn template(arn: &str, session_name: &str, tag: &str) -> RoleTemplate {
        let tags = vec![("team".to_owned(), tag.to_owned())];
        RoleTemplate::of(&Role { tags, ..Role::new(format!("{ARN}{arn}"), session_name) }).unwrap().unwrap()
    }

    fn role_of(template: &RoleTemplate, caller: &Admitted<'_>) -> Result<Role, ValueError> {
        let mut values = Vec::new();
        template.values(caller, &mut values)?;
        template.expand(&values)
    }

    #[test]
    fn a_callers_values_take_the_place_of_the_placeholders() {
        let template = template("mesh-{namespace}", "{serviceAccount}@{trustDomain}", "of {namespace}");
        let role = role_of(&template, &Admitted::Name(b"spiffe://td.local/ns/orders/sa/app")).unwrap();
        assert_eq!(role.arn, format!("{ARN}mesh-orders"));
        assert_eq!(role.session_name, "app@td.local");
        assert_eq!(role.tags, [("team".to_owned(), "of orders".to_owned())]);
    }

    #[test]
    fn a_claim_takes_the_place_of_its_placeholder() {
        let template = template("{claim:team}/{claim:team}", "s-{claim:sub}", "x");
        let payload = HeaderMap::serialize(&[("team", "orders"), ("sub", "a@b.example")]).0;
        let role = role_of(&template, &Admitted::Token(HeaderMap(&payload))).unwrap();
        assert_eq!((role.arn.as_str(), role.session_name.as_str()), (&*format!("{ARN}orders/orders"), "s-a@b.example"));
    }

    #[test]
    fn a_value_that_could_change_an_arn_is_refused() {
        let template = template("{claim:team}", "session", "x");
        let long = "x".repeat(257);
        let list = String::from_utf8(HeaderMap::serialize(&[("orders", "")]).0).unwrap();
        for value in ["", "a/b", "..", "a:b", "a*", "a?", "a b", "{namespace}", "é", "a\0b", "a\n", &list, &long] {
            let payload = HeaderMap::serialize(&[("team", value)]).0;
            let role = role_of(&template, &Admitted::Token(HeaderMap(&payload)));
            // Two dots are a role's name like any other.
            assert_eq!(role.is_ok(), value == "..", "{value:?}");
        }
        for (payload, error) in [
            (
                HeaderMap::serialize(&[("other", "x".to_owned())]).0,
                ValueError::Value(Placeholder::Claim("team".to_owned())),
            ),
            (HeaderMap::serialize(&[("team", "x".repeat(65))]).0, ValueError::Length),
        ] {
            assert_eq!(role_of(&template, &Admitted::Token(HeaderMap(&payload))), Err(error));
        }
    }

    #[test]
    fn text_in_braces_that_is_no_placeholder_is_refused() {
        for text in ["{name}", "{}", "{claim:}", "{Namespace}", "{namespace }"] {
            let error = RoleTemplate::of(&Role::new(format!("{ARN}{text}"), "s")).unwrap_err();
            assert!(error.starts_with(&format!("{text} is not a placeholder; use {{namespace}}")), "{error}");
        }
        assert!(RoleTemplate::of(&Role::new(format!("{ARN}x"), "{open")).unwrap().is_none());
    }
}
