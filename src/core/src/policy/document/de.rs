//! Deserializers for the document's shapes. serde's own derivations would buffer some values and lose the location of an
//! error.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::forms::{Object, not_null};
use super::{
    CallerEntry, Entries, Keys, PolicyDocument, RawJson, RouteDocument, RouteEntry, Routes, Settings, StringOrList,
    TokenCaller, WholeNumber, Written,
};

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut entries, mut keys) = (Entries::default(), Keys::default());
                while let Some((key, value)) = map.next_entry::<String, T>()? {
                    keys.add(&key)?;
                    entries.0.push((key, value));
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Routes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RoutesVisitor;

        impl<'de> Visitor<'de> for RoutesVisitor {
            type Value = Routes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object keyed by prefix, or a list of routes")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Routes, A::Error> {
                Entries::deserialize(MapAccessDeserializer::new(map)).map(Routes::Keyed)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Routes, A::Error> {
                let routes = Vec::<Object<_>>::deserialize(SeqAccessDeserializer::new(list))?;
                Ok(Routes::Listed(routes.into_iter().map(|Object(route)| route).collect()))
            }
        }

        deserializer.deserialize_any(RoutesVisitor)
    }
}

impl<'de> Deserialize<'de> for RouteEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RouteEntryVisitor;

        impl<'de> Visitor<'de> for RouteEntryVisitor {
            type Value = RouteEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a target such as \"https://…\", or an object")
            }

            fn visit_str<E: de::Error>(self, target: &str) -> Result<RouteEntry, E> {
                Ok(RouteEntry::Short(target.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RouteEntry, A::Error> {
                RouteDocument::deserialize(MapAccessDeserializer::new(map))
                    .map(|route| RouteEntry::Expanded(route.into()))
            }
        }

        deserializer.deserialize_any(RouteEntryVisitor)
    }
}

impl<'de> Deserialize<'de> for CallerEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CallerVisitor;

        impl<'de> Visitor<'de> for CallerVisitor {
            type Value = CallerEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name such as \"spiffe://…\", or an object with \"issuer\"")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<CallerEntry, E> {
                Ok(CallerEntry::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CallerEntry, A::Error> {
                TokenCaller::deserialize(MapAccessDeserializer::new(map)).map(|token| CallerEntry::Token(token.into()))
            }
        }

        deserializer.deserialize_any(CallerVisitor)
    }
}

impl<'de> Deserialize<'de> for PolicyDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PolicyVisitor;

        impl<'de> Visitor<'de> for PolicyVisitor {
            type Value = PolicyDocument;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PolicyDocument, A::Error> {
                let mut backstage_routes = Entries::default();
                let settings = WithoutRoutes { map, routes: &mut backstage_routes, keys: Keys::default() };
                let settings = Settings::deserialize(MapAccessDeserializer::new(settings))?;
                Ok(PolicyDocument { settings, backstage_routes })
            }
        }

        deserializer.deserialize_map(PolicyVisitor)
    }
}

/// The policy's members without those that begin with `/`, which go to `routes`. (serde's `flatten` would do the same, but
/// buffers the values and loses the location of errors.)
struct WithoutRoutes<'a, A> {
    map: A,
    routes: &'a mut Entries<RouteEntry>,
    keys: Keys,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for WithoutRoutes<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<String>()? {
            if !key.starts_with('/') {
                return seed.deserialize(key.into_deserializer()).map(Some);
            }
            let route = self.map.next_value()?;
            self.keys.add(&key)?;
            self.routes.0.push((key, route));
        }
        Ok(None)
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

impl<'de> Deserialize<'de> for WholeNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeNumberVisitor;

        impl Visitor<'_> for WholeNumberVisitor {
            type Value = WholeNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<WholeNumber, E> {
                Ok(WholeNumber(number))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<WholeNumber, E> {
                u64::try_from(number).map(WholeNumber).map_err(|_| E::custom("must not be negative"))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<WholeNumber, E> {
                if number.fract() != 0.0 {
                    Err(E::custom("must be a whole number"))
                } else if number < 0.0 {
                    Err(E::custom("must not be negative"))
                } else {
                    // A larger number becomes u64's largest value, which is out of every range.
                    Ok(WholeNumber(number as u64))
                }
            }
        }

        deserializer.deserialize_any(WholeNumberVisitor)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        not_null(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|json| Self(json.get().to_owned()))
    }
}

impl<'de> Deserialize<'de> for StringOrList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringOrListVisitor;

        impl<'de> Visitor<'de> for StringOrListVisitor {
            type Value = StringOrList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, one: &str) -> Result<StringOrList, E> {
                Ok(StringOrList(vec![one.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<StringOrList, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(StringOrList)
            }
        }

        deserializer.deserialize_any(StringOrListVisitor)
    }
}
