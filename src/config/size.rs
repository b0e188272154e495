//! A size as people write it: bytes with a unit, or a share of what there is.

use std::fmt;
use std::str::FromStr;

use bytesize::ByteSize;

/// `8GB`, `512MiB`, `0`, `25%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// That many bytes.
    Bytes(u64),
    /// A share of a whole that is known later, 0 to 1.
    Share(f64),
}

impl Size {
    /// Bytes, given the whole that a share is of.
    pub fn of(self, whole_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(share) => (whole_bytes as f64 * share) as u64,
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || format!("`{text}` is not a size; expected something like 8GB, 512MiB or 25%");
        if let Some(percent) = text.trim().strip_suffix('%') {
            let percent: f64 = percent.trim().parse().map_err(|_| refuse())?;
            return if (0.0..=100.0).contains(&percent) {
                Ok(Self::Share(percent / 100.0))
            } else {
                Err(refuse())
            };
        }
        let number = text.trim();
        if number.bytes().all(|byte| byte.is_ascii_digit()) && number.bytes().any(|byte| byte != b'0') {
            return Err(format!(
                "`{text}` has no unit; expected something like {number}GB, {number}% or {number}B"
            ));
        }
        text.parse::<ByteSize>().map(|size| Self::Bytes(size.as_u64())).map_err(|_| refuse())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{}", ByteSize(*bytes)),
            Self::Share(share) => write!(f, "{}%", share * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_units_and_shares_are_read() {
        assert_eq!("8GB".parse(), Ok(Size::Bytes(8_000_000_000)));
        assert_eq!("512MiB".parse(), Ok(Size::Bytes(512 << 20)));
        assert_eq!("0".parse(), Ok(Size::Bytes(0)));
        assert_eq!("25%".parse::<Size>().map(|size| size.of(400)), Ok(100));
    }

    #[test]
    fn anything_else_is_refused_with_what_was_found() {
        assert_eq!("10B".parse(), Ok(Size::Bytes(10)));
        assert_eq!("00".parse(), Ok(Size::Bytes(0)));
        for text in ["", "many", "-1GB", "120%", "-3%", "8XB", "10", " 4096 "] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
