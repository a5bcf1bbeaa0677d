//! What every test needs: a server ([`Cluster`]), a database ([`TestDb`]), the program ([`Tap`]), and comparisons.
#![allow(dead_code, reason = "an API for tests: not every build uses all of it")]

pub(crate) mod background;
pub(crate) mod catalog;
pub(crate) mod cluster;
pub(crate) mod compare;
pub(crate) mod database;
pub(crate) mod decimal;
pub(crate) mod listener;
pub(crate) mod messages;
pub(crate) mod peak;
pub(crate) mod random;
pub(crate) mod release;
pub(crate) mod role;
pub(crate) mod running;
pub(crate) mod tap;
pub(crate) mod target;
pub(crate) mod wait;

pub(crate) use background::Background;
pub(crate) use catalog::Catalog;
pub(crate) use cluster::{Cluster, plugins};
pub(crate) use database::TestDb;
pub(crate) use messages::{Message, check_protocol};
pub(crate) use release::{needs, release};
pub(crate) use role::Role;
pub(crate) use running::{Running, Stalled};
pub(crate) use tap::{Output, Tap};
pub(crate) use wait::{until, until_within};
