//! The registry of types: PostgreSQL type → JSON schema, and PostgreSQL text → JSON.
//!
//! A value enters as the text that PostgreSQL's output function prints under the session settings of
//! [`crate::pg`] (DateStyle ISO, IntervalStyle postgres, TimeZone UTC, bytea_output hex) and leaves as JSON appended to
//! the output line. There is one way through, whichever way the row came.
