//! Identifiers and literals that are safe inside SQL.

/// Returns `name` as a quoted identifier: `"na""me"`.
pub(crate) fn ident(name: &str) -> String {
    postgres_protocol::escape::escape_identifier(name)
}

/// Returns `schema.name`, both quoted.
pub(crate) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// Returns `value` as a string literal; ` E'…'` where it holds a backslash, so that the server's
/// `standard_conforming_strings` does not matter.
pub(crate) fn literal(value: &str) -> String {
    postgres_protocol::escape::escape_literal(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(qualified("Odd \"S\"", "t.x"), r#""Odd ""S"""."t.x""#);
        assert_eq!(literal("O'Hara"), "'O''Hara'");
        assert_eq!(literal(r"a\'"), r" E'a\\'''");
    }
}
