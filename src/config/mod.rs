//! Settings: the reference's keys with its defaults, some of the MeltanoLabs tap's, and our own.
//!
//! To add a key: one field here, with the doc comment that becomes its description in `--about`. The field's type
//! defines what a value may look like (see [`read`]).

mod batch;
mod choices;
mod dsn;
mod environment;
mod read;
mod schema;
mod secret;
mod ssh;
mod stream_options;
#[cfg(test)]
mod tests;
mod variables;

use std::path::Path;
use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::Value;

pub(crate) use batch::BatchConfig;
pub(crate) use choices::{
    BatchCompression, ChannelBinding, Choice, CopyParallelism, OnSlotLost, OnTruncate, OutputPluginName, SchemaDialect,
    SlotName, SslMode, TargetSessionAttrs, UnchangedToast, WalReader,
};
pub(crate) use secret::{PemSource, Secret};
pub(crate) use ssh::SshTunnel;
use stream_options::StreamOptions;

use crate::error::{Error, Result};
use crate::json_file;
use crate::method::ReplicationMethod;
use environment::Environment;
use read::{Entries, other_names, setting};
use schema::{or_dsn, or_string};

/// A STATE follows after so many records where nothing else decides it.
const STATE_RECORDS: u64 = 10_000;

/// The settings of a run.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(transform = or_string, transform = or_dsn)]
pub(crate) struct Config {
    /// The whole connection as libpq writes it: `postgresql://tap@db/shop` or `host=db user=tap dbname=shop`. A single key
    /// that is set beats what it says. `sqlalchemy_url` is accepted too and, as in the MeltanoLabs tap, beats the single
    /// keys.
    #[serde(default, deserialize_with = "setting")]
    #[expect(dead_code, reason = "read apart: its parts become other settings")]
    pub dsn: Option<Secret>,
    /// Host name or address of the server, or the directory of its socket. Several, separated by commas, are tried in this
    /// order; all connections of a run go to the first that fits.
    #[serde(deserialize_with = "setting")]
    #[schemars(with = "String")]
    host: Vec<String>,
    /// Port of the server; for several hosts one, or one for each, separated by commas.
    #[serde(default = "port", deserialize_with = "setting")]
    #[schemars(with = "u16", range(min = 1), default = "default_port")]
    port: Vec<u16>,
    /// User to connect as.
    #[serde(deserialize_with = "setting")]
    pub user: String,
    /// Password of the user; without it PGPASSWORD or the password file is used, as by libpq.
    #[serde(default, deserialize_with = "setting")]
    pub password: Option<Secret>,
    /// Database to read; `database` is accepted too.
    #[serde(deserialize_with = "setting")]
    pub dbname: String,
    /// Which of several hosts to read from, as libpq's target_session_attrs.
    #[serde(default, deserialize_with = "setting")]
    pub target_session_attrs: TargetSessionAttrs,
    /// Schemas to discover: a comma-separated string or a list; all schemas without it.
    #[serde(default, deserialize_with = "setting")]
    pub filter_schemas: Vec<String>,

