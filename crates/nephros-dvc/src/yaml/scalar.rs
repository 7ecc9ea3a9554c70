//! What a plain scalar is, by the resolver of `ruamel.yaml` for YAML 1.2.

use super::Value;

/// The value of an unquoted scalar; `None` for a whole number that does not fit.
pub fn resolve(text: &str) -> Option<Value> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_float(text) => Value::Float(float(text)?),
        _ if is_int(text) => Value::Int(int(text)?),
        _ if is_stamp(text) => Value::Stamp(text.to_owned()),
        _ => Value::text(text),
    })
}

/// Whether a string has to be quoted so as not to be read as something else.
pub fn is_ambiguous(text: &str) -> bool {
    !matches!(resolve(text), Some(Value::Text(_))) || matches!(text, "<<" | "=")
}

fn unsigned(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn all(text: &str, allowed: fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(allowed)
}

fn digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

fn digit_or_underscore(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'_'
}

fn is_int(text: &str) -> bool {
    let (_, rest) = unsigned(text);
    if let Some(binary) = rest.strip_prefix("0b") {
        return all(binary, |byte| matches!(byte, b'0' | b'1' | b'_'));
    }
    if let Some(hexadecimal) = rest.strip_prefix("0x") {
        return all(hexadecimal, |byte| byte.is_ascii_hexdigit() || byte == b'_');
    }
    if let Some(octal) = rest.strip_prefix("0o") {
        return all(octal, |byte| matches!(byte, b'0'..=b'7' | b'_'));
    }
    // Underscores alone are a number to the resolver and an error to Python; a string is what is meant.
    all(rest, digit_or_underscore) && rest.bytes().any(digit)
}

fn int(text: &str) -> Option<i128> {
    let (negative, rest) = unsigned(text);
    let digits = rest.replace('_', "");
    let parse = |digits: &str, radix| i128::from_str_radix(digits, radix).ok();
    let value = match digits.get(..2) {
        Some("0b") => parse(&digits[2..], 2),
        Some("0x") => parse(&digits[2..], 16),
        Some("0o") => parse(&digits[2..], 8),
        _ => parse(&digits, 10),
    }?;
    Some(if negative { -value } else { value })
}

fn is_float(text: &str) -> bool {
    let (_, rest) = unsigned(text);
    if matches!(rest, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let signed = exponent.is_some_and(|text| text.starts_with(['+', '-']));
    if exponent.is_some_and(|exponent| !all(unsigned(exponent).1, digit)) {
        return false;
    }
    let starts_with_digit = |text: &str| text.bytes().next().is_some_and(digit);
    match mantissa.split_once('.') {
        // Without digits before the point, an exponent needs its sign.
        Some(("", decimals)) => {
            all(decimals, digit_or_underscore)
                && (exponent.is_none() || signed)
                && decimals.bytes().any(digit)
        }
        Some((whole, decimals)) => {
            starts_with_digit(whole)
                && whole.bytes().all(digit_or_underscore)
                && decimals.bytes().all(digit_or_underscore)
        }
        None => {
            exponent.is_some() && starts_with_digit(mantissa) && mantissa.bytes().all(digit_or_underscore)
        }
    }
}

fn float(text: &str) -> Option<f64> {
    let (negative, rest) = unsigned(text);
    let value = match rest.replace('_', "").to_ascii_lowercase().as_str() {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        digits => digits.parse().ok()?,
    };
    Some(if negative { -value } else { value })
}

/// `2025-11-25`, or a date with a time.
fn is_stamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| {
        bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    let date = number(0..4)
        && number(5..7)
        && number(8..10)
        && bytes.get(4) == Some(&b'-')
        && bytes.get(7) == Some(&b'-');
    let time = || {
        let rest = text[10..].trim_start_matches(['T', 't', ' ', '\t']);
        let fields: Vec<&str> = rest.splitn(3, ':').collect();
        rest.len() < text.len() - 10
            && fields.len() == 3
            && all(fields[0], digit)
            && fields[0].len() <= 2
            && all(fields[1], digit)
            && fields[2].len() >= 2
            && all(&fields[2][..2], digit)
    };
    date && (bytes.len() == 10 || text.is_char_boundary(10) && time())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_what_yaml_1_2_says() {
        for (text, expected) in [
            ("1e-3", Value::Float(0.001)),
            ("1.0e-5", Value::Float(1e-5)),
            (".5", Value::Float(0.5)),
            ("5.", Value::Float(5.0)),
            ("017", Value::Int(17)),
            ("0o17", Value::Int(15)),
            ("0x1F", Value::Int(31)),
            ("1_000", Value::Int(1000)),
            ("-3", Value::Int(-3)),
            ("yes", Value::text("yes")),
            (".e5", Value::text(".e5")),
            ("1e", Value::text("1e")),
            ("_", Value::text("_")),
            ("2025-11-25", Value::Stamp("2025-11-25".into())),
            ("2025-11-2x", Value::text("2025-11-2x")),
            ("~", Value::Null),
            ("True", Value::Bool(true)),
        ] {
            let got = resolve(text).unwrap();
            assert_eq!(std::mem::discriminant(&got), std::mem::discriminant(&expected), "{text}: {got:?}");
            assert_eq!(got, expected, "{text}");
        }
    }
}
