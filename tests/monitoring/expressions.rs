//! What a PromQL expression names: metrics, the labels that it selects by, and the labels that it groups by. No parser: just
//! enough of the grammar to find names. Prometheus itself says whether the rest is right.

/// The words after which parentheses hold labels.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Other words that stand where a metric could stand.
const OPERATORS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "inf"];

/// `name{label="value"}`, or `=~` and the like.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    /// Label and value, whatever stands between the two.
    pub matchers: Vec<(String, String)>,
}

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    pub selectors: Vec<Selector>,
    pub grouping: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Clone)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

/// Reads an expression.
pub fn named_in(expression: &str) -> Named {
    let tokens = tokens(expression);
    let mut named = Named::default();
    let mut place = 0;
    while let Some(token) = tokens.get(place) {
        place += 1;
        let Token::Word(word) = token else { continue };
        let next = tokens.get(place);
        if GROUPING.contains(&word.as_str()) {
            let inside = &tokens[place + 1..];
            let end = inside.iter().position(|token| *token == Token::Sign(')')).expect("a closing parenthesis");
            named.grouping.extend(inside[..end].iter().filter_map(|token| match token {
                Token::Word(label) => Some(label.clone()),
                _ => None,
            }));
            place += end + 2;
        } else if next == Some(&Token::Sign('(')) || OPERATORS.contains(&word.as_str()) || is_number(word) {
            // A function or an aggregation, or no name at all: `5m` in brackets comes here as well.
        } else {
            let next_groups = matches!(next, Some(Token::Word(word)) if GROUPING.contains(&word.as_str()));
            if next_groups {
                continue; // `sum by (…) (…)`
            }
            let mut matchers = Vec::new();
            if next == Some(&Token::Sign('{')) {
                let inside = &tokens[place + 1..];
                let end = inside.iter().position(|token| *token == Token::Sign('}')).expect("a closing brace");
                let mut label = None;
                for token in &inside[..end] {
                    match token {
                        Token::Word(word) => label = Some(word.clone()),
                        Token::Text(value) => matchers.push((label.take().expect("a label"), value.clone())),
                        Token::Sign(_) => {}
                    }
                }
                place += end + 2;
            }
            named.selectors.push(Selector { metric: word.clone(), matchers });
        }
    }
    named
}

fn is_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':' || c == '.';
        if is_word(first) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        } else if first == '"' {
            let end = rest[1..].find('"').expect("a closing quote");
            tokens.push(Token::Text(rest[1..=end].to_owned()));
            rest = &rest[end + 2..];
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Sign(first));
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    tokens
}

#[test]
fn names_are_found_and_functions_are_not_taken_for_them() {
    let named = named_in(
        "topk(5, sum by (le, kind) (rate(a_total{job=~\"$job\", kind!=\"x\"}[5m]))) / b > 0.5 or sum without (c) (d)",
    );
    let matcher = |label: &str, value: &str| (label.to_owned(), value.to_owned());
    assert_eq!(
        named.selectors,
        [
            Selector { metric: "a_total".into(), matchers: vec![matcher("job", "$job"), matcher("kind", "x")] },
            Selector { metric: "b".into(), matchers: vec![] },
            Selector { metric: "d".into(), matchers: vec![] },
        ]
    );
    assert_eq!(named.grouping, ["le", "kind", "c"]);
}