    /// How the connection is secured, as libpq's sslmode (prefer if nothing is set). Beats `ssl_mode`, which beats `ssl`.
    #[serde(default, deserialize_with = "setting")]
    sslmode: Option<SslMode>,
    /// The MeltanoLabs tap's name of `sslmode`.
    #[serde(default, deserialize_with = "setting")]
    ssl_mode: Option<SslMode>,
    /// The MeltanoLabs tap's switch: true is verify-full unless a mode is set, false makes its other `ssl_` keys count
    /// for nothing.
    #[serde(default, deserialize_with = "setting")]
    ssl_enable: Option<bool>,
    /// The MeltanoLabs tap's switch of `ssl_client_certificate` and `ssl_client_private_key`: without it `ssl_enable` is theirs.
    #[serde(default, deserialize_with = "setting")]
    #[expect(dead_code, reason = "what it switches off is taken out before")]
    ssl_client_certificate_enable: Option<bool>,
    /// True is sslmode require.
    #[serde(default, deserialize_with = "setting")]
    ssl: bool,
    /// Certificates that the server's has to be signed by: path or PEM text; `ssl_certificate_authority` is accepted too.
    #[serde(default, deserialize_with = "setting")]
    pub sslrootcert: Option<PemSource>,
    /// Client certificate: path or PEM text; `ssl_client_certificate` is accepted too.
    #[serde(default, deserialize_with = "setting")]
    pub sslcert: Option<PemSource>,
    /// Key of the client certificate: path or PEM text; `ssl_client_private_key` is accepted too.
    #[serde(default, deserialize_with = "setting")]
    #[schemars(extend("secret" = true, "writeOnly" = true))]
    pub sslkey: Option<PemSource>,
    /// Whether the login is bound to the TLS connection, as libpq's channel_binding.
    #[serde(default, deserialize_with = "setting")]
    pub channel_binding: ChannelBinding,

    /// SSH server (bastion) that every connection goes through. The keys `ssh_tunnel.…` may also stand in an object
    /// `ssh_tunnel`, without that prefix.
    #[serde(rename = "ssh_tunnel.host", default, deserialize_with = "setting")]
    ssh_tunnel_host: Option<String>,
    /// Port of the SSH server.
    #[serde(rename = "ssh_tunnel.port", default = "ssh_port", deserialize_with = "setting")]
    #[schemars(range(min = 1))]
    ssh_tunnel_port: u16,
    /// User of the SSH server.
    #[serde(rename = "ssh_tunnel.username", default, deserialize_with = "setting")]
    ssh_tunnel_username: Option<String>,
    /// Private key of that user: path or text.
    #[serde(rename = "ssh_tunnel.private_key", default, deserialize_with = "setting")]
    #[schemars(extend("secret" = true, "writeOnly" = true))]
    ssh_tunnel_private_key: Option<PemSource>,
    /// Passphrase of an encrypted private key; `private_key_password` is accepted too.
    #[serde(rename = "ssh_tunnel.private_key_passphrase", default, deserialize_with = "setting")]
    ssh_tunnel_private_key_passphrase: Option<Secret>,
    /// Public key of the SSH server, as in its /etc/ssh/ssh_host_ed25519_key.pub.
    #[serde(rename = "ssh_tunnel.host_key", default, deserialize_with = "setting")]
    ssh_tunnel_host_key: Option<String>,
    /// File to look for the SSH server's key in, where `ssh_tunnel.host_key` is not set; ~/.ssh/known_hosts without it.
    #[serde(rename = "ssh_tunnel.known_hosts", default, deserialize_with = "setting")]
    ssh_tunnel_known_hosts: Option<String>,
    /// False is no tunnel, whatever the other keys say.
    #[serde(rename = "ssh_tunnel.enable", default, deserialize_with = "setting")]
    ssh_tunnel_enable: Option<bool>,

    /// Read tables from another server than the write-ahead log: `secondary_host` and `secondary_port`.
    #[serde(default, deserialize_with = "setting")]
    pub use_secondary: bool,
    /// Host of the secondary.
    #[serde(default, deserialize_with = "setting")]
    secondary_host: Option<String>,
    /// Port of the secondary.
    #[serde(default, deserialize_with = "setting")]
    secondary_port: Option<u16>,

