//! Numbered, frozen, idempotent steps of prefixd's block index.
//!
//! The index is a sled database derived from the block files: it can always be rebuilt, so a step may drop what it
//! cannot carry over, but it must never invent a row. Opening an index runs every step after its version, in order.
//!
//! 1. A step that was released is never edited: a new layout is a new row type, a new step and a new fixture.
//! 2. A step may be interrupted and run again: the version is written after its work, and flushed.
//! 3. A version this build does not know is refused, never guessed at.
//!
//! Not here: what the rows mean to the cache, and the rebuild from block headers.
#![forbid(unsafe_code)]

pub mod v1;
pub mod v2;
pub mod v3;

/// The version this build writes.
pub const VERSION: u32 = 3;

/// Row types of [`VERSION`], and what they are made of.
pub use v2::{DEFAULT_PRIORITY, MAX_PRIORITY, Row, Window};
pub use v3::SnapshotRow;

/// Name of the sled tree that holds the rows: block key -> row.
pub const BLOCKS_TREE: &str = "blocks";
/// Name of the sled tree that holds the rows of snapshots: snapshot key -> row.
pub const SNAPSHOTS_TREE: &str = "snapshots";
/// Name of the sled tree that holds what is true of the whole store.
pub const META_TREE: &str = "meta";
const VERSION_KEY: &str = "version";

