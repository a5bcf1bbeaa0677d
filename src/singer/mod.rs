//! Singer messages and the writer that puts them on stdout.
