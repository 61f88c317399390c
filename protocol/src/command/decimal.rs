//! Decimal numbers without rounding on the way, for `INCRBYFLOAT`.
//!
//! Redis adds in `long double` and prints 17 decimals, which hides the error of the sum for
//! numbers of everyday size: 0.1 + 0.2 is 0.3. Here sums are exact, and the result is rounded to
//! 17 decimals once. Where a `long double` has too few digits the two differ; ours is then the
//! right sum.

use std::cmp::Ordering;
use std::fmt;

/// Longest text that is a number, as in Redis.
const TEXT_BYTES_MAX: usize = 255;
/// Largest power of ten that a `long double` holds; what goes beyond is no number.
const EXPONENT_MAX: i64 = 4932;
/// Decimals that are kept while adding.
const DECIMALS_MAX: usize = 64;
/// Decimals that are printed.
const DECIMALS_PRINTED: usize = 17;

/// A decimal number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    /// Digits, least significant first, `decimals` of them behind the point.
    digits: Vec<u8>,
    decimals: usize,
}

impl Decimal {
    pub(crate) const ZERO: Self = Self { negative: false, digits: Vec::new(), decimals: 0 };

    /// Reads `[+-]digits[.digits][e[+-]digits]`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            None => (text, 0),
            Some(at) => (&text[..at], parse_exponent(&text[at + 1..])?),
        };
        let point = mantissa.iter().position(|&byte| byte == b'.').unwrap_or(mantissa.len());
        let fraction = mantissa.get(point + 1..).unwrap_or_default();
        let mut digits: Vec<u8> = [&mantissa[..point], fraction].concat();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for digit in &mut digits {
            *digit -= b'0';
        }
        digits.reverse();
        Self::scaled(negative, digits, fraction.len() as i64 - exponent)
    }

    /// Whether the text is what Redis reads as infinity.
    pub(crate) fn is_infinity(text: &[u8]) -> bool {
        let text = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
        text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity")
    }

    /// The exact sum; `None` if it is too large.
    pub(crate) fn plus(&self, other: &Self) -> Option<Self> {
        let decimals = self.decimals.max(other.decimals);
        let (left, right) = (self.digits_at(decimals), other.digits_at(decimals));
        let (negative, digits) = if self.negative == other.negative {
            (self.negative, add(&left, &right))
        } else {
            match compare(&left, &right) {
                Ordering::Less => (other.negative, subtract(&right, &left)),
                Ordering::Equal => (false, Vec::new()),
                Ordering::Greater => (self.negative, subtract(&left, &right)),
            }
        };
        Self::scaled(negative, digits, decimals as i64)
    }

    /// `digits / 10^decimals`, if it is neither too large nor too small.
    fn scaled(negative: bool, mut digits: Vec<u8>, decimals: i64) -> Option<Self> {
        trim(&mut digits);
        if digits.is_empty() {
            return Some(Self { negative, digits, decimals: 0 });
        }
        if (digits.len() as i64 - decimals).abs() > EXPONENT_MAX {
            return None;
        }
        if decimals < 0 {
            digits.splice(0..0, std::iter::repeat_n(0, decimals.unsigned_abs() as usize));
        }
        let mut decimals = usize::try_from(decimals).unwrap_or(0);
        if decimals > DECIMALS_MAX {
            digits.drain(..(decimals - DECIMALS_MAX).min(digits.len()));
            decimals = DECIMALS_MAX;
        }
        Some(Self { negative, digits, decimals })
    }

    /// The digits with so many decimals, at least as many as there are.
    fn digits_at(&self, decimals: usize) -> Vec<u8> {
        let mut digits = vec![0; decimals - self.decimals];
        digits.extend_from_slice(&self.digits);
        digits
    }

    /// The digits with 17 decimals at most, and how many of them there are.
    fn rounded(&self) -> (Vec<u8>, usize) {
        let Some(drop) = self.decimals.checked_sub(DECIMALS_PRINTED).filter(|&drop| drop > 0)
        else {
            return (self.digits.clone(), self.decimals);
        };
        let mut digits = self.digits.clone();
        let half = digits.get(drop - 1).is_some_and(|&digit| digit >= 5);
        digits.drain(..drop.min(digits.len()));
        if half {
            digits = add(&digits, &[1]);
        }
        (digits, DECIMALS_PRINTED)
    }
}