/// Why an index could not be brought to [`VERSION`].
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// Written by a newer build.
    #[error("index version {found} found, this build knows versions up to {known}")]
    Newer {
        /// The version in the index.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// The version cannot be read.
    #[error("index version is {found} bytes long, expected 4")]
    Version {
        /// Its length in bytes.
        found: usize,
    },
    /// The database failed.
    #[error("index database: {0}")]
    Database(#[from] sled::Error),
}

/// One step: brings a database of the version before it to its own.
struct Step {
    version: u32,
    run: fn(&sled::Db) -> Result<(), MigrationError>,
}

/// Every step, in order of version.
const STEPS: &[Step] = &[
    Step { version: 1, run: v1::migrate },
    Step { version: 2, run: v2::migrate },
    Step { version: 3, run: v3::migrate },
];

/// Brings the index to [`VERSION`] and says which version it found; 0 is a new or unversioned database.
///
/// # Errors
/// A newer or unreadable version; a database that fails.
pub fn migrate(db: &sled::Db) -> Result<u32, MigrationError> {
    let found = version(db)?;
    if found > VERSION {
        return Err(MigrationError::Newer { found, known: VERSION });
    }
    for step in STEPS.iter().filter(|step| step.version > found) {
        (step.run)(db)?;
        db.flush()?;
        db.open_tree(META_TREE)?.insert(VERSION_KEY, &step.version.to_le_bytes())?;
        db.flush()?;
    }
    Ok(found)
}

fn version(db: &sled::Db) -> Result<u32, MigrationError> {
    match db.open_tree(META_TREE)?.get(VERSION_KEY)? {
        None => Ok(0),
        Some(bytes) => <[u8; 4]>::try_from(&*bytes)
            .map(u32::from_le_bytes)
            .map_err(|_| MigrationError::Version { found: bytes.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> sled::Db {
        sled::Config::new().temporary(true).open().unwrap()
    }

    /// Fills a database from a fixture: lines of `tree key value`, key and value in hexadecimal, `-` for none.
    fn load(text: &str) -> sled::Db {
        let db = database();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [tree, key, value] = words[..] else { panic!("fixture line {line:?}") };
            db.open_tree(tree).unwrap().insert(unhex(key), unhex(value)).unwrap();
        }
        db
    }

    fn unhex(text: &str) -> Vec<u8> {
        assert_eq!(text.len() % 2, 0);
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn an_empty_database_gets_the_current_version() {
        let db = database();
        assert_eq!(migrate(&db).unwrap(), 0);
        assert_eq!(migrate(&db).unwrap(), VERSION);
    }

    #[test]
    fn what_an_unversioned_database_holds_is_dropped() {
        let db = load("blocks 0102 03\nother 01 02");
        migrate(&db).unwrap();
        assert_eq!(db.open_tree(BLOCKS_TREE).unwrap().len(), 0);
        assert!(!db.tree_names().iter().any(|name| name == b"other"));
    }

    fn rows(db: &sled::Db) -> Vec<([u8; 32], Row)> {
        let row = |entry: (sled::IVec, sled::IVec)| {
            (entry.0.as_ref().try_into().unwrap(), Row::decode(&entry.1).unwrap())
        };
        db.open_tree(BLOCKS_TREE).unwrap().iter().map(|entry| row(entry.unwrap())).collect()
    }

    #[test]
    fn a_version_1_index_keeps_its_rows() {
        let db = load(include_str!("../fixtures/v1.txt"));
        assert_eq!(migrate(&db).unwrap(), 1);
        let rows = rows(&db);
        assert_eq!(rows.len(), 2);
        let (key, first) = &rows[0];
        assert_eq!(*key, [0xa1; 32]);
        assert_eq!((first.parent, first.start, &first.tokens[..]), (None, 0, &[1, 2, 70_000][..]));
        let second = &rows[1].1;
        assert_eq!((second.parent, second.start), (Some([0xa1; 32]), 3));
        assert_eq!((second.fingerprint, second.tenant), ([0xf0; 32], [0xee; 32]));
        assert_eq!((second.file_bytes, second.allocated_bytes), (5_000, 8_192));
        assert_eq!((second.window, second.priority, second.ttl_us), (Window::Inside, 50, 0));
        assert_eq!(
            (second.last_use_us, second.hits, &second.tokens[..]),
            (1_700_000_000_000_001, 9, &[4][..])
        );
        assert!((second.reuse - 2.5).abs() < f32::EPSILON);
    }

    #[test]
    fn a_version_2_index_keeps_its_rows() {
        let db = load(include_str!("../fixtures/v2.txt"));
        assert_eq!(migrate(&db).unwrap(), 2);
        let rows = rows(&db);
        let [(key, row)] = &rows[..] else { panic!("{} rows", rows.len()) };
        assert_eq!((*key, row.start, row.file_bytes, row.allocated_bytes), ([0xc3; 32], 256, 5_000, 8_192));
        assert_eq!(row.window, Window::Apart { file_bytes: 6_000, allocated_bytes: 12_288 });
        assert_eq!((row.priority, row.pinned_until_us, row.ttl_us), (80, u64::MAX, 300_000_000));
        assert_eq!(
            (row.last_use_us, row.hits, &row.tokens[..]),
            (1_700_000_000_000_001, 9, &[4, 70_000][..])
        );
    }

    #[test]
    fn a_version_3_index_keeps_its_rows_and_has_those_of_snapshots_beside_them() {
        let db = load(include_str!("../fixtures/v3.txt"));
        assert_eq!(migrate(&db).unwrap(), 3);
        assert_eq!(rows(&db).len(), 1);
        let snapshots: Vec<SnapshotRow> = db
            .open_tree(SNAPSHOTS_TREE)
            .unwrap()
            .iter()
            .map(|entry| SnapshotRow::decode(&entry.unwrap().1).unwrap())
            .collect();
        let [row] = &snapshots[..] else { panic!("{} rows", snapshots.len()) };
        assert_eq!((row.parent, row.start, &row.tokens[..]), (Some([0xc3; 32]), 512, &[4, 70_000][..]));
        assert_eq!((row.fingerprint, row.tenant), ([0xf0; 32], [0xee; 32]));
        assert_eq!((row.file_bytes, row.allocated_bytes), (5_000, 8_192));
        assert_eq!((row.last_use_us, row.pinned_until_us), (1_700_000_000_000_001, 1_800_000_000_000_000));
    }

    #[test]
    fn a_migration_that_was_interrupted_goes_on_where_it_stopped() {
        let (whole, db) =
            (load(include_str!("../fixtures/v1.txt")), load(include_str!("../fixtures/v1.txt")));
        migrate(&whole).unwrap();
        // One row was carried over, the version was not written.
        let (key, row) = rows(&whole).remove(0);
        db.open_tree(BLOCKS_TREE).unwrap().insert(key, row.encode()).unwrap();
        migrate(&db).unwrap();
        assert_eq!(rows(&db), rows(&whole));
    }

    #[test]
    fn a_newer_index_is_refused_and_left_alone() {
        let db = load("meta 76657273696f6e 63000000\nblocks 01 02");
        let error = migrate(&db).unwrap_err();
        assert_eq!(error.to_string(), "index version 99 found, this build knows versions up to 3");
        assert_eq!(db.open_tree(BLOCKS_TREE).unwrap().len(), 1);
    }

    #[test]
    fn a_version_of_the_wrong_length_is_refused() {
        let db = load("meta 76657273696f6e 6300");
        assert!(matches!(migrate(&db), Err(MigrationError::Version { found: 2 })));
    }

    #[test]
    fn steps_are_numbered_without_gaps_up_to_the_current_version() {
        let versions: Vec<u32> = STEPS.iter().map(|step| step.version).collect();
        assert_eq!(versions, (1..=VERSION).collect::<Vec<_>>());
    }
}
