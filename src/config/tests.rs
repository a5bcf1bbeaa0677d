use serde_json::json;

use super::*;

/// Returns the least that a config must have.
fn minimal() -> Value {
    json!({"host": "db", "port": 5432, "user": "tap", "dbname": "Shop-1"})
}

fn parse(text: &str) -> Result<Config> {
    Config::parse(&[("config.json".to_owned(), text.to_owned())])
}

/// Reads the minimal config with these keys on top.
fn with(extra: Value) -> Result<Config> {
    let mut config = minimal();
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    parse(&config.to_string())
}

fn error_of(extra: Value) -> String {
    let error = with(extra).unwrap_err();
    assert_eq!(error.kind().exit_code(), 2);
    error.to_string()
}

#[test]
fn misspelt_keys_are_told_from_those_of_others() {
    let known = Config::keys();
    for (written, expected) in [
        ("replication_slot_nam", "replication_slot_name"),
        ("filter_schema", "filter_schemas"),
        ("defualt_replication_method", "default_replication_method"),
        ("copy_paralelism", "copy_parallelism"),
        ("limits", "limit"),
        ("hosts", "host"),
    ] {
        assert_eq!(read::meant(written, &known), Some(expected), "{written}");
    }
    // Of PipelineWise, Meltano and targets.
    for written in [
        "id",
        "name",
        "type",
        "owner",
        "target",
        "db_conn",
        "batch_size_rows",
        "stream_buffer_size",
        "schemas",
        "sync_period",
        "tables",
        "send_alert",
        "properties",
        "fastsync_parallelism",
        "hard_delete",
        "flattening_enabled",
        "stream_map_config",
        "streams",
        "metadata",
        "stream_maps",
        "faker_config",
        "load_method",
    ] {
        assert_eq!(read::meant(written, &known), None, "{written}");
    }
}

#[test]
fn a_truncate_begins_no_version_that_is_not_activated() {
    let error = error_of(json!({"on_truncate": "activate_version", "activate_version": "false"}));
    assert!(error.contains("on_truncate") && error.contains("activate_version: false"), "{error}");
    assert!(!with(json!({"activate_version": false})).unwrap().activate_version());
}

#[test]
fn defaults_are_the_reference_s() {
    let config = with(json!({})).unwrap();
    assert_eq!((config.hosts(), config.dbname.as_str()), (vec![("db".to_owned(), 5432)], "Shop-1"));
    assert_eq!(config.target_session_attrs, TargetSessionAttrs::Any);
    assert_eq!(config.channel_binding, ChannelBinding::Prefer);
    assert_eq!(config.password, None);
    assert!(config.filter_schemas.is_empty());
    assert_eq!(config.sslmode(), SslMode::Prefer);
    assert_eq!(config.secondary(), None);
    assert_eq!(config.default_replication_method(), None);
    assert_eq!(config.copy_parallelism.get(), 1);
    assert_eq!(config.limit(), None);
    assert_eq!(config.logical_poll(), Duration::from_secs(10_800));
    assert_eq!(config.max_run(), Duration::from_secs(43_200));
    assert!(config.break_at_end_lsn && !config.debug_lsn && !config.create_replication_slot && config.extended_types);
    assert_eq!(config.output_plugin, OutputPluginName::Pgoutput);
    assert_eq!(config.wal_reader, WalReader::Auto);
    assert_eq!(config.bulk_max_wal_mb, 256);
    assert_eq!(config.unchanged_toast, UnchangedToast::Fetch);
    assert_eq!(config.on_slot_lost, OnSlotLost::Fail);
    assert_eq!(config.schema_dialect, SchemaDialect::Portable);
}

#[test]
fn strings_stand_for_numbers_and_booleans() {
    let config = with(json!({
        "port": "6432", "use_secondary": "True", "secondary_host": "replica", "secondary_port": "5433",
        "break_at_end_lsn": "false", "debug_lsn": "true", "limit": "10", "itersize": "20000",
        "logical_poll_total_seconds": "2.5", "max_run_seconds": 7.0, "password": 1234, "tap_id": 5,
        "copy_parallelism": "4"
    }))
    .unwrap();
    assert_eq!(config.hosts()[0].1, 6432);
    assert_eq!(config.secondary(), Some(("replica", 5433)));
    assert!(!config.break_at_end_lsn && config.debug_lsn);
    assert_eq!(config.limit(), Some(10));
    assert_eq!(config.itersize, Some(20_000));
    assert_eq!(config.copy_parallelism.get(), 4);
    assert_eq!(config.logical_poll(), Duration::from_secs(2));
    assert_eq!(config.max_run(), Duration::from_secs(7));
    assert_eq!(config.password.unwrap().expose(), "1234");
    assert_eq!(config.tap_id.as_deref(), Some("5"));
}

