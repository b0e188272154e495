//! Git LFS pointers: what a clone without Git LFS has in the place of a large file.

/// What to say of a file that begins with these bytes, when it is a pointer.
pub fn pointer(bytes: &[u8]) -> Option<&'static str> {
    bytes.starts_with(b"version https://git-lfs").then_some(
        "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`, or download the model again",
    )
}
