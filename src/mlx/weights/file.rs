//! A weight file's outside, looked at before MLX reads it: whole, and of types that MLX knows.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::lfs::pointer;
use crate::mlx::error::LoadError;

/// Bytes before the header: its length.
const PREAMBLE: u64 = 8;
/// Longest header that the format's own library reads.
const MOST_HEADER_BYTES: u64 = 100_000_000;
/// Bits of an element of each type that MLX reads.
const TYPES: [(&str, u64); 14] = [
    ("BOOL", 8),
    ("U8", 8),
    ("I8", 8),
    ("U16", 16),
    ("I16", 16),
    ("F16", 16),
    ("BF16", 16),
    ("U32", 32),
    ("I32", 32),
    ("F32", 32),
    ("U64", 64),
    ("I64", 64),
    ("C64", 64),
    ("F8_E4M3", 8),
];

/// Checks that a safetensors file is whole: its header, and that the data which it describes are there.
pub fn check(path: &Path) -> Result<(), LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let malformed = |reason: String| LoadError::Malformed { path: path.to_owned(), reason };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut begin = Vec::new();
    file.by_ref().take(PREAMBLE).read_to_end(&mut begin).map_err(failed)?;
    let Ok(preamble) = <[u8; PREAMBLE as usize]>::try_from(begin.as_slice()) else {
        return Err(malformed(format!("the file has {length} bytes and no header; download it again")));
    };
    let header_bytes = u64::from_le_bytes(preamble);
    if header_bytes > MOST_HEADER_BYTES || begin.starts_with(b"version ") {
        file.by_ref().take(64).read_to_end(&mut begin).map_err(failed)?;
        let other = || {
            let shown = String::from_utf8_lossy(&begin).into_owned();
            format!("not a safetensors file: it begins with {shown:?}; download it again")
        };
        return Err(malformed(pointer(&begin).map_or_else(other, str::to_owned)));
    }
    let mut header = Vec::new();
    file.take(header_bytes).read_to_end(&mut header).map_err(failed)?;
    if (header.len() as u64) < header_bytes {
        return Err(malformed(cut(PREAMBLE + header_bytes, length)));
    }
    let header: Map<String, Value> = serde_json::from_slice(&header)
        .map_err(|error| malformed(format!("its header is damaged ({error}); download it again")))?;
    let mut end = 0;
    for (name, tensor) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        let reason = match place(tensor) {
            Ok(place) => {
                end = end.max(place);
                continue;
            }
            Err(reason) => reason,
        };
        return Err(malformed(format!("{name}: {reason}")));
    }
    let expected = PREAMBLE + header_bytes + end;
    match length.cmp(&expected) {
        std::cmp::Ordering::Less => Err(malformed(cut(expected, length))),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(malformed(format!(
            "the file has {length} bytes, its header describes {expected}; download it again"
        ))),
    }
}

fn cut(expected: u64, found: u64) -> String {
    format!("the file has {found} bytes, expected {expected}: its download was cut off; download it again")
}

/// Where a tensor's data end.
fn place(tensor: &Value) -> Result<u64, String> {
    let damaged = || format!("the header describes it as {tensor}; download the file again");
    let kind = tensor["dtype"].as_str().ok_or_else(damaged)?;
    let Some((_, bits)) = TYPES.iter().find(|(name, _)| *name == kind) else {
        return Err(format!("it is {kind}; expected F32, F16 or BF16, or U32 where it is quantized"));
    };
    let numbers =
        |key: &str| -> Option<Vec<u64>> { tensor[key].as_array()?.iter().map(Value::as_u64).collect() };
    let (Some(shape), Some(offsets)) = (numbers("shape"), numbers("data_offsets")) else {
        return Err(damaged());
    };
    let size = shape.iter().try_fold(*bits, |size, dim| size.checked_mul(*dim)).map(|bits| bits / 8);
    match offsets[..] {
        [begin, end] if size.is_some() && end.checked_sub(begin) == size => Ok(end),
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        check(&path).err().map(|error| error.to_string())
    }

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 1);
        bytes
    }

    const HEADER: &str = r#"{"__metadata__": {"format": "mlx"}, "w": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}}"#;

    #[test]
    fn a_whole_file_is_fine_and_every_other_is_refused_with_what_to_do() {
        assert_eq!(refusal(&file(HEADER, 12)), None);
        let whole = file(HEADER, 12);
        for cut in [0, 5, 8, 9, whole.len() - 12, whole.len() - 1] {
            let text = refusal(&whole[..cut]).unwrap();
            assert!(text.contains(&format!("{cut} bytes")) && text.contains("download"), "{cut}: {text}");
        }
        let cases: [(Vec<u8>, &str); 8] = [
            (file(HEADER, 13), "describes"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n".to_vec(),
                "git lfs pull",
            ),
            (b"<!DOCTYPE html><html>Sign in</html>".to_vec(), "<!DOCTYPE html>"),
            (file("{\"w\": ", 0), "header is damaged"),
            (file(&HEADER.replace("[2, 3]", "[2, 4]"), 12), "w: the header describes it as"),
            (file(&HEADER.replace("12]", "-1]"), 12), "w: the header describes it as"),
            (file(&HEADER.replace("F16", "F4"), 12), "w: it is F4"),
            (file(&HEADER.replace("[2, 3]", "[4294967296, 4294967296, 4294967296]"), 12), "describes it as"),
        ];
        for (bytes, word) in cases {
            let text = refusal(&bytes).unwrap();
            assert!(text.contains(word) && text.contains("model.safetensors"), "{word}: {text}");
        }
    }
}