#[test]
fn zero_null_and_empty_are_not_set() {
    let config = with(json!({
        "limit": 0, "logical_poll_total_seconds": 0, "max_run_seconds": null, "filter_schemas": "", "tap_id": "",
        "ssl": "", "use_secondary": "", "default_replication_method": null, "password": ""
    }))
    .unwrap();
    assert_eq!(config.limit(), None);
    assert_eq!(config.logical_poll(), Duration::from_secs(10_800));
    assert_eq!(config.max_run(), Duration::from_secs(43_200));
    assert_eq!(config.tap_id, None);
    assert_eq!(config.password, None);
    assert_eq!(config.sslmode(), SslMode::Prefer);
}

#[test]
fn filter_schemas_is_a_text_or_a_list() {
    assert_eq!(with(json!({"filter_schemas": " a, b,,"})).unwrap().filter_schemas, ["a", "b"]);
    assert_eq!(with(json!({"filter_schemas": ["a ", "", "B,c"]})).unwrap().filter_schemas, ["a", "B,c"]);
    assert_eq!(
        error_of(json!({"filter_schemas": [1]})),
        r#"config.json: key "filter_schemas": expected a comma-separated text or a list of texts, found a list"#
    );
}

#[test]
fn later_files_win_key_by_key() {
    let files = [
        ("a.json".to_owned(), json!({"host": "a", "port": 1, "user": "u", "database": "x"}).to_string()),
        ("b.json".to_owned(), json!({"host": "b", "dbname": "y", "tap_id": "t"}).to_string()),
    ];
    let config = Config::parse(&files).unwrap();
    assert_eq!((config.hosts(), config.dbname.as_str()), (vec![("b".to_owned(), 1)], "y"));

    let files = [files[0].clone(), ("c.json".to_owned(), json!({"port": "abc"}).to_string())];
    assert_eq!(
        Config::parse(&files).unwrap_err().to_string(),
        r#"c.json: key "port": "abc" is not a port number (1–65535)"#
    );
}

#[test]
fn other_taps_names_are_taken() {
    let mut config = minimal();
    config.as_object_mut().unwrap().shift_remove("dbname");
    config["database"] = json!("other");
    config["ssl_mode"] = json!("verify-ca");
    config["ssl_certificate_authority"] = json!("/ca.pem");
    config["ssl_client_certificate"] = json!("-----BEGIN CERTIFICATE-----\\nAAAA");
    config["ssl_client_private_key"] = json!("/key.pem");
    let config = parse(&config.to_string()).unwrap();
    assert_eq!(config.dbname, "other");
    assert_eq!(config.sslmode(), SslMode::VerifyCa);
    assert_eq!(config.sslrootcert, Some(PemSource::Path("/ca.pem".into())));
    assert_eq!(config.sslcert, Some(PemSource::Text(Secret::new("-----BEGIN CERTIFICATE-----\nAAAA"))));
    assert_eq!(config.sslkey, Some(PemSource::Path("/key.pem".into())));

    // Ours wins, unless it is not set.
    assert_eq!(with(json!({"database": "other"})).unwrap().dbname, "Shop-1");
    assert_eq!(with(json!({"database": "other", "dbname": ""})).unwrap().dbname, "other");
}

#[test]
fn sslmode_beats_ssl_mode_beats_ssl() {
    let mode = |extra| with(extra).unwrap().sslmode();
    assert_eq!(mode(json!({"ssl": "true"})), SslMode::Require);
    assert_eq!(mode(json!({"ssl": true})), SslMode::Require);
    assert_eq!(mode(json!({"ssl": "false"})), SslMode::Prefer);
    assert_eq!(mode(json!({"ssl": "true", "ssl_mode": "verify-full"})), SslMode::VerifyFull);
    assert_eq!(mode(json!({"ssl": "true", "ssl_mode": "prefer", "sslmode": "disable"})), SslMode::Disable);
}

