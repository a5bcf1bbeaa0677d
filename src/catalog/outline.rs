//! A catalog file as far as it must be read to know which streams it may select.
//!
//! A catalog of thousands of tables is tens of megabytes of which a run wants one stream or a few. One pass over the text
//! checks its syntax and finds the pieces; only those of streams that may be selected become values.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::selection::is_true;

/// Returns the streams that may be selected, each with its place in the file. Fails where the file doesn't have the
/// form of a catalog, and where a stream that may be selected can't be read.
pub(super) fn candidates(text: &str) -> serde_json::Result<Vec<(usize, Value)>> {
    let Object(File { streams }) = serde_json::from_str(text)?;
    let streams = streams.ok_or_else(|| serde::de::Error::missing_field("streams"))?;
    let candidates = streams.iter().enumerate().filter(|(_, Object(stream))| stream.may_be_selected());
    candidates.map(|(index, Object(stream))| Ok((index, stream.value()?))).collect()
}

#[derive(Default)]
struct File<'a> {
    streams: Option<Vec<Object<Stream<'a>>>>,
}

/// A stream whose values are not parsed yet.
#[derive(Default)]
struct Stream<'a> {
    metadata: Option<Vec<Object<Item<'a>>>>,
    /// Its other keys.
    others: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// Metadata of a table or a column.
#[derive(Default)]
struct Item<'a> {
    breadcrumb: Option<&'a RawValue>,
    metadata: Option<&'a RawValue>,
}

impl Stream<'_> {
    /// Whether the stream may be selected; false only if
    /// [`CatalogEntry::is_selected`](super::CatalogEntry::is_selected) is: where the table's metadata deselects it, as
    /// Meltano writes it, or where the places that can select it hold neither the word `selected` nor an escape that
    /// could stand for a letter of it.
    fn may_be_selected(&self) -> bool {
        let says = |piece: &RawValue| {
            let piece = piece.get().as_bytes();
            memchr::memmem::find(piece, b"selected").is_some() || memchr::memchr(b'\\', piece).is_some()
        };
        let mut of_tables = self.metadata.iter().flatten().filter(|Object(item)| !item.names_a_column()).peekable();
        if of_tables.peek().is_some_and(|Object(item)| item.is_deselected()) {
            return false;
        }
        self.others.iter().any(|(key, value)| key == "selected" || key == "schema" && says(value))
            || of_tables.any(|Object(item)| item.metadata.is_some_and(says))
    }

    fn value(&self) -> serde_json::Result<Value> {
        let mut object = Map::new();
        for (key, value) in &self.others {
            object.insert(key.clone().into_owned(), serde_json::from_str(value.get())?);
        }
        if let Some(items) = &self.metadata {
            let items = items.iter().map(|Object(item)| item.value()).collect::<serde_json::Result<_>>()?;
            object.insert("metadata".to_owned(), Value::Array(items));
        }
        Ok(Value::Object(object))
    }
}

impl Item<'_> {
    /// Whether the breadcrumb has a step.
    fn names_a_column(&self) -> bool {
        self.breadcrumb.is_some_and(|breadcrumb| breadcrumb.get().contains('"'))
    }

    /// Whether it deselects the stream.
    fn is_deselected(&self) -> bool {
        let metadata = self.metadata.and_then(|metadata| serde_json::from_str::<Map<_, _>>(metadata.get()).ok());
        let selected = metadata.as_ref().and_then(|metadata| metadata.get("selected"));
        selected.is_some_and(|selected| !selected.is_null() && !is_true(selected))
    }

    fn value(&self) -> serde_json::Result<Value> {
        let pieces = [("breadcrumb", self.breadcrumb), ("metadata", self.metadata)].into_iter();
        let present = pieces.filter_map(|(key, piece)| Some((key.to_owned(), piece?)));
        present.map(|(key, piece)| Ok((key, serde_json::from_str::<Value>(piece.get())?))).collect()
    }
}

/// A value read from a JSON object. Of a key that comes twice the last value counts, as everywhere.
struct Object<T>(T);

trait Members<'a>: Default {
    /// Takes the value of a key.
    fn take<A: MapAccess<'a>>(&mut self, key: Cow<'a, str>, from: &mut A) -> Result<(), A::Error>;
}

impl<'a> Members<'a> for File<'a> {
    fn take<A: MapAccess<'a>>(&mut self, key: Cow<'a, str>, from: &mut A) -> Result<(), A::Error> {
        match &*key {
            "streams" => self.streams = Some(from.next_value()?),
            _ => _ = from.next_value::<IgnoredAny>()?,
        }
        Ok(())
    }
}

impl<'a> Members<'a> for Stream<'a> {
    fn take<A: MapAccess<'a>>(&mut self, key: Cow<'a, str>, from: &mut A) -> Result<(), A::Error> {
        match &*key {
            "metadata" => self.metadata = from.next_value()?,
            _ => self.others.push((key, from.next_value()?)),
        }
        Ok(())
    }
}

impl<'a> Members<'a> for Item<'a> {
    fn take<A: MapAccess<'a>>(&mut self, key: Cow<'a, str>, from: &mut A) -> Result<(), A::Error> {
        match &*key {
            "breadcrumb" => self.breadcrumb = Some(from.next_value()?),
            "metadata" => self.metadata = Some(from.next_value()?),
            _ => _ = from.next_value::<IgnoredAny>()?,
        }
        Ok(())
    }
}

impl<'a, T: Members<'a>> Deserialize<'a> for Object<T> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'a, T: Members<'a>> Visitor<'a> for Reader<T> {
            type Value = T;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<T, A::Error> {
                let mut object = T::default();
                while let Some(Key(key)) = map.next_key()? {
                    object.take(key, &mut map)?;
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Reader(PhantomData)).map(Object)
    }
}

/// A key, borrowed from the text where that has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
