//! The model inside the program: unpacked beside the cache on first use, since weights are loaded from files.

use std::io::Write;
use std::path::Path;

use super::{ModelSource, SourceError};

macro_rules! file {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../models/clerk/", $name)))
    };
}

const FILES: [(&str, &[u8]); 5] = [
    file!("config.json"),
    file!("generation_config.json"),
    file!("tokenizer.json"),
    file!("tokenizer_config.json"),
    file!("model.safetensors"),
];

/// Makes sure that `parent/clerk` holds exactly this program's model.
pub(super) fn unpack(parent: &Path) -> Result<ModelSource, SourceError> {
    let dir = parent.join("clerk");
    let failed = |reason| SourceError::Unpack { dir: dir.clone(), reason };
    std::fs::create_dir_all(&dir).map_err(failed)?;
    for (name, bytes) in FILES {
        let path = dir.join(name);
        if std::fs::read(&path).is_ok_and(|found| found == bytes) {
            continue;
        }
        // Another process may be reading the old file, so it is replaced, not overwritten.
        let mut new = tempfile::NamedTempFile::new_in(&dir).map_err(failed)?;
        new.write_all(bytes).map_err(failed)?;
        new.persist(&path).map_err(|error| failed(error.error))?;
    }
    Ok(ModelSource { dir, name: "clerk".into() })
}
