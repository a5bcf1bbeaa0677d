//! The tap's tests against a real PostgreSQL: one binary, one private server, a database per test.
//!
//! `harness` runs the server and the tap and compares messages; every other module is a feature.

mod architecture;
mod batches;
mod check;
mod compact;
mod connect;
mod crash;
mod ddl;
mod discovery;
mod docs;
mod files;
mod golden;
mod harness;
mod harness_tests;
mod histories;
mod hostile;
mod incremental;
mod log_based;
mod meanwhile;
mod meltano;
mod meltanolabs;
mod memory;
mod names;
mod operators;
mod outages;
mod parallel;
mod pipelinewise;
mod progress;
mod reference;
mod selection;
mod values;
