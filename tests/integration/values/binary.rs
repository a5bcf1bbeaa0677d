//! Tables that are read in binary form: what the tap makes of it is what the server prints.

use serde_json::{Map, Value};

use crate::harness::{Tap, TestDb};

/// Every type that is read so, in tables without a domain and with one; random values, and those at the ends.
const TABLE: &str = "
    create domain money_amount as numeric(20,4); create domain day as date; create type mood as enum ('sad', 'ok', E'h\"\\\\äppy');
    create table t (id serial primary key, b bool, i2 int2, i4 int4, i8 int8, o oid, t text, v varchar(20), c char(7), n name, j json,
        jb jsonb, u uuid, by bytea, n1 numeric, n2 numeric(30,10), n3 money_amount, n4 numeric(9,-3), d date, dd day, ti time, ti3 time(3),
        ts timestamp, ts2 timestamp(2), tz timestamptz, tz0 timestamptz(0), m mood);
    select setseed(0.42) \\g /dev/null
    create function one_of(text[]) returns text language sql volatile as $$ select $1[1 + (random() * array_length($1, 1) - 0.5)::int] $$;
    create function digits(int) returns text language sql volatile as
        $$ select coalesce(string_agg((random() * 9)::int::text, ''), '0') from generate_series(1, (random() * $1)::int) $$;
    insert into t (b, i2, i4, i8, o, t, v, c, n, j, jb, u, by, n1, n2, n3, n4, d, dd, ti, ti3, ts, ts2, tz, tz0, m)
    select random() < 0.5, (random() * 65535 - 32768)::int2, (random() * 4294967294 - 2147483647)::int4, ((random() - 0.5) * 1.8e19)::int8,
        (random() * 4294967295)::int8::oid, one_of(array['', E'a\\tb\\n\\\\', 'größe', '\\N', repeat('x', 3000)]), md5(i::text)::varchar(20),
        one_of(array['', 'a', 'abcdefg']), one_of(array['n', 'ü']), '{\"a\":  1.10}', jsonb_build_object('k', i, 'x', '\"\\'),
        md5(i::text)::uuid, decode(md5(i::text), 'hex'),
        (one_of(array['', '-']) || digits(40) || '.' || digits(30))::numeric, (one_of(array['', '-']) || digits(18) || '.' || digits(12))::numeric,
        ((random() - 0.5) * 1e15)::numeric, ((random() - 0.5) * 1e11)::numeric,
        '2000-01-01'::date + ((random() - 0.5) * 4e6)::int % 700000, '2000-01-01'::date + (random() * 2000000)::int,
        '00:00'::time + random() * interval '24 hours', '00:00'::time + random() * interval '24 hours',
        '2000-01-01'::timestamp + (random() - 0.5) * interval '3000 years', now()::timestamp + random() * interval '1 day',
        '1970-01-01Z'::timestamptz + (random() - 0.02) * interval '200000 years' * random() ^ 8, now() + random() * interval '90 days',
        one_of(array['sad', 'ok', E'h\"\\\\äppy'])::mood
        from generate_series(1, 4000) i;
    insert into t default values;
    insert into t (i2, i4, i8, n1, d, ts, tz, ti) values
        (-32768, -2147483648, -9223372036854775808, 'NaN', 'infinity', 'infinity', 'infinity', '24:00'),
        (32767, 2147483647, 9223372036854775807, '0.00', '-infinity', '-infinity', '-infinity', '00:00'),
        (0, 0, 0, 1e-1000, '4713-11-24 BC', '4713-11-24 00:00:00 BC', '4713-11-24 00:00:00.000001 BC', '23:59:59.999999'),
        (0, 0, 0, -1e1000, '5874897-12-31', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '00:00:00.000001'),
        (0, 0, 0, 10000, '0001-01-01', '0001-12-31 23:59:59.9 BC', '0001-01-01 00:00:00.10+00', '12:00'),
        (0, 0, 0, 0.0001, '10000-01-01', '9999-12-31 23:59:59', '10000-01-01 00:00:00+00', '12:00:00.5'),
        (0, 0, 0, 100000000.00010000, '2000-02-29', '1900-02-28 00:00', '2100-03-01 00:00:00+00', '12:00'),
        (0, 0, 0, 99999999999999999999, '2000-02-29', '1900-02-28 00:00', '2100-03-01 00:00:00+00', '12:00');
    -- With a column that the server has to print, it prints all of them.
    create view printed as select t.*, null::inet as other from t;";

/// Records by id, without what only one of the two has.
fn rows(db: &TestDb, stream: &str, dialect: &str) -> Vec<Map<String, Value>> {
    let catalog = Tap::new(db).discover().select(&format!("public-{stream}"), "FULL_TABLE");
    let output = Tap::new(db).catalog(&catalog).config("schema_dialect", dialect).run();
    let mut rows: Vec<Map<String, Value>> = output.records(&format!("public-{stream}")).into_iter().cloned().collect();
    rows.iter_mut().for_each(|row| drop(row.remove("other")));
    rows.sort_by_key(|row| row["id"].as_i64());
    rows
}

#[test]
fn is_what_the_server_prints() {
    let db = TestDb::new("binary");
    db.psql(TABLE);
    for dialect in ["portable", "reference", "meltanolabs"] {
        let (read, printed) = (rows(&db, "t", dialect), rows(&db, "printed", dialect));
        assert_eq!((read.len(), printed.len()), (4_009, 4_009));
        for (read, printed) in read.iter().zip(&printed) {
            for (name, value) in printed {
                assert_eq!(read.get(name), Some(value), "{name} of row {} ({dialect})", printed["id"]);
            }
            assert_eq!(read.len(), printed.len());
        }
    }
}
