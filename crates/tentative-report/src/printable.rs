//! Makes text from inside a sandbox safe to print: no control character of it reaches the terminal.
//!
//! A file name may hold an escape sequence that rewrites the report, or a mark that reverses its direction. Printed
//! text keeps its length visible instead: such characters become `\xNN` or `\u{NNNN}`.

use std::borrow::Cow;

/// Returns the text with control characters and direction marks escaped.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push_str("\\t"),
            '\r' => safe.push_str("\\r"),
            _ if is_unsafe(character) && u32::from(character) < 0x100 => {
                safe.push_str(&format!("\\x{:02x}", u32::from(character)));
            }
            _ if is_unsafe(character) => safe.push_str(&format!("\\u{{{:x}}}", u32::from(character))),
            _ => safe.push(character),
        }
    }
    Cow::Owned(safe)
}

/// Like [`printable`] for one line of a file's content: tabs stay, since they are what the file has.
#[must_use]
pub fn printable_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|character| character != '\t' && is_unsafe(character)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split('\t').map(printable).collect::<Vec<_>>().join("\t"))
}

/// Returns the words of a command as a shell would take them: quoted where it is needed.
#[must_use]
pub fn command_line(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// The text, or as much of it as has so many characters and a mark that there is more.
#[must_use]
pub fn shortened(text: &str, longest: usize) -> Cow<'_, str> {
    match text.char_indices().nth(longest) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

fn quoted(word: &str) -> String {
    let plain = |character: char| {
        character.is_alphanumeric() || "_-./:=@%+,^".contains(character) && character != '\''
    };
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if word.chars().any(is_unsafe) {
        return escaped(word);
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The word as `$'…'` of bash(1), whose escapes are not those of [`printable`]: `\xNN` is a byte there, which makes a
/// character only below 0x80.
fn escaped(word: &str) -> String {
    let mut text = String::from("$'");
    for character in word.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            '\\' | '\'' => text.extend(['\\', character]),
            '\0'..'\u{80}' if is_unsafe(character) => {
                text.push_str(&format!("\\x{:02x}", u32::from(character)))
            }
            _ if is_unsafe(character) => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => text.push(character),
        }
    }
    text.push('\'');
    text
}

/// Control characters of both sets, and the marks that change the direction of what follows; all have at most four
/// hexadecimal digits.
const fn is_unsafe(character: char) -> bool {
    matches!(character,
        '\0'..='\x1f' | '\x7f'..='\u{9f}'
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\x1b[2Jb\\n");
        assert_eq!(printable("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(printable("\u{61c}"), "\\u{61c}");
        assert!(matches!(printable("größe 日本"), Cow::Borrowed(_)));
        assert_eq!(printable_line("a\tb\x07"), "a\tb\\x07");
    }

    #[test]
    fn long_texts_end_with_a_mark() {
        assert_eq!(shortened("größe", 5), "größe");
        assert_eq!(shortened("größer", 5), "größe…");
    }

    #[test]
    fn commands_can_be_pasted() {
        let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(command_line(&words(&["sh", "-c", "echo it's"])), r"sh -c 'echo it'\''s'");
        assert_eq!(command_line(&words(&["ls", ""])), "ls ''");
        assert_eq!(command_line(&words(&["a\nb"])), "$'a\\nb'");
        assert_eq!(command_line(&words(&["\n\\'"])), r"$'\n\\\''");
        assert_eq!(command_line(&words(&["\x1b[m\u{85}\u{202e}x"])), r"$'\x1b[m\u0085\u202ex'");
    }
}
