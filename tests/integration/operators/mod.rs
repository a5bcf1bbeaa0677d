//! Which operators, casts and functions the tap's SQL calls: PostgreSQL's and those of a type's own extension, and nothing
//! else that a search_path could lead to.

mod keys;
mod others;
mod paths;
