//! The failures that an earlier system of this kind paid for, one file each: every test makes the conditions of the
//! failure again, concurrent where it was concurrent, and says which protection it stands for and what it shows when
//! that protection is taken away.

mod batch_changes;
mod race;
mod silence;
mod support;
mod threads;
mod tokenizer;
mod window;
