//! Cutting byte ranges out of a stanza, so that all the rest stays as it came.

use std::ops::Range;

/// The text without `cuts`, and how many bytes went. The cuts may come in any order and overlap; parts of them that lie
/// outside the text or inside a character are ignored.
pub fn without(text: &str, mut cuts: Vec<Range<usize>>) -> (String, usize) {
    cuts.sort_by_key(|cut| cut.start);
    let mut kept = String::with_capacity(text.len());
    let mut at = 0_usize;
    for cut in cuts {
        if let Some(piece) = text.get(at..cut.start) {
            kept.push_str(piece);
            at = cut.end;
        } else {
            // It begins inside the cut before it.
            at = at.max(cut.end);
        }
    }
    kept.push_str(text.get(at..).unwrap_or_default());
    let gone = text.len().saturating_sub(kept.len());
    (kept, gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_may_touch_overlap_and_come_in_any_order() {
        assert_eq!(without("0123456789", vec![]), ("0123456789".to_owned(), 0));
        assert_eq!(without("0123456789", vec![7..9, 1..3, 3..4]), ("04569".to_owned(), 5));
        assert_eq!(without("0123456789", vec![1..6, 2..4, 5..8]), ("089".to_owned(), 7));
        assert_eq!(without("0123456789", vec![0..10, 0..1]), (String::new(), 10));
    }
}