    /// Replication method of streams whose catalog entry names none; FULL_TABLE where `schema_dialect` is meltanolabs.
    #[serde(default, deserialize_with = "setting")]
    default_replication_method: Option<ReplicationMethod>,
    /// FULL_TABLE, INCREMENTAL by xmin and the copy that LOG_BASED starts with: how many connections read a large table at a time (1
    /// to 64).
    #[serde(default, deserialize_with = "setting")]
    #[schemars(with = "u8", range(min = 1, max = 64))]
    pub copy_parallelism: CopyParallelism,
    /// Records go into files, of which BATCH messages tell, for targets of the Meltano SDK: `{"storage": {"root": "file:///tmp/batches"}}`.
    #[serde(default, deserialize_with = "setting")]
    pub batch_config: Option<BatchConfig>,
    /// LOG_BASED: of several changes of one row between two STATEs only the last is sent. Not for targets that keep a history.
    #[serde(default, deserialize_with = "setting")]
    pub compact_changes: bool,
    /// INCREMENTAL by a column: at most so many rows of a stream in one run, besides those that have the bookmark's own value.
    #[serde(default, deserialize_with = "setting")]
    limit: Option<u64>,
    /// FULL_TABLE and INCREMENTAL: at most so many rows of a stream in one run, for a trial; the rows that FULL_TABLE does not reach stay
    /// in the target as they were.
    #[serde(default, deserialize_with = "setting")]
    max_record_count: Option<u64>,
    /// FULL_TABLE and INCREMENTAL: which rows of a stream are read, `{"public-orders": {"custom_where_clauses": ["total > 0"]}}`; all of the
    /// conditions, which are SQL of your own.
    #[serde(default, deserialize_with = "setting")]
    #[schemars(with = "StreamOptions")]
    stream_options: StreamOptions,
    /// Accepted and unused: rows are streamed.
    #[serde(default, deserialize_with = "setting")]
    #[allow(dead_code, reason = "accepted for the sake of configs that have it")]
    pub itersize: Option<u64>,

    /// LOG_BASED: end the run after so many seconds without a message; `replication_idle_exit_seconds` is accepted too.
    #[serde(default = "logical_poll_total_seconds", deserialize_with = "setting")]
    logical_poll_total_seconds: u64,
    /// LOG_BASED: end the run where the write-ahead log ended when the run started, or the first copies were made; false goes on until
    /// `logical_poll_total_seconds` or `max_run_seconds`, unless a copy is to go on in the next run.
    #[serde(default = "yes", deserialize_with = "setting")]
    pub break_at_end_lsn: bool,
    /// LOG_BASED: end the run after so many seconds; the copy of a table with a key that is under way by then goes on in the next run.
    /// `replication_max_run_seconds` is accepted too.
    #[serde(default = "max_run_seconds", deserialize_with = "setting")]
    max_run_seconds: u64,
    /// LOG_BASED: of these, how many at most are for copies of tables, so that the changes of others are not kept waiting.
    #[serde(default, deserialize_with = "setting")]
    max_copy_seconds: Option<u64>,
    /// LOG_BASED: add `_sdc_lsn` to the records.
    #[serde(default, deserialize_with = "setting")]
    pub debug_lsn: bool,
    /// Becomes part of the name of the replication slot.
    #[serde(default, deserialize_with = "setting")]
    pub tap_id: Option<String>,

    /// The slot to read; without it `pipelinewise_<dbname>` if that exists, else `pipelinewise_<dbname>_<tap_id>`; `tappostgres` where
    /// `schema_dialect` is meltanolabs.
    #[serde(default, deserialize_with = "setting")]
    #[schemars(with = "Option<String>")]
    replication_slot_name: Option<SlotName>,
    /// The publication to read with pgoutput; without it the slot's name.
    #[serde(default, deserialize_with = "setting")]
    publication_name: Option<String>,
    /// Create slot and publication where they are missing.
    #[serde(default, deserialize_with = "setting")]
    pub create_replication_slot: bool,
    /// Plugin of a slot that the tap creates; an existing slot's plugin is read from the server.
    #[serde(default, deserialize_with = "setting")]
    pub output_plugin: OutputPluginName,
    /// How the write-ahead log is read.
    #[serde(default, deserialize_with = "setting")]
    pub wal_reader: WalReader,
    /// Up to how many MB of write-ahead log `wal_reader: auto` reads in bulk.
    #[serde(default = "bulk_max_wal_mb", deserialize_with = "setting")]
    pub bulk_max_wal_mb: u64,
    /// What becomes of a large value that an update left alone and the log therefore leaves out.
    #[serde(default, deserialize_with = "setting")]
    pub unchanged_toast: UnchangedToast,
    /// What to do where the slot is lost or can no longer serve a bookmark.
    #[serde(default, deserialize_with = "setting")]
    pub on_slot_lost: OnSlotLost,
    /// What TRUNCATE of a LOG_BASED table does.
    #[serde(default, deserialize_with = "setting")]
    pub on_truncate: OnTruncate,

