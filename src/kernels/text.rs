//! Text brought to one form, so that equal things compare equal.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_script::{Script, UnicodeScript};

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

/// Visits the tokens of a text in one form, see [`normalize`]: its words; and of scripts that write without spaces (Chinese,
/// Japanese, Korean, Thai and their neighbors) all pairs of characters that follow each other, as words are mostly one or
/// two characters long there.
pub fn tokens<'a>(form: &'a str, mut visit: impl FnMut(&'a str)) {
    for word in form.split(' ').filter(|word| !word.is_empty()) {
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let dense = is_dense(first);
            // A mark belongs to the character before it.
            let end = rest.find(|c| is_dense(c) != dense && !is_combining_mark(c)).unwrap_or(rest.len());
            let (run, after) = rest.split_at(end);
            match dense {
                false => visit(run),
                true => pairs(run, &mut visit),
            }
            rest = after;
        }
    }
}

/// Whether words of a character's script are written without spaces between them.
fn is_dense(c: char) -> bool {
    use Script::{Bopomofo, Han, Hangul, Hiragana, Katakana, Khmer, Lao, Myanmar, Thai};
    // The mark of long vowels belongs to both scripts of Japanese, so it says of itself that it belongs to none.
    c == 'ー' || matches!(c.script(), Bopomofo | Han | Hangul | Hiragana | Katakana | Khmer | Lao | Myanmar | Thai)
}

/// Visits all pairs of neighboring characters with their marks; a single one stands for itself.
fn pairs<'a>(run: &'a str, visit: &mut impl FnMut(&'a str)) {
    let starts: Vec<usize> =
        run.char_indices().filter(|(at, c)| *at == 0 || !is_combining_mark(*c)).map(|(at, _)| at).collect();
    let end = |at: usize| starts.get(at).copied().unwrap_or(run.len());
    for (at, &start) in starts.iter().enumerate().take(starts.len().saturating_sub(1).max(1)) {
        visit(&run[start..end(at + 2)]);
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

    #[test]
    fn words_and_pairs_of_characters() {
        let tokens = |text: &str| {
            let mut found = Vec::new();
            tokens(text, |token| found.push(token.to_owned()));
            found.join("|")
        };
        for (text, found) in [
            ("green tea 500g", "green|tea|500g"),
            ("東京都庁", "東京|京都|都庁"),
            ("茶", "茶"),
            ("usb充電器", "usb|充電|電器"),
            ("コーヒー", "コー|ーヒ|ヒー"),
            ("한국어 차", "한국|국어|차"),
            ("น้ำ", "น้ำ"),
            ("", ""),
        ] {
            assert_eq!(tokens(text), found);
        }
    }

    proptest! {
        #[test]
        fn every_token_is_of_the_text(text in "\\PC{0,24}") {
            let form = normalized(&text);
            let mut letters = std::collections::BTreeSet::new();
            tokens(&form, |token| letters.extend(token.chars()));
            prop_assert_eq!(letters, form.chars().filter(|c| *c != ' ').collect());
        }

        #[test]
        fn twice_is_once(text in "\\PC{0,24}") {
            let once = normalized(&text);
            prop_assert_eq!(normalized(&once), once);
        }
    }
}
