//! The line in which a filter is written.

pub(crate) mod complete;
pub(crate) mod words;

use crate::keys::{Code, Key};
use complete::{Known, Offer};
use tui_input::{Input, InputRequest};
use words::Fault;

/// Lines of before that are kept.
const MOST_HISTORY: usize = 100;
/// A longer line is no filter, but what was pasted by mistake.
const MOST_BYTES: usize = 4096;

/// The open prompt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompt {
    input: Input,
    /// What is wrong with the line, until it is changed.
    pub fault: Option<Fault>,
    /// What Tab offers here.
    pub offer: Option<Offer>,
    /// Which line of before is shown; as many as there are: none.
    place: usize,
}

/// What a key in the prompt leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The line goes on.
    On,
    /// It is given up.
    Closed,
    /// It is to be applied.
    Done,
    /// Names are needed to complete it.
    Complete,
}

impl Prompt {
    /// With this line, the cursor at its end.
    pub(crate) fn new(text: &str, history: &History) -> Self {
        Self { input: Input::new(text.to_owned()), place: history.0.len(), ..Self::default() }
    }

    /// The line.
    pub(crate) fn text(&self) -> &str {
        self.input.value()
    }

    /// The byte before which the cursor stands.
    pub(crate) fn cursor(&self) -> usize {
        let text = self.text();
        text.char_indices().nth(self.input.cursor()).map_or(text.len(), |(at, _)| at)
    }

    fn set(&mut self, text: &str, cursor: usize) {
        let letters = text[..cursor].chars().count();
        self.input = Input::new(text.to_owned()).with_cursor(letters);
    }

    /// A key.
    pub(crate) fn key(&mut self, key: Key, history: &History) -> Turn {
        use InputRequest as Request;
        let request = match (key.code, key.ctrl) {
            (Code::Enter, _) => return Turn::Done,
            (Code::Esc, _) | (Code::Char('c' | 'g'), true) => return Turn::Closed,
            (Code::Tab, _) => return Turn::Complete,
            (Code::Up, _) => return self.history(history, self.place.saturating_sub(1)),
            (Code::Down, _) => return self.history(history, self.place + 1),
            (Code::Left, false) => Request::GoToPrevChar,
            (Code::Right, false) => Request::GoToNextChar,
            (Code::Left, true) => Request::GoToPrevWord,
            (Code::Right, true) => Request::GoToNextWord,
            (Code::Home, _) | (Code::Char('a'), true) => Request::GoToStart,
            (Code::End, _) | (Code::Char('e'), true) => Request::GoToEnd,
            (Code::Backspace, _) | (Code::Char('h'), true) => Request::DeletePrevChar,
            (Code::Delete, _) | (Code::Char('d'), true) => Request::DeleteNextChar,
            (Code::Char('w'), true) => Request::DeletePrevWord,
            (Code::Char('u'), true) => Request::DeleteLine,
            (Code::Char('k'), true) => Request::DeleteTillEnd,
            (Code::Char(letter), false) if self.text().len() < MOST_BYTES => Request::InsertChar(letter),
            _ => return Turn::On,
        };
        if self.input.handle(request).is_some_and(|change| change.value) {
            (self.fault, self.offer) = (None, None);
        }
        Turn::On
    }

    /// Pasted text; a line's end in it is a blank.
    pub(crate) fn paste(&mut self, text: &str) {
        (self.fault, self.offer) = (None, None);
        for letter in text.chars() {
            let letter = if letter.is_control() { ' ' } else { letter };
            if self.text().len() >= MOST_BYTES {
                break;
            }
            self.input.handle(InputRequest::InsertChar(letter));
        }
    }

    fn history(&mut self, history: &History, place: usize) -> Turn {
        let place = place.min(history.0.len());
        let text = history.0.get(place).map_or("", String::as_str).to_owned();
        let end = text.len();
        self.set(&text, end);
        (self.fault, self.offer, self.place) = (None, None, place);
        Turn::On
    }

    /// Completes the word under the cursor, or goes on to the next that is offered.
    pub(crate) fn complete(&mut self, known: &Known) {
        if let Some(mut offer) = self.offer.take() {
            offer.next();
            self.put(&offer);
            self.offer = Some(offer);
            return;
        }
        let offer = complete::offer(self.text(), self.cursor(), known);
        self.put(&offer);
        // With one there is nothing to choose, but it should be said that there is none.
        self.offer = (offer.words.len() != 1).then_some(offer);
    }

    fn put(&mut self, offer: &Offer) {
        let (head, tail) = (&self.text()[..offer.start], &self.text()[self.cursor()..]);
        let text = format!("{head}{}{tail}", offer.text());
        let cursor = offer.start + offer.text().len();
        self.set(&text, cursor);
        self.fault = None;
    }
}

/// Lines of before, the last at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History(Vec<String>);

impl History {
    /// From a file's lines.
    pub(crate) fn read(text: &str) -> Self {
        let mut history = Self::default();
        text.lines().for_each(|line| history.push(line));
        history
    }

    /// One more; the same one again only moves to the end.
    pub(crate) fn push(&mut self, line: &str) {
        if line.is_empty() || line.len() > MOST_BYTES {
            return;
        }
        self.0.retain(|own| own != line);
        self.0.push(line.to_owned());
        if self.0.len() > MOST_HISTORY {
            self.0.remove(0);
        }
    }

    /// As lines of a file.
    pub(crate) fn text(&self) -> String {
        self.0.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: Code) -> Key {
        Key { code, ctrl: false }
    }

    #[test]
    fn typing_pasting_and_lines_of_before() {
        let mut history = History::read("--port 80\n--port 53\n--port 80\n");
        let mut prompt = Prompt::new("ä", &history);
        for code in [Code::Char('b'), Code::Left, Code::Char('c')] {
            assert_eq!(prompt.key(key(code), &history), Turn::On);
        }
        assert_eq!((prompt.text(), prompt.cursor()), ("äcb", 3));
        prompt.paste("x\ny");
        assert_eq!(prompt.text(), "äcx yb");
        prompt.key(key(Code::Up), &history);
        assert_eq!(prompt.text(), "--port 80");
        prompt.key(key(Code::Up), &history);
        assert_eq!(prompt.text(), "--port 53");
        (0..3).for_each(|_| assert_eq!(prompt.key(key(Code::Down), &history), Turn::On));
        assert_eq!(prompt.text(), "");
        prompt.paste(&"z".repeat(2 * MOST_BYTES));
        assert_eq!(prompt.text().len(), MOST_BYTES);
        (0..200).for_each(|number| history.push(&number.to_string()));
        assert_eq!(history.0.len(), MOST_HISTORY);
    }
}
