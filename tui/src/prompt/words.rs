//! Splits a line as a shell does, and remembers where each word stood.

use std::ops::Range;

/// A word without its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// What it says.
    pub text: String,
    /// Its bytes in the line.
    pub at: Range<usize>,
}

/// What is wrong with a line, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Bytes of the line.
    pub at: Range<usize>,
    /// A sentence.
    pub text: String,
}

/// Words between blanks; quotes and backslashes as in a shell.
pub(crate) fn split(line: &str) -> Result<Vec<Word>, Fault> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<(char, usize)> = None;
    let mut letters = line.char_indices();
    while let Some((at, letter)) = letters.next() {
        let end = at + letter.len_utf8();
        if quote.is_none() && letter.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_with(|| Word { text: String::new(), at: at..end });
        word.at.end = end;
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some((letter, at)),
            (_, Some((open, _))) if letter == open => quote = None,
            ('\\', None | Some(('"', _))) => {
                if let Some((at, next)) = letters.next() {
                    word.text.push(next);
                    word.at.end = at + next.len_utf8();
                }
            }
            _ => word.text.push(letter),
        }
    }
    if let Some((open, at)) = quote {
        return Err(Fault { at: at..line.len(), text: format!("the quote {open} is not closed") });
    }
    words.extend(word);
    Ok(words)
}

/// A word as a shell reads it back.
pub(crate) fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-:@+=~,%^".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_in_a_shell() {
        let texts =
            |line| split(line).map(|words| words.into_iter().map(|word| word.text).collect::<Vec<_>>());
        assert_eq!(
            texts(r#" a  'b c' d"e "f \'g '' "#),
            Ok(["a", "b c", "de f", "'g", ""].map(str::to_owned).to_vec())
        );
        assert_eq!(split("--port 80").unwrap()[1].at, 7..9);
        assert_eq!(split("a 'b").unwrap_err().at, 2..4);
        assert_eq!(texts(r"a\"), Ok(vec!["a".to_owned()]));
    }

    proptest::proptest! {
        #[test]
        fn what_is_quoted_is_read_back(text in ".{0,20}") {
            let words = split(&quoted(&text)).unwrap();
            proptest::prop_assert_eq!(words.len(), 1);
            proptest::prop_assert_eq!(&words[0].text, &text);
        }
    }
}