#[test]
fn ssl_enable_switches_the_meltanolabs_keys() {
    let config = with(json!({
        "ssl_enable": "false", "ssl_mode": "verify-full", "ssl_certificate_authority": "~/.postgresql/root.crl"
    }))
    .unwrap();
    assert_eq!(config.sslmode(), SslMode::Prefer);
    assert_eq!(config.sslrootcert, None);
    assert_eq!(with(json!({"ssl_enable": false, "sslmode": "require"})).unwrap().sslmode(), SslMode::Require);
    assert_eq!(with(json!({"ssl_enable": true})).unwrap().sslmode(), SslMode::VerifyFull);
    assert_eq!(with(json!({"ssl_enable": true, "ssl_mode": "require"})).unwrap().sslmode(), SslMode::Require);
}

#[test]
fn slots() {
    let slots = |extra| with(extra).unwrap().slot_candidates();
    assert_eq!(slots(json!({})), ["pipelinewise_shop_1"]);
    assert_eq!(slots(json!({"tap_id": "My.Tap"})), ["pipelinewise_shop_1", "pipelinewise_shop_1_my_tap"]);
    assert_eq!(slots(json!({"tap_id": "t", "replication_slot_name": "mine"})), ["mine"]);
    let long = slots(json!({"dbname": "é".repeat(80)}));
    assert_eq!(long, [format!("pipelinewise_{}", "_".repeat(50))]);

    assert_eq!(with(json!({})).unwrap().publication("slot"), "slot");
    assert_eq!(with(json!({"publication_name": "Pub"})).unwrap().publication("slot"), "Pub");
    for name in ["Mine", "a-b", &"a".repeat(64)] {
        assert_eq!(
            error_of(json!({"replication_slot_name": name})),
            format!(
                r#"config.json: key "replication_slot_name": "{name}" is not a slot name (1 to 63 of a-z, 0-9 and _)"#
            )
        );
    }
}

#[test]
fn a_secondary_needs_host_and_port() {
    let message = "config.json: key \"use_secondary\": when 'use_secondary' enabled 'secondary_host' and \
                   'secondary_port' must be defined";
    assert_eq!(error_of(json!({"use_secondary": true})), message);
    assert_eq!(error_of(json!({"use_secondary": true, "secondary_host": "x"})), message);
    assert_eq!(with(json!({"secondary_host": "x", "secondary_port": 1})).unwrap().secondary(), None);
}

