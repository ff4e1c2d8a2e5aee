//! Text brought to one form, so that equal things compare equal.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Compatibility forms folded (NFKC), accents of Latin, Greek and Cyrillic dropped, lower case, everything but letters,
/// their marks and digits of any script turned into single spaces, none at the ends; apostrophes close up.
/// Doing it twice changes nothing.
pub fn normalize(text: &str, out: &mut String) {
    out.clear();
    if text.is_ascii() {
        fold(text.chars().map(|c| c.to_ascii_lowercase()), out);
        return;
    }
    let without_accents = text.nfkd().filter(|c| !is_accent(*c)).flat_map(char::to_lowercase);
    // Lower-casing may bring marks back (İ), and scripts such as Hangul want to be composed again.
    fold(without_accents.nfkd().filter(|c| !is_accent(*c)).nfc(), out);
}

/// The combining marks that European scripts use; those of other scripts are vowels and must stay.
fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}')
}

fn fold(chars: impl Iterator<Item = char>, out: &mut String) {
    let mut gap = false;
    for c in chars {
        if c.is_alphanumeric() || is_combining_mark(c) {
            if gap && !out.is_empty() {
                out.push(' ');
            }
            gap = false;
            out.push(c);
        } else if c != '\'' && c != '\u{2019}' {
            // O'Brien is one word.
            gap = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normalized(text: &str) -> String {
        let mut out = String::new();
        normalize(text, &mut out);
        out
    }

    #[test]
    fn one_form() {
        for (text, form) in [
            ("  Grocery ", "grocery"),
            ("GROCERY\t&  Bakery", "grocery bakery"),
            ("Crème Brûlée", "creme brulee"),
            ("O'Brien-Smith", "obrien smith"),
            ("ＦＵＬＬ ｗｉｄｔｈ", "full width"),
            ("한국어 텍스트", "한국어 텍스트"),
            ("İstanbul", "istanbul"),
            ("--", ""),
        ] {
            assert_eq!(normalized(text), form);
        }
    }

    proptest! {
        #[test]
        fn twice_is_once(text in "\\PC{0,24}") {
            let once = normalized(&text);
            prop_assert_eq!(normalized(&once), once);
        }
    }
}
