//! Empty: the manifest beside this file is what the build reads.