#[test]
fn missing_keys_are_listed_at_once() {
    let message = |text: &str| parse(text).unwrap_err().to_string();
    assert_eq!(message("{}"), r#"config.json: required keys "host", "user", "dbname" are missing"#);
    assert_eq!(
        message(r#"{"host": "x", "port": 1, "database": "d", "user": null}"#),
        r#"config.json: required key "user" is missing"#
    );
    assert_eq!(message("[]"), r#"config.json: expected an object of settings, {"host": …}"#);
    assert_eq!(message("{\"host\": \"x\",\n}"), "config.json is not valid JSON: trailing comma at line 2 column 1");
    assert!(message("").starts_with("config.json is not valid JSON: EOF"));
}

#[test]
fn wrong_values_are_named() {
    let cases = [
        (json!({"port": "abc"}), r#"key "port": "abc" is not a port number (1–65535)"#),
        (json!({"port": 0}), r#"key "port": 0 is not a port number (1–65535)"#),
        (json!({"port": 70000}), r#"key "port": 70000 is not a port number (1–65535)"#),
        (json!({"host": {}}), r#"key "host": expected a comma-separated text or a list of texts, found an object"#),
        (json!({"host": ","}), r#"key "host": it names no host"#),
        (json!({"port": "1,"}), r#"key "port": "1," is not a port number (1–65535)"#),
        (json!({"port": "1,2"}), r#"key "port": 2 ports for 1 hosts (one port, or one for each host)"#),
        (json!({"copy_parallelism": 0}), r#"key "copy_parallelism": 0 is not a number of connections (1 to 64)"#),
        (json!({"copy_parallelism": "65"}), r#"key "copy_parallelism": "65" is not a number of connections (1 to 64)"#),
        (json!({"limit": -1}), r#"key "limit": -1 is not a whole number of 0 or more"#),
        (json!({"max_run_seconds": "1h"}), r#"key "max_run_seconds": "1h" is not a whole number of 0 or more"#),
        (json!({"break_at_end_lsn": "maybe"}), r#"key "break_at_end_lsn": "maybe" is neither true nor false"#),
        (
            json!({"ssl_mode": "on"}),
            r#"key "ssl_mode": "on" is not one of disable, prefer, require, verify-ca, verify-full"#,
        ),
        (
            json!({"output_plugin": "decoderbufs"}),
            r#"key "output_plugin": "decoderbufs" is not one of pgoutput, wal2json"#,
        ),
        (json!({"wal_reader": 1}), r#"key "wal_reader": "1" is not one of auto, stream, bulk"#),
        (json!({"unchanged_toast": "x"}), r#"key "unchanged_toast": "x" is not one of fetch, omit"#),
        (json!({"on_slot_lost": "x"}), r#"key "on_slot_lost": "x" is not one of fail, copy_again"#),
        (json!({"schema_dialect": "x"}), r#"key "schema_dialect": "x" is not one of portable, reference, meltanolabs"#),
        (
            json!({"default_replication_method": "LOG"}),
            r#"key "default_replication_method": "LOG" is not a replication method (use FULL_TABLE, INCREMENTAL or LOG_BASED)"#,
        ),
    ];
    for (extra, expected) in cases {
        assert_eq!(error_of(extra), format!("config.json: {expected}"));
    }
}

#[test]
fn several_hosts_have_one_port_or_one_each() {
    let hosts = |extra| with(extra).unwrap().hosts();
    let pairs = |pairs: [(&str, u16); 2]| pairs.map(|(host, port)| (host.to_owned(), port)).to_vec();
    assert_eq!(hosts(json!({"host": "h1, h2"})), pairs([("h1", 5432), ("h2", 5432)]));
    assert_eq!(hosts(json!({"host": "h1,h2", "port": "1,2"})), pairs([("h1", 1), ("h2", 2)]));
}

#[test]
fn a_dsn_is_the_keys_that_it_holds() {
    let uri = "postgresql://u:p@h1,h2:1/d?sslmode=verify-full&sslrootcert=/ca&target_session_attrs=primary";
    let config = parse(&json!({"dsn": uri}).to_string()).unwrap();
    assert_eq!(config.hosts(), [("h1".to_owned(), 5432), ("h2".to_owned(), 1)]);
    assert_eq!((config.user.as_str(), config.dbname.as_str()), ("u", "d"));
    assert_eq!(config.password.as_ref().unwrap().expose(), "p");
    assert_eq!((config.sslmode(), config.target_session_attrs), (SslMode::VerifyFull, TargetSessionAttrs::Primary));
    assert_eq!(config.sslrootcert, Some(PemSource::Path("/ca".into())));

    // A single key beats it under each of its names; one that is not set does not.
    let config =
        parse(&json!({"dsn": uri, "user": "x", "host": "", "database": "y", "ssl": "true"}).to_string()).unwrap();
    assert_eq!((config.user.as_str(), config.dbname.as_str()), ("x", "y"));
    assert_eq!((config.hosts().len(), config.sslmode()), (2, SslMode::Require));
    let config = parse(&json!({"dsn": uri, "ssl": "false", "ssl_enable": false}).to_string()).unwrap();
    assert_eq!(config.sslmode(), SslMode::VerifyFull);
}

#[test]
fn sqlalchemy_url_beats_the_single_keys() {
    let url = "postgresql+psycopg2://u:p@h:1/d";
    let config = with(json!({"sqlalchemy_url": url, "password": "x", "sslmode": "require"})).unwrap();
    assert_eq!((config.hosts(), config.user.as_str()), (vec![("h".to_owned(), 1)], "u"));
    assert_eq!((config.password.unwrap().expose(), config.dbname.as_str()), ("p", "d"));
    assert_eq!(with(json!({"sqlalchemy_url": url, "sslmode": "require"})).unwrap().sslmode(), SslMode::Require);
    // Beside a dsn it is not another name of it.
    assert_eq!(with(json!({"sqlalchemy_url": url, "dsn": "user=v"})).unwrap().user, "tap");
}

#[test]
fn what_is_wrong_with_a_dsn_is_told_without_it() {
    let message = |config: Value| parse(&config.to_string()).unwrap_err().to_string();
    let uri = "postgresql://u:hunter2@h";
    assert_eq!(message(json!({"dsn": uri})), r#"config.json: required key "dbname" is missing"#);
    assert_eq!(
        message(json!({"dsn": "host=x port=hunter2", "user": "u", "dbname": "d"})),
        r#"config.json: key "dsn": the value of its port can't be used"#
    );
    assert_eq!(
        message(json!({"sqlalchemy_url": format!("{uri}/d?sslmode=hunter2")})),
        r#"config.json: key "sqlalchemy_url": the value of its sslmode can't be used"#
    );
    assert_eq!(
        message(json!({"dsn": format!("{uri}/d?service=hunter2")})),
        r#"config.json: key "dsn": its parameter "service" is not supported"#
    );
    assert_eq!(
        message(json!({"dsn": "host=a,b port=1,2,3 user=u dbname=d"})),
        r#"config.json: key "dsn": 3 ports for 2 hosts (one port, or one for each host)"#
    );
    assert_eq!(message(json!({"dsn": ["hunter2"]})), r#"config.json: key "dsn": expected a text"#);
    let config = parse(&json!({"dsn": format!("{uri}/d")}).to_string()).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_tunnel_is_an_object_or_keys_with_a_prefix() {
    let object = json!({"enable": "true", "host": "b", "port": "2222", "username": "u", "private_key": "/k",
        "private_key_password": "hunter2", "known_hosts": "/known", "host_key": "ssh-ed25519 AAAA"});
    let prefixed = object.as_object().unwrap().iter().map(|(key, value)| (format!("ssh_tunnel.{key}"), value.clone()));
    for config in [json!({"ssh_tunnel": object}), Value::Object(prefixed.collect())] {
        let config = with(config).unwrap();
        let tunnel = config.ssh_tunnel().unwrap();
        assert_eq!((tunnel.host, tunnel.port, tunnel.username), ("b", 2222, "u"));
        assert_eq!(tunnel.private_key, &PemSource::Path("/k".into()));
        assert_eq!(tunnel.private_key_passphrase.unwrap().expose(), "hunter2");
        assert_eq!((tunnel.known_hosts, tunnel.host_key), (Some(Path::new("/known")), Some("ssh-ed25519 AAAA")));
        assert!(!format!("{config:?}").contains("hunter2"));
    }
    let least = json!({"host": "b", "username": "u", "private_key": "/k"});
    assert_eq!(with(json!({"ssh_tunnel": least})).unwrap().ssh_tunnel().unwrap().port, 22);
    // Later files win key by key, in this object too.
    let first = with(json!({"ssh_tunnel": least})).map(|_| json!({"ssh_tunnel": least}).to_string()).unwrap();
    let second = json!({"ssh_tunnel": {"host": "c"}, "host": "h", "port": 1, "user": "u", "dbname": "d"}).to_string();
    let config = Config::parse(&[("a".to_owned(), first), ("b".to_owned(), second)]).unwrap();
    assert_eq!(config.ssh_tunnel().map(|tunnel| (tunnel.host, tunnel.username)), Some(("c", "u")));
}

#[test]
fn a_tunnel_is_whole_or_off() {
    for off in [
        json!({"ssh_tunnel": null}),
        json!({"ssh_tunnel": {"enable": false, "host": "b", "port": 22}}),
        json!({"ssh_tunnel": {"enable": "false", "host": "b", "username": "u", "private_key": "k"}}),
        json!({"ssh_tunnel": {"port": 22, "username": "u"}}),
    ] {
        assert!(with(off).unwrap().ssh_tunnel().is_none());
    }
    let missing = r#"config.json: required keys "ssh_tunnel.username", "ssh_tunnel.private_key" are missing"#;
    assert_eq!(error_of(json!({"ssh_tunnel": {"host": "b"}})), missing);
    let missing = r#"config.json: required key "ssh_tunnel.host" is missing"#;
    assert_eq!(error_of(json!({"ssh_tunnel": {"enable": true, "username": "u", "private_key": "k"}})), missing);
    let wrong = r#"config.json: key "ssh_tunnel": expected an object, found "b""#;
    assert_eq!(error_of(json!({"ssh_tunnel": "b"})), wrong);
    let wrong = r#"config.json: key "ssh_tunnel.port": 0 is not a port number (1–65535)"#;
    assert_eq!(error_of(json!({"ssh_tunnel": {"port": 0}})), wrong);
}

#[test]
fn every_choice_is_read_back() {
    for word in ["disable", "prefer", "require", "verify-ca", "verify-full"] {
        assert_eq!(with(json!({"sslmode": word})).unwrap().sslmode().word(), word);
    }
    for word in ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"] {
        assert_eq!(with(json!({"target_session_attrs": word})).unwrap().target_session_attrs.word(), word);
    }
    let config = with(json!({
        "output_plugin": "wal2json", "wal_reader": "bulk", "unchanged_toast": "omit", "on_slot_lost": "copy_again",
        "schema_dialect": "reference", "default_replication_method": "LOG_BASED", "extended_types": "false"
    }))
    .unwrap();
    assert_eq!(config.output_plugin, OutputPluginName::Wal2json);
    assert_eq!(config.wal_reader, WalReader::Bulk);
    assert_eq!(config.unchanged_toast, UnchangedToast::Omit);
    assert_eq!(config.on_slot_lost, OnSlotLost::CopyAgain);
    assert_eq!(config.schema_dialect, SchemaDialect::Reference);
    assert_eq!(config.default_replication_method(), Some(ReplicationMethod::LogBased));
    assert!(!config.extended_types);
}

#[test]
fn secrets_are_never_shown() {
    let pem = "-----BEGIN PRIVATE KEY-----hunter2";
    let config = with(json!({"password": "hunter2", "sslkey": pem, "sslcert": pem})).unwrap();
    let debug = format!("{config:?} {}", config.password.as_ref().unwrap());
    assert!(!debug.contains("hunter2"), "{debug}");
    assert!(debug.contains("********"));

    for (key, expected) in [("password", "a text"), ("sslkey", "a path or PEM text")] {
        let message = error_of(json!({ key: ["hunter2"] }));
        assert_eq!(message, format!("config.json: key {key:?}: expected {expected}"));
    }
}

#[test]
fn unknown_keys_are_told_apart() {
    let mut entries = Entries::default();
    entries
        .merge("a.json", r#"{"dbname": "x", "database": "y", "ssl_mode": "prefer", "stream_maps": 1, "ssl_key": 2}"#)
        .unwrap();
    assert_eq!(entries.unknown_keys(&Config::keys()), ["database", "stream_maps", "ssl_key"]);
    assert!(with(json!({"anything": {"a": 1.50}, "ssh_tunnel": {"a": 1.50}})).is_ok());
}

#[test]
fn what_would_hide_data_is_refused() {
    for (key, value) in [
        ("stream_maps", json!({"public-t": {"email": null}})),
        ("stream_maps", json!(r#"{"public-t": {"email": null}}"#)),
        ("faker_config", json!({"seed": "x"})),
        ("flattening_enabled", json!("true")),
    ] {
        let message = error_of(json!({ key: value }));
        assert!(message.contains(&format!("key {key:?}: this tap changes no records")), "{message}");
        assert!(!message.contains("email"), "{message}");
    }
    for unset in
        [json!(null), json!(""), json!({}), json!([]), json!("{}"), json!(false), json!("false"), json!("False")]
    {
        assert!(with(json!({"stream_maps": unset, "flattening_enabled": unset})).is_ok(), "{unset}");
    }
}

#[test]
fn conditions_of_rows() {
    let condition = |value: Value| with(json!({"stream_options": value})).unwrap().where_clauses("public-t");
    assert_eq!(condition(json!({"public-t": {"custom_where_clauses": ["n > 1"]}})).as_deref(), Some("(n > 1\n)"));
    let several = json!({"public-t": {"custom_where_clauses": ["a or b -- either", " "]}, "public-u": {}});
    assert_eq!(condition(several.clone()).as_deref(), Some("(a or b -- either\n)"));
    assert_eq!(condition(json!(several.to_string())).as_deref(), Some("(a or b -- either\n)"));
    let two = json!({"public-t": {"custom_where_clauses": ["a", "b"]}});
    assert_eq!(condition(two).as_deref(), Some("(a\n) AND (b\n)"));
    let without = [json!([]), json!(null)].map(|clauses| json!({"public-t": {"custom_where_clauses": clauses}}));
    for none in [json!({}), json!(null), json!("{}"), json!({"public-t": null})].into_iter().chain(without) {
        assert_eq!(condition(none), None);
    }
    for wrong in
        [json!([1]), json!({"public-t": {"where": ["n > 1"]}}), json!({"public-t": {"custom_where_clauses": "n"}})]
    {
        let error = error_of(json!({ "stream_options": wrong }));
        assert!(error.starts_with(r#"config.json: key "stream_options": expected an object"#), "{error}");
    }
}

#[test]
fn defaults_of_the_meltanolabs_tap() {
    let of = |more: Value| {
        let mut value = json!({"schema_dialect": "meltanolabs"});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with(value)
    };
    let config = of(json!({})).unwrap();
    assert_eq!(config.slot_candidates(), ["tappostgres"]);
    assert_eq!(config.default_replication_method(), Some(ReplicationMethod::FullTable));
    assert!(config.is_of_meltanolabs() && !config.activate_version());
    assert!(of(json!({"activate_version": true})).unwrap().activate_version());
    let config = of(json!({
        "replication_slot_name": "mine", "replication_max_run_seconds": 7, "replication_idle_exit_seconds": 3,
        "max_record_count": 5, "limit": 9, "dates_as_string": true, "json_as_object": true, "log_based_single_connection": true,
        "auto_bootstrap_log_based": true, "default_replication_method": "LOG_BASED"
    }))
    .unwrap();
    assert_eq!(config.slot_candidates(), ["mine"]);
    assert_eq!((config.max_run(), config.logical_poll()), (Duration::from_secs(7), Duration::from_secs(3)));
    assert_eq!((config.max_record_count(), config.limit()), (Some(5), Some(5)));
    assert_eq!(config.default_replication_method(), Some(ReplicationMethod::LogBased));
    for key in ["dates_as_string", "json_as_object"] {
        let error = error_of(json!({ key: true }));
        assert!(
            error.starts_with(&format!("config.json: key {key:?}: it is of the MeltanoLabs tap's schemas alone")),
            "{error}"
        );
        assert!(with(json!({ key: false })).is_ok());
    }
}

/// Off unless they are on, in that tap; elsewhere its keys may stand without the switches.
#[test]
fn switches_of_the_meltanolabs_tap() {
    let read = |dialect: &str, more: Value| {
        let mut value = json!({
            "schema_dialect": dialect, "ssl_mode": "verify-ca", "ssl_certificate_authority": "~/.postgresql/root.crl",
            "ssl_client_certificate": "/cert", "ssl_client_private_key": "/key"
        });
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let config = with(value).unwrap();
        (config.sslmode(), config.sslrootcert.is_some(), config.sslcert.is_some(), config.sslkey.is_some())
    };
    let (on, off) = ((SslMode::VerifyCa, true), (SslMode::Prefer, false));
    for (dialect, switches, (mode, authority), client) in [
        ("meltanolabs", json!({}), off, false),
        ("meltanolabs", json!({"ssl_enable": true}), on, false),
        ("meltanolabs", json!({"ssl_client_certificate_enable": "true"}), off, true),
        ("meltanolabs", json!({"ssl_enable": false, "ssl_client_certificate_enable": true}), off, true),
        ("portable", json!({}), on, true),
        ("portable", json!({"ssl_enable": "false"}), off, false),
        ("portable", json!({"ssl_client_certificate_enable": false}), on, false),
        ("portable", json!({"ssl_enable": true}), on, true),
    ] {
        assert_eq!(read(dialect, switches.clone()), (mode, authority, client, client), "{dialect} {switches}");
    }
    let of_mode = |mode: &str| read("meltanolabs", json!({"ssl_enable": true, "ssl_mode": mode}));
    assert_eq!(of_mode("require"), (SslMode::Require, false, false, false));
    assert_eq!(of_mode("verify-full"), (SslMode::VerifyFull, true, false, false));
    let url = "postgresql://u:p@db/shop?gssencmode=disable";
    let on = json!({"sqlalchemy_url": url, "ssl_enable": true, "ssl_client_certificate_enable": true});
    assert_eq!(read("meltanolabs", on.clone()), (SslMode::Prefer, false, false, false));
    assert_eq!(read("portable", on), (SslMode::VerifyCa, true, true, true));
    assert!(error_of(json!({"dsn": "host=db gssencmode=require"})).contains("\"gssencmode\" is not supported"));
    assert_eq!(with(json!({"ssl_mode": "allow"})).unwrap().sslmode(), SslMode::Prefer);
}

#[test]
fn the_sample_is_a_config() {
    let config = parse(include_str!("../../config.sample.json")).unwrap();
    assert_eq!(config.slot_candidates(), ["pipelinewise_shop"]);
    assert_eq!(config.default_replication_method(), Some(ReplicationMethod::LogBased));
    let mut entries = Entries::default();
    entries.merge("sample", include_str!("../../config.sample.json")).unwrap();
    assert!(entries.unknown_keys(&Config::keys()).is_empty());
}
