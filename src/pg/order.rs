//! How an index compares the values of a type: the operators of its default btree operator class.
//!
//! An operator that is written by its name alone is looked up in the search_path, which need not have the schema of an
//! extension, and may have one where others create operators. These stand with their schema.

use super::quote;

/// A comparison, as the strategies of a btree number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Less,
    AtMost,
    Equal,
    AtLeast,
    Greater,
}

impl Comparison {
    /// All of them, by strategy.
    const ALL: [Comparison; 5] =
        [Comparison::Less, Comparison::AtMost, Comparison::Equal, Comparison::AtLeast, Comparison::Greater];
}

/// The order of a type's values.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// What makes of a column or a literal what the operators take: `::pg_catalog.varchar::pg_catalog.text`.
    cast: String,
    /// `OPERATOR(schema.=)`, by strategy.
    operators: [String; Comparison::ALL.len()],
}

impl Order {
    /// Returns the order that these operators of `schema` make, named by strategy; `None` unless there is one for each.
    /// `types`: the type and, where its operators are those of another, that one; schema and name.
    pub(crate) fn new<'a>(
        types: impl IntoIterator<Item = (&'a str, &'a str)>,
        schema: &str,
        names: &[String],
    ) -> Option<Order> {
        let cast = types.into_iter().map(|(schema, name)| format!("::{}", quote::qualified(schema, name))).collect();
        let names: &[String; Comparison::ALL.len()] = names.try_into().ok()?;
        let operators = names.each_ref().map(|name| format!("OPERATOR({}.{name})", quote::ident(schema)));
        Some(Order { cast, operators })
    }

    /// Returns the operator, to stand between two operands that were [cast](Self::cast).
    pub(crate) fn operator(&self, comparison: Comparison) -> &str {
        &self.operators[comparison as usize]
    }

    /// Returns a column or a literal as the operators take it. The length of a `varchar(20)` is not part of that; an
    /// index of the column still serves.
    pub(crate) fn cast(&self, operand: &str) -> String {
        format!("{operand}{}", self.cast)
    }

    /// Returns the condition that two columns or literals compare like this.
    pub(crate) fn compare(&self, left: &str, comparison: Comparison, right: &str) -> String {
        format!("{} {} {}", self.cast(left), self.operator(comparison), self.cast(right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_stand_with_their_schema() {
        let names = ["<", "<=", "=", ">=", ">"].map(str::to_owned);
        let types = [("pg_catalog", "varchar"), ("pg_catalog", "text")];
        let order = Order::new(types, "pg_catalog", &names).unwrap();
        let written = Comparison::ALL.map(|comparison| order.operator(comparison));
        assert_eq!(written[0], r#"OPERATOR("pg_catalog".<)"#);
        assert_eq!(written[2], r#"OPERATOR("pg_catalog".=)"#);
        assert_eq!(
            order.compare("t.k", Comparison::AtLeast, "'a'"),
            r#"t.k::"pg_catalog"."varchar"::"pg_catalog"."text" OPERATOR("pg_catalog".>=) 'a'::"pg_catalog"."varchar"::"pg_catalog"."text""#
        );
        assert!(Order::new(types, "pg_catalog", &names[1..]).is_none());
    }
}
