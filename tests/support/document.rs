//! The code blocks of the documents, for tests that run them as they stand.

/// The code block after `<!-- MARK -->`.
pub fn snippet<'d>(document: &'d str, mark: &str) -> &'d str {
    let (_, rest) = document.split_once(&format!("<!-- {mark} -->\n```")).unwrap_or_else(|| panic!("no block {mark}"));
    let (_, rest) = rest.split_once('\n').expect("a line");
    rest.split_once("```").expect("the end of the block").0
}

/// How many lines of a code block say something.
pub fn lines(snippet: &str) -> usize {
    snippet.lines().filter(|line| !line.trim().is_empty()).count()
}