    /// False leaves out the types that the reference calls unsupported.
    #[serde(default = "yes", deserialize_with = "setting")]
    pub extended_types: bool,
    /// How schemas are written. Where Meltano says that the tap stands in for the MeltanoLabs variant, the default is meltanolabs.
    #[serde(default, deserialize_with = "setting")]
    pub schema_dialect: SchemaDialect,
    /// Whether records have versions and ACTIVATE_VERSION messages are sent: false for targets that don't know them, which then keep the rows
    /// that FULL_TABLE does not find any more. True, unless `schema_dialect` is meltanolabs.
    #[serde(default, deserialize_with = "setting")]
    activate_version: Option<bool>,
    /// With `schema_dialect: meltanolabs`: days and timestamps are strings as PostgreSQL prints them.
    #[serde(default, deserialize_with = "setting")]
    pub dates_as_string: bool,
    /// With `schema_dialect: meltanolabs`: the schema of json and jsonb says that they are objects.
    #[serde(default, deserialize_with = "setting")]
    pub json_as_object: bool,
    /// A numeric(p,s) of at most 38 digits is a string whose schema says precision and scale (`x-singer.decimal`), of which targets of the
    /// Meltano SDK make a DECIMAL(p,s), where a number becomes a double in some (target-snowflake).
    #[serde(default, deserialize_with = "setting")]
    pub use_singer_decimal: bool,
    /// The MeltanoLabs tap's: all streams are read by one connection in one pass here, whatever it says.
    #[serde(default, deserialize_with = "setting")]
    log_based_single_connection: bool,
    /// The MeltanoLabs tap's: a stream that has no bookmark is copied here, whatever it says.
    #[serde(default, deserialize_with = "setting")]
    auto_bootstrap_log_based: bool,
}

fn yes() -> bool {
    true
}

fn port() -> Vec<u16> {
    vec![default_port()]
}

fn default_port() -> u16 {
    5432
}

fn ssh_port() -> u16 {
    22
}

fn logical_poll_total_seconds() -> u64 {
    10_800
}

fn max_run_seconds() -> u64 {
    43_200
}

fn bulk_max_wal_mb() -> u64 {
    256
}

/// The slot that the MeltanoLabs tap reads without a setting.
const MELTANOLABS_SLOT: &str = "tappostgres";

/// The config file that is none: the settings are in environment variables, as in the Meltano SDK's taps.
const ENVIRONMENT: &str = "ENV";

/// The longest name that PostgreSQL keeps (NAMEDATALEN - 1).
const LONGEST_NAME: usize = 63;

