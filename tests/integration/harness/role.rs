//! A role that goes with the test: roles are the cluster's.

use super::TestDb;

/// A role that may log in.
pub(crate) struct Role<'a> {
    db: &'a TestDb,
    pub(crate) name: String,
}

impl<'a> Role<'a> {
    /// A role with these options of CREATE ROLE, and no right to anything in the database.
    #[track_caller]
    pub(crate) fn new(db: &'a TestDb, options: &str) -> Role<'a> {
        Role::made(db, |name| format!("create role {name} login {options}"))
    }

    /// The role of this name that this SQL makes.
    #[track_caller]
    pub(crate) fn made(db: &'a TestDb, sql: impl FnOnce(&str) -> String) -> Role<'a> {
        let name = format!("role_of_{}", db.name());
        db.psql(&sql(&name));
        Role { db, name }
    }

    /// The same, and it may read every table of the schema public.
    #[track_caller]
    pub(crate) fn reader(db: &'a TestDb, options: &str) -> Role<'a> {
        let role = Role::new(db, options);
        db.psql(&format!("grant select on all tables in schema public to {}", role.name));
        role
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.db.psql(&format!("drop owned by {0}; drop role {0}", self.name));
        }
    }
}
