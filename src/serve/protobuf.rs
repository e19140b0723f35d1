//! Protobuf messages as they lie in memory: what is needed is looked at, nothing is copied, and what is not known is passed
//! over. Source: protobuf.dev/programming-guides/encoding.

/// One field's value. Fixed-width ones are never needed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed,
    /// A message, a string, bytes, or packed numbers.
    Bytes(&'a [u8]),
}

/// It is no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The fields of a message in the order in which they were written: number and value.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = field(&mut self.0);
        if field.is_none() {
            // Nothing after it can be read either.
            self.0 = &[];
        }
        Some(field.ok_or(Malformed))
    }
}

/// Appends the numbers of a repeated field, written packed or one by one; those beyond 32 bits are no token ids.
pub(super) fn extend_u32(numbers: &mut Vec<u32>, value: Value<'_>) -> Result<(), Malformed> {
    let mut push = |number: u64| {
        numbers.push(u32::try_from(number).map_err(|_| Malformed)?);
        Ok(())
    };
    match value {
        Value::Varint(number) => push(number),
        Value::Bytes(mut packed) => {
            while !packed.is_empty() {
                push(varint(&mut packed).ok_or(Malformed)?)?;
            }
            Ok(())
        }
        Value::Fixed => Err(Malformed),
    }
}

/// A field of a number, as it is appended to a message: where a field comes twice the last one counts.
pub(super) fn number_field(field: u64, number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12);
    put_varint(&mut bytes, field << 3);
    put_varint(&mut bytes, number);
    bytes
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = varint(bytes)?;
    let value = match tag & 7 {
        0 => Value::Varint(varint(bytes)?),
        1 => skip(bytes, 8)?,
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (value, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Value::Bytes(value)
        }
        5 => skip(bytes, 4)?,
        // Groups were given up before proto3.
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn skip<'a>(bytes: &mut &'a [u8], length: usize) -> Option<Value<'a>> {
    *bytes = bytes.get(length..)?;
    Some(Value::Fixed)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for position in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << (7 * position);
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut seen = 0;
            for field in Fields(&bytes) {
                seen += 1;
                let mut numbers = Vec::new();
                if let Ok((_, value)) = field {
                    let _ = extend_u32(&mut numbers, value);
                }
                prop_assert!(numbers.len() <= bytes.len());
            }
            prop_assert!(seen <= bytes.len());
        }

        #[test]
        fn what_is_written_is_read(field in 1_u64..1 << 29, number: u64) {
            let bytes = number_field(field, number);
            let fields: Vec<_> = Fields(&bytes).collect();
            prop_assert_eq!(fields, vec![Ok((field, Value::Varint(number)))]);
        }
    }
}
