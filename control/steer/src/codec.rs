//! Writing and reading the types that records are made of. The table is in the crate's header.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// The value has no encoding: the caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A text or list is longer than the other end accepts.
    #[error("{field} has {len} bytes or items; at most {max} can be sent")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Bytes of the text, or items of the list.
        len: usize,
        /// The limit, in the same unit.
        max: usize,
    },
    /// A prefix is longer than the address.
    #[error("a prefix of {prefix} bits is longer than the address")]
    PrefixTooLong {
        /// Bits.
        prefix: u8,
    },
}

/// The bytes are not the encoding of any value: the other side's fault, or its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record ends within a value.
    #[error("the record ends too early")]
    Truncated,
    /// The record goes on behind its last value.
    #[error("{len} bytes too many at the end of the record")]
    Trailing {
        /// Bytes.
        len: usize,
    },
    /// A number stands for nothing that this program knows.
    #[error("{code} is no known {what}")]
    UnknownCode {
        /// What the number was to be.
        what: &'static str,
        /// The number.
        code: u8,
    },
    /// A text or list is longer than allowed.
    #[error("a text or list of {len} where at most {max} are allowed")]
    TooLong {
        /// Bytes of the text, or items of the list.
        len: usize,
        /// The limit, in the same unit.
        max: usize,
    },
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotText,
    /// Bytes that have to be zero are not.
    #[error("bytes that have to be zero are not")]
    Padding,
}

