//! JSON into types, with the path of the field that does not fit, and no key twice.

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why a text is no JSON that we take.
pub(super) struct Refusal {
    pub what: String,
    /// It is JSON, but a key stands twice in an object.
    pub duplicate: bool,
}

const TWICE: &str = "stands twice";

/// Parses one JSON text. A key that stands twice is refused: whichever value won, somebody would be misled.
pub(super) fn parse(text: &[u8]) -> Result<Value, Refusal> {
    let Unique(value) = serde_json::from_slice(text).map_err(|e| {
        let what = e.to_string();
        // serde_json counts lines within this one text, which is a line of a file itself.
        let what = what.replace(" at line 1 column ", " at column ");
        Refusal { duplicate: e.is_data() && what.contains(TWICE), what }
    })?;
    Ok(value)
}

/// A value whose objects have no key twice.
struct Unique(Value);

impl<'de> de::Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Building).map(Unique)
    }
}

struct Building;

impl<'de> Visitor<'de> for Building {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            let Unique(value) = fields.next_value()?;
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("field '{}' {TWICE}", key.escape_debug())));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// A value as `T`, without its field `tag`: left in, it would be kept as an unknown one.
///
/// # Errors
/// One sentence that starts with the path of the field: `field 'verification.allowed': invalid type …`.
pub(super) fn from_value<T: DeserializeOwned>(value: &Value, tag: &str) -> Result<T, String> {
    let path = RefCell::new(Vec::new());
    T::deserialize(Tracked { value, path: &path, tag }).map_err(|e| {
        let path = path.borrow();
        match path.is_empty() {
            true => e.to_string(),
            false => format!("field '{}': {e}", path.join(".")),
        }
    })
}

type Failure = serde_json::Error;

/// A value, and the way to it. The way is left standing where something fails.
#[derive(Clone, Copy)]
struct Tracked<'a> {
    value: &'a Value,
    path: &'a RefCell<Vec<String>>,
    /// A field of this object that is passed by.
    tag: &'a str,
}

impl<'a> Tracked<'a> {
    fn step<T>(self, name: String, value: &'a Value, visit: impl FnOnce(Self) -> Result<T, Failure>) -> Result<T, Failure> {
        self.path.borrow_mut().push(name);
        let done = visit(Tracked { value, tag: "", ..self })?;
        self.path.borrow_mut().pop();
        Ok(done)
    }
}

impl<'de> Deserializer<'de> for Tracked<'_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value {
            Value::Array(values) => {
                let mut items = Items { from: self, items: values.iter().enumerate() };
                let value = visitor.visit_seq(&mut items)?;
                match items.items.len() {
                    0 => Ok(value),
                    more => Err(de::Error::custom(format!("{more} values too many"))),
                }
            }
            Value::Object(map) => visitor.visit_map(Fields { from: self, fields: map.iter(), next: None }),
            Value::Null => visitor.visit_unit(),
            Value::Bool(v) => visitor.visit_bool(*v),
            Value::String(v) => visitor.visit_str(v),
            Value::Number(v) => match (v.as_u64(), v.as_i64(), v.as_f64()) {
                (Some(v), ..) => visitor.visit_u64(v),
                (None, Some(v), _) => visitor.visit_i64(v),
                (None, None, Some(v)) => visitor.visit_f64(v),
                (None, None, None) => Err(de::Error::custom("the number is too large")),
            },
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    /// The enums of records are all plain names.
    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Failure> {
        match self.value {
            Value::String(name) => visitor.visit_enum(Name(name)),
            _ => Err(de::Error::custom("must be a name")),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct
        map struct identifier ignored_any
    }
}

struct Items<'a> {
    from: Tracked<'a>,
    items: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some((at, value)) = self.items.next() else { return Ok(None) };
        self.from.step(at.to_string(), value, |item| seed.deserialize(item)).map(Some)
    }
}

struct Fields<'a> {
    from: Tracked<'a>,
    fields: serde_json::map::Iter<'a>,
    next: Option<(&'a String, &'a Value)>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        self.next = self.fields.find(|(name, _)| *name != self.from.tag);
        let Some((name, _)) = self.next else { return Ok(None) };
        seed.deserialize(name.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Failure> {
        let (name, value) = self.next.take().ok_or_else(|| <Failure as de::Error>::custom("a value without its name"))?;
        self.from.step(name.clone(), value, |field| seed.deserialize(field))
    }
}

/// The name of a unit variant.
struct Name<'a>(&'a str);

impl<'de> EnumAccess<'de> for Name<'_> {
    type Error = Failure;
    type Variant = Unit;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Unit), Failure> {
        seed.deserialize(self.0.into_deserializer()).map(|name| (name, Unit))
    }
}

struct Unit;

impl<'de> de::VariantAccess<'de> for Unit {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Failure> {
        Err(de::Error::custom("must be a name alone"))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Failure> {
        Err(de::Error::custom("must be a name alone"))
    }
    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Failure> {
        Err(de::Error::custom("must be a name alone"))
    }
}
