//! Rules of a policy: every rule has a text that says the same.
//!
//! Never looks up a name.

use crate::policy::Kind;

/// Takes the bytes for the text of a rule.
///
/// # Panics
/// When the text of what was understood says something else.
pub fn rules(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for text in [text.clone(), format!("net:{text}").into()] {
        if let Ok(kind) = text.parse::<Kind>() {
            let again = kind.to_string();
            assert_eq!(again.parse::<Kind>().as_ref(), Ok(&kind), "{text:?} is {again:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn rules_have_a_text() {
        tentative_testkit::input::each("rules", super::rules);
    }
}