/// The longest beginning of `text` that has at most `len_max` bytes.
pub(crate) fn cut(text: &str, len_max: usize) -> &str {
    let mut end = text.len().min(len_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Bits of the address: no prefix is longer.
pub(crate) fn prefix_max(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Appends values to a buffer. The first error is kept until [`Writer::finish`], so that the
/// layouts read as plain lists of fields.
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    error: Option<EncodeError>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        Self { out, start, error: None }
    }

    /// Takes back what was written if any of it failed.
    pub(crate) fn finish(self) -> Result<(), EncodeError> {
        let Some(error) = self.error else { return Ok(()) };
        self.out.truncate(self.start);
        Err(error)
    }

    fn fail(&mut self, error: EncodeError) {
        self.error.get_or_insert(error);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(crate) fn zeros(&mut self, len: usize) {
        self.out.resize(self.out.len() + len, 0);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u8(value.into());
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn text(&mut self, field: &'static str, text: &str, max: usize) {
        if text.len() > max {
            return self.fail(EncodeError::TooLong { field, len: text.len(), max });
        }
        self.u16(text.len() as u16);
        self.bytes(text.as_bytes());
    }

    pub(crate) fn blob(&mut self, field: &'static str, bytes: &[u8], max: usize) {
        if bytes.len() > max {
            return self.fail(EncodeError::TooLong { field, len: bytes.len(), max });
        }
        self.u16(bytes.len() as u16);
        self.bytes(bytes);
    }

    pub(crate) fn cut_text(&mut self, text: &str, max: usize) {
        self.text("text", cut(text, max), max);
    }

    pub(crate) fn option<T>(&mut self, value: Option<&T>, put: impl Fn(&mut Self, &T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            put(self, value);
        }
    }

    pub(crate) fn list<T>(
        &mut self,
        field: &'static str,
        items: &[T],
        max: usize,
        put: impl Fn(&mut Self, &T),
    ) {
        if items.len() > max {
            return self.fail(EncodeError::TooLong { field, len: items.len(), max });
        }
        self.u8(items.len() as u8);
        items.iter().for_each(|item| put(self, item));
    }

    pub(crate) fn ip_address(&mut self, address: &IpAddr) {
        match address {
            IpAddr::V4(v4) => {
                self.u8(4);
                self.bytes(&v4.octets());
            }
            IpAddr::V6(v6) => {
                self.u8(6);
                self.bytes(&v6.octets());
            }
        }
    }

    pub(crate) fn socket_address(&mut self, address: &SocketAddr) {
        self.ip_address(&address.ip());
        self.u16(address.port());
        if let SocketAddr::V6(v6) = address {
            self.u32(v6.scope_id());
        }
    }

    /// An address and a prefix length in bits.
    pub(crate) fn network(&mut self, address: &IpAddr, prefix: u8) {
        if prefix > prefix_max(address) {
            return self.fail(EncodeError::PrefixTooLong { prefix });
        }
        self.ip_address(address);
        self.u8(prefix);
    }
}

/// Takes values from the front of a record.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(record: &'a [u8]) -> Self {
        Self { rest: record }
    }

    /// Bytes not yet taken.
    pub(crate) fn rest(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            len => Err(DecodeError::Trailing { len }),
        }
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn zeros(&mut self, len: usize) -> Result<(), DecodeError> {
        if self.bytes(len)?.iter().any(|byte| *byte != 0) {
            return Err(DecodeError::Padding);
        }
        Ok(())
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            code => Err(DecodeError::UnknownCode { what: "truth value", code }),
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn text(&mut self, max: usize) -> Result<String, DecodeError> {
        let len = self.u16()?.into();
        self.text_of(len, max)
    }

    pub(crate) fn blob(&mut self, max: usize) -> Result<Vec<u8>, DecodeError> {
        let len = self.u16()?.into();
        if len > max {
            return Err(DecodeError::TooLong { len, max });
        }
        Ok(self.bytes(len)?.to_vec())
    }

    /// A text of `len` bytes in a field of `field_len`, the rest of which is zero.
    pub(crate) fn padded_text(
        &mut self,
        len: usize,
        field_len: usize,
    ) -> Result<String, DecodeError> {
        let text = self.text_of(len, field_len)?;
        self.zeros(field_len - len)?;
        Ok(text)
    }

    fn text_of(&mut self, len: usize, max: usize) -> Result<String, DecodeError> {
        if len > max {
            return Err(DecodeError::TooLong { len, max });
        }
        let text = std::str::from_utf8(self.bytes(len)?).map_err(|_| DecodeError::NotText)?;
        Ok(text.to_owned())
    }

    pub(crate) fn option<T>(
        &mut self,
        take: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool()? { take(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn list<T>(
        &mut self,
        max: usize,
        take: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let len = self.u8()?.into();
        if len > max {
            return Err(DecodeError::TooLong { len, max });
        }
        (0..len).map(|_| take(self)).collect()
    }

    pub(crate) fn ip_address(&mut self) -> Result<IpAddr, DecodeError> {
        match self.u8()? {
            4 => Ok(self.array::<4>()?.into()),
            6 => Ok(self.array::<16>()?.into()),
            code => Err(DecodeError::UnknownCode { what: "address family", code }),
        }
    }

    pub(crate) fn socket_address(&mut self) -> Result<SocketAddr, DecodeError> {
        let address = self.ip_address()?;
        let port = self.u16()?;
        Ok(match address {
            IpAddr::V4(v4) => (v4, port).into(),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, self.u32()?).into(),
        })
    }

    pub(crate) fn network(&mut self) -> Result<(IpAddr, u8), DecodeError> {
        let address = self.ip_address()?;
        let prefix = self.u8()?;
        if prefix > prefix_max(&address) {
            return Err(DecodeError::UnknownCode { what: "prefix length", code: prefix });
        }
        Ok((address, prefix))
    }
}

/// An enumeration with a number for each variant, of one byte in a record.
macro_rules! coded_enum {
    (
        $(#[$enum_doc:meta])*
        pub enum $name:ident {
            $($(#[$doc:meta])* $variant:ident = $code:literal,)+
        }
    ) => {
        $(#[$enum_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$doc])* $variant = $code,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            pub(crate) const fn code(self) -> u8 {
                self as u8
            }

            pub(crate) fn of(code: u8) -> Result<Self, crate::DecodeError> {
                match code {
                    $($code => Ok(Self::$variant),)+
                    code => Err(crate::DecodeError::UnknownCode { what: stringify!($name), code }),
                }
            }

            #[allow(dead_code, reason = "some enumerations occur in rows only")]
            pub(crate) fn put(self, to: &mut crate::codec::Writer<'_>) {
                to.u8(self.code());
            }

            #[allow(dead_code, reason = "some enumerations occur in rows only")]
            pub(crate) fn take(
                from: &mut crate::codec::Reader<'_>,
            ) -> Result<Self, crate::DecodeError> {
                Self::of(from.u8()?)
            }
        }
    };
}
pub(crate) use coded_enum;
