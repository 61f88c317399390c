//! Glob patterns as Redis understands them: `*`, `?`, `[abc]`, `[^a-z]`, `\x`.

/// Whether the whole text matches. Takes at most time of pattern length by text length: after a
/// mismatch only the last `*` is tried again with one more byte.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut rest) = (0, pattern);
    let mut star: Option<(usize, &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = rest {
            star = Some((at, after));
            rest = after;
            continue;
        }
        let next = text.get(at).and_then(|&byte| match_one(rest, byte));
        match (next, star) {
            (Some(after), _) => {
                at += 1;
                rest = after;
            }
            (None, _) if rest.is_empty() && at == text.len() => return true,
            (None, Some((from, after))) if from < text.len() => {
                at = from + 1;
                rest = after;
                star = Some((at, after));
            }
            (None, _) => return false,
        }
    }
}

/// Matches one byte against the first element of the pattern, which isn't `*`; answers the rest.
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (matched, rest) = match pattern {
        [] => return None,
        [b'?', rest @ ..] => (true, rest),
        [b'[', class @ ..] => match_class(class, byte),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == byte, rest),
    };
    matched.then_some(rest)
}

/// A class may lack its closing bracket; then it ends with the pattern.
fn match_class(class: &[u8], byte: u8) -> (bool, &[u8]) {
    let (negated, mut rest) = match class {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [] => return (found != negated, rest),
            [b'\\', literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
            [b']', after @ ..] => return (found != negated, after),
            [from, b'-', to, after @ ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                after
            }
            [literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "abc", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[^e]llo", "hbllo", true),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h[]llo", "hllo", false),
            ("a[", "a", false),
            ("a[b", "ab", true),
            ("[\\]]", "]", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
            ("a**b", "ab", true),
            ("key:*", "key:", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = b"a*".repeat(1000);
        let text = b"a".repeat(2000);
        assert!(matches(&pattern, &text));
        assert!(!matches(&[&pattern[..], b"b"].concat(), &text));
    }
}