impl Config {
    /// Reads the files; later ones win key by key. One called `ENV` is the environment.
    pub(crate) fn load<P: AsRef<Path>>(paths: &[P]) -> Result<Config> {
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let path = path.as_ref();
            if path == Path::new(ENVIRONMENT) {
                let names: Vec<String> = Config::keys().into_iter().chain(other_names()).collect();
                files.push(variables::settings(&names));
            } else {
                files.push((path.display().to_string(), json_file::read(path)?));
            }
        }
        let environment = Environment::read();
        environment.check()?;
        Config::within(&environment, &files)
    }

    /// Reads files that are loaded already, each a name and its text, and nothing else.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn parse(files: &[(String, String)]) -> Result<Config> {
        Config::within(&Environment::default(), files)
    }

    fn within(environment: &Environment, files: &[(String, String)]) -> Result<Config> {
        let mut entries = Entries::default();
        for (file, text) in files {
            entries.merge(file, text)?;
        }
        let entries = entries.settled(environment).with_dsn()?.with_environment(environment);
        entries.check_transformations()?;
        entries.check_required(&["host", "user", "dbname"])?;
        if entries.has_tunnel() {
            entries.check_required(&["ssh_tunnel.host", "ssh_tunnel.username", "ssh_tunnel.private_key"])?;
        }
        let known = Config::keys();
        for (place, meant) in entries.misspelt(&known) {
            tracing::warn!("{place} has no meaning here: is \"{meant}\" meant?");
        }
        let unknown = entries.unknown_keys(&known);
        if !unknown.is_empty() {
            tracing::debug!("config keys without a meaning here: {}", unknown.join(", "));
        }
        let (secondary, port) = (entries.place("use_secondary"), entries.place("port"));
        let (host, on_truncate) = (entries.place("host"), entries.place("on_truncate"));
        let of_meltanolabs = [entries.place("dates_as_string"), entries.place("json_as_object")];
        let config = entries.into_settings::<Config>()?;
        let (hosts, ports) = (config.host.len(), config.port.len());
        if hosts == 0 {
            return Err(Error::usage(format!("{host}: it names no host")));
        }
        if ports != 1 && ports != hosts {
            return Err(
                Error::usage(format!("{port}: {ports} ports for {hosts} hosts")).hint("one port, or one for each host")
            );
        }
        if config.use_secondary && config.secondary().is_none() {
            return Err(Error::usage(format!(
                "{secondary}: when 'use_secondary' enabled 'secondary_host' and 'secondary_port' must be defined"
            )));
        }
        if config.on_truncate == OnTruncate::ActivateVersion && !config.activate_version() {
            let error = Error::usage(format!("{on_truncate}: a TRUNCATE can't begin a version that is not activated"));
            return Err(error.hint("take out activate_version: false, or on_truncate"));
        }
        let asked = [config.dates_as_string, config.json_as_object];
        if let Some((place, _)) =
            of_meltanolabs.iter().zip(asked).find(|(_, asked)| *asked && !config.is_of_meltanolabs())
        {
            let error = Error::usage(format!("{place}: it is of the MeltanoLabs tap's schemas alone"));
            return Err(error.hint("set schema_dialect to meltanolabs, or take it out"));
        }
        Ok(config)
    }

    /// Returns the JSON schema of the settings.
    pub(crate) fn schema() -> Schema {
        schemars::schema_for!(Config)
    }

    fn keys() -> Vec<String> {
        let schema = Config::schema();
        let properties = schema.get("properties").and_then(Value::as_object);
        properties.map(|p| p.keys().cloned().collect()).unwrap_or_default()
    }

    /// Returns the hosts with their ports, in the order in which they are tried.
    pub(crate) fn hosts(&self) -> Vec<(String, u16)> {
        self.host.iter().cloned().zip(self.port.iter().copied().cycle()).collect()
    }

    /// Returns how the connection is secured.
    pub(crate) fn sslmode(&self) -> SslMode {
        let switched_on = (self.ssl_enable == Some(true)).then_some(SslMode::VerifyFull);
        let required = self.ssl.then_some(SslMode::Require);
        self.sslmode.or(self.ssl_mode).or(switched_on).or(required).unwrap_or_default()
    }

    /// Returns host and port of the server that tables are read from, where that is another one.
    pub(crate) fn secondary(&self) -> Option<(&str, u16)> {
        self.secondary_host.as_deref().zip(self.secondary_port).filter(|_| self.use_secondary)
    }

    /// Whether the run stands in for one of the MeltanoLabs tap.
    pub(crate) fn is_of_meltanolabs(&self) -> bool {
        self.schema_dialect == SchemaDialect::MeltanoLabs
    }

    /// Whether the MeltanoLabs tap, with these settings, copies a LOG_BASED table before it reads its changes.
    pub(crate) fn meltanolabs_copies(&self) -> bool {
        self.log_based_single_connection && self.auto_bootstrap_log_based
    }

    /// Whether records have versions, which ACTIVATE_VERSION messages make valid.
    pub(crate) fn activate_version(&self) -> bool {
        self.activate_version.unwrap_or(!self.is_of_meltanolabs())
    }

    /// Returns the method of streams whose catalog entry names none, where the config says or implies it.
    pub(crate) fn default_replication_method(&self) -> Option<ReplicationMethod> {
        self.default_replication_method.or(self.is_of_meltanolabs().then_some(ReplicationMethod::FullTable))
    }

    /// Returns the number of rows of an INCREMENTAL stream after which a STATE follows: a file of a batch ends there.
    pub(crate) fn rows_between_states(&self) -> u64 {
        self.batch_config.as_ref().map_or(STATE_RECORDS, |batches| batches.batch_size.get())
    }

    /// Returns the number of changes after which a STATE follows, besides by time: compaction and files of batches end there.
    pub(crate) fn changes_between_states(&self) -> u64 {
        if self.compact_changes { u64::MAX } else { self.rows_between_states().max(STATE_RECORDS) }
    }

    /// Returns the largest number of rows of an INCREMENTAL stream in one run.
    pub(crate) fn limit(&self) -> Option<u64> {
        [self.limit.filter(|&rows| rows > 0), self.max_record_count()].into_iter().flatten().min()
    }

    /// Returns the largest number of rows of a stream in a run that is a trial.
    pub(crate) fn max_record_count(&self) -> Option<u64> {
        self.max_record_count.filter(|&rows| rows > 0)
    }

    /// Returns the condition of the rows of a stream that are read, SQL of the user's.
    pub(crate) fn where_clauses(&self, stream: &str) -> Option<String> {
        self.stream_options.condition(stream)
    }

    /// Returns the streams that have options.
    pub(crate) fn streams_with_options(&self) -> impl Iterator<Item = &str> {
        self.stream_options.streams()
    }

    /// Returns how long the stream of changes may be silent before the run ends. 0 is the default, as in the reference.
    pub(crate) fn logical_poll(&self) -> Duration {
        let seconds = self.logical_poll_total_seconds;
        Duration::from_secs(if seconds == 0 { logical_poll_total_seconds() } else { seconds })
    }

    /// Returns the time limit of the stream phase.
    pub(crate) fn max_run(&self) -> Duration {
        Duration::from_secs(self.max_run_seconds)
    }

    /// Returns how long tables may be copied.
    pub(crate) fn max_copy(&self) -> Option<Duration> {
        self.max_copy_seconds.map(Duration::from_secs)
    }

    /// Returns the slots to look for, in this order; the last is the one to create.
    pub(crate) fn slot_candidates(&self) -> Vec<String> {
        if let Some(name) = &self.replication_slot_name {
            return vec![name.as_str().to_owned()];
        }
        if self.is_of_meltanolabs() {
            return vec![MELTANOLABS_SLOT.to_owned()];
        }
        let mut candidates = vec![slot_name(&self.dbname)];
        if let Some(tap_id) = &self.tap_id {
            candidates.push(slot_name(&format!("{}_{tap_id}", self.dbname)));
        }
        candidates
    }

    /// Returns the publication to read from a slot.
    pub(crate) fn publication<'a>(&'a self, slot: &'a str) -> &'a str {
        self.publication_name.as_deref().unwrap_or(slot)
    }
}

fn slot_name(suffix: &str) -> String {
    let name = format!("pipelinewise_{suffix}").to_lowercase();
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_');
    // Every character is a byte from here on, so that cutting characters cuts bytes.
    name.chars().map(|c| if allowed(c) { c } else { '_' }).take(LONGEST_NAME).collect()
}
