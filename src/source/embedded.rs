//! The model inside the program: unpacked beside the cache on first use, since weights are loaded from files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ModelSource, SourceError};

macro_rules! file {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../models/clerk/", $name)))
    };
}

const NAME: &str = "clerk";

const FILES: [(&str, &[u8]); 5] = [
    file!("config.json"),
    file!("generation_config.json"),
    file!("tokenizer.json"),
    file!("tokenizer_config.json"),
    file!("model.safetensors"),
];

/// Makes sure that `parent/clerk` holds exactly this program's model. Where that cannot be written, a directory that lives
/// as long as the source does.
pub(super) fn unpack(parent: &Path) -> Result<ModelSource, SourceError> {
    let dir = parent.join("clerk");
    let Err(reason) = write(&dir) else {
        return Ok(ModelSource { dir, name: NAME.into(), _temporary: None });
    };
    let mut tried = vec![format!("{}: {reason}", dir.display())];
    // Memory, where the system lends some in the shape of files.
    for place in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
        let made = tempfile::Builder::new().prefix("prefixd-").tempdir_in(&place);
        let written = made.and_then(|made| write(made.path()).map(|()| made));
        match written {
            Ok(made) => {
                tracing::debug!("the embedded model is in {}: {}", made.path().display(), tried.join("; "));
                let dir = made.path().to_owned();
                return Ok(ModelSource { dir, name: NAME.into(), _temporary: Some(Arc::new(made)) });
            }
            Err(reason) => tried.push(format!("{}: {reason}", place.display())),
        }
    }
    Err(SourceError::Unpack { tried })
}

fn write(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for (name, bytes) in FILES {
        let path = dir.join(name);
        if std::fs::read(&path).is_ok_and(|found| found == bytes) {
            continue;
        }
        // Another process may be reading the old file, so it is replaced, not overwritten.
        let mut new = tempfile::NamedTempFile::new_in(dir)?;
        new.write_all(bytes)?;
        new.persist(&path).map_err(|error| error.error)?;
    }
    Ok(())
}