impl fmt::Display for Decimal {
    /// As Redis: at most 17 decimals, no trailing zeros, no exponent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut digits, decimals) = self.rounded();
        trim(&mut digits);
        if digits.len() <= decimals {
            digits.resize(decimals + 1, 0);
        }
        let zeros = digits[..decimals].iter().take_while(|&&digit| digit == 0).count();
        let text: String = digits.iter().rev().map(|&digit| char::from(b'0' + digit)).collect();
        let (whole, fraction) = text.split_at(text.len() - decimals);
        let fraction = &fraction[..decimals - zeros];
        if self.negative && digits.iter().any(|&digit| digit > 0) {
            f.write_str("-")?;
        }
        f.write_str(whole)?;
        if fraction.is_empty() { Ok(()) } else { write!(f, ".{fraction}") }
    }
}

fn parse_exponent(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse::<i64>().ok().filter(|exponent| exponent.abs() <= 2 * EXPONENT_MAX)
}

fn add(left: &[u8], right: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let mut sum = Vec::with_capacity(left.len().max(right.len()) + 1);
    for at in 0..left.len().max(right.len()) {
        let digit = digit(left, at) + digit(right, at) + carry;
        sum.push(digit % 10);
        carry = digit / 10;
    }
    sum.push(carry);
    sum
}

/// `left - right`, where `left` is the larger.
fn subtract(left: &[u8], right: &[u8]) -> Vec<u8> {
    let mut borrow = 0;
    (0..left.len())
        .map(|at| {
            let digit = 10 + digit(left, at) - digit(right, at) - borrow;
            borrow = u8::from(digit < 10);
            digit % 10
        })
        .collect()
}

fn compare(left: &[u8], right: &[u8]) -> Ordering {
    (0..left.len().max(right.len()))
        .rev()
        .map(|at| digit(left, at).cmp(&digit(right, at)))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

fn digit(digits: &[u8], at: usize) -> u8 {
    digits.get(at).copied().unwrap_or(0)
}

fn trim(digits: &mut Vec<u8>) {
    while digits.last() == Some(&0) {
        digits.pop();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(left: &str, right: &str) -> Option<String> {
        let (left, right) = (Decimal::parse(left.as_bytes())?, Decimal::parse(right.as_bytes())?);
        left.plus(&right).map(|sum| sum.to_string())
    }

    #[test]
    fn sums_print_as_redis_prints_them() {
        for (left, right, expected) in [
            ("0.1", "0.2", "0.3"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "1.1", "4.1"),
            ("10.50", "0.1", "10.6"),
            ("1", "-1", "0"),
            ("1", "-1.25", "-0.25"),
            ("-1.5", "0.5", "-1"),
            ("1e-17", "0", "0.00000000000000001"),
            ("4e-18", "0", "0"),
            ("-4e-18", "0", "0"),
            ("5e-18", "0", "0.00000000000000001"),
            ("99.99999999999999999", "0.00000000000000001", "100"),
            (".5", "1.", "1.5"),
            ("+1", "1", "2"),
            ("1e20", "1", "100000000000000000001"),
        ] {
            assert_eq!(sum(left, right).as_deref(), Some(expected), "{left} + {right}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", " 1", "1 ", "abc", "1.2.3", "1e", "e1", ".", "-", "--1", "nan", "1e9999"] {
            assert_eq!(Decimal::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Decimal::parse(&[b'1'; 256]), None);
        assert!(Decimal::is_infinity(b"-inf") && Decimal::is_infinity(b"Infinity"));
    }

    proptest! {
        #[test]
        fn sums_are_those_of_integers(left in -1_000_000_000i64.., right in -1_000_000_000i64..) {
            let expected = (i128::from(left) + i128::from(right)).to_string();
            prop_assert_eq!(sum(&left.to_string(), &right.to_string()), Some(expected));
        }

        #[test]
        fn any_text_is_read_or_refused(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(number) = Decimal::parse(&text) {
                let printed = number.to_string();
                prop_assert!(Decimal::parse(printed.as_bytes()).is_some());
            }
        }

        #[test]
        fn any_number_like_text_is_read_or_refused(text in "[-+]?[0-9]{0,4}[.]?[0-9]{0,30}(e[-+]?[0-9]{0,5})?") {
            if let Some(number) = Decimal::parse(text.as_bytes()) {
                prop_assert!(number.plus(&number).is_none_or(|sum| !sum.to_string().is_empty()));
            }
        }
    }
}
