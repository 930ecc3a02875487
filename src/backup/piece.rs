//! The pieces a backup is made of.
//!
//! ```text
//! kind, 1 byte | length of what follows, 4 bytes | …
//!   'M'  the manifest, JSON                                            first, and once
//!   'K'  length of the name, 4 bytes | name | content of a key file
//!   'R'  number of the table, 2 bytes | columns, 2 bytes | values       rows, in the order of the tables
//!   'E'  nothing                                                        last: everything was there
//! ```

use super::value::{counted, take};
use super::{LONGEST_PIECE, Manifest, Value};

/// How many bytes say what a piece is and how long.
pub const HEAD: usize = 5;

/// A piece of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Manifest(Box<Manifest>),
    /// A file of the folder of keys, as it is: its private keys are sealed in it already.
    Key {
        name: String,
        content: Vec<u8>,
    },
    /// Rows of the table of this place in the manifest.
    Rows {
        table: usize,
        rows: Vec<Vec<Value>>,
    },
    End,
}

/// What a piece is, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    kind: u8,
    pub length: usize,
}

/// This is no piece of a backup that this program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what it holds is not in the form of a backup that this version of attestd writes")]
pub struct Unreadable;

impl Head {
    /// Reads the head of a piece.
    pub fn read(bytes: [u8; HEAD]) -> Result<Self, Unreadable> {
        let [kind, length @ ..] = bytes;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| Unreadable)?;
        if length > LONGEST_PIECE {
            return Err(Unreadable);
        }
        Ok(Self { kind, length })
    }
}

impl Piece {
    /// The piece as it is written, its head included.
    ///
    /// # Errors
    /// One that is longer than is read again.
    pub fn encode(&self) -> Result<Vec<u8>, Unreadable> {
        let mut bytes = vec![0; HEAD];
        let kind = self.write(&mut bytes).ok_or(Unreadable)?;
        let length = bytes.len() - HEAD;
        let counted = u32::try_from(length).ok();
        let counted = counted
            .filter(|_| length <= LONGEST_PIECE)
            .ok_or(Unreadable)?;
        bytes[0] = kind;
        bytes[1..HEAD].copy_from_slice(&counted.to_be_bytes());
        Ok(bytes)
    }

    fn write(&self, to: &mut Vec<u8>) -> Option<u8> {
        match self {
            Self::Manifest(manifest) => {
                to.extend(serde_json::to_vec(manifest).ok()?);
                Some(b'M')
            }
            Self::Key { name, content } => {
                to.extend(u32::try_from(name.len()).ok()?.to_be_bytes());
                to.extend(name.as_bytes());
                to.extend(content);
                Some(b'K')
            }
            Self::Rows { table, rows } => {
                let columns = rows.first().map_or(0, Vec::len);
                to.extend(u16::try_from(*table).ok()?.to_be_bytes());
                to.extend(u16::try_from(columns).ok()?.to_be_bytes());
                for row in rows {
                    if row.len() != columns {
                        return None;
                    }
                    for value in row {
                        value.write(to)?;
                    }
                }
                Some(b'R')
            }
            Self::End => Some(b'E'),
        }
    }

    /// Reads what follows a head.
    pub fn read(head: Head, bytes: &[u8]) -> Result<Self, Unreadable> {
        Self::parse(head.kind, bytes).ok_or(Unreadable)
    }

    fn parse(kind: u8, mut bytes: &[u8]) -> Option<Self> {
        match kind {
            b'M' => Some(Self::Manifest(serde_json::from_slice(bytes).ok()?)),
            b'K' => {
                let name = String::from_utf8(counted(&mut bytes)?.to_vec()).ok()?;
                Some(Self::Key {
                    name,
                    content: bytes.to_vec(),
                })
            }
            b'R' => {
                let table = usize::from(u16::from_be_bytes(take(&mut bytes)?));
                let columns = usize::from(u16::from_be_bytes(take(&mut bytes)?));
                let mut rows = Vec::new();
                while !bytes.is_empty() && columns > 0 {
                    let row: Option<Vec<_>> =
                        (0..columns).map(|_| Value::read(&mut bytes)).collect();
                    rows.push(row?);
                }
                bytes.is_empty().then_some(Self::Rows { table, rows })
            }
            b'E' if bytes.is_empty() => Some(Self::End),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Piece, Unreadable> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>().ok_or(Unreadable)?;
        let head = Head::read(*head)?;
        if head.length != rest.len() {
            return Err(Unreadable);
        }
        Piece::read(head, rest)
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Int),
            ".{0,40}".prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..60).prop_map(Value::Bytes),
        ]
    }

    proptest! {
        #[test]
        fn rows_read_back_as_they_were(
            table in 0..70_usize,
            rows in (1..9_usize).prop_flat_map(|columns| {
                let row = proptest::collection::vec(value(), columns);
                proptest::collection::vec(row, 0..12)
            }),
        ) {
            let piece = Piece::Rows { table, rows };
            prop_assert_eq!(read(&piece.encode().expect("short")), Ok(piece));
        }

        #[test]
        fn a_key_reads_back_as_it_was(name in "[a-z.-]{0,30}", content in proptest::collection::vec(any::<u8>(), 0..300)) {
            let piece = Piece::Key { name, content };
            prop_assert_eq!(read(&piece.encode().expect("short")), Ok(piece));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(piece) = read(&bytes) {
                prop_assert!(matches!(piece, Piece::Manifest(_)) || piece.encode() == Ok(bytes));
            }
        }
    }

    #[test]
    fn rows_of_different_lengths_are_not_written() {
        let rows = vec![vec![Value::Null], vec![Value::Null, Value::Int(1)]];
        assert_eq!(Piece::Rows { table: 0, rows }.encode(), Err(Unreadable));
    }

    #[test]
    fn a_piece_that_says_it_is_too_long_is_not_waited_for() {
        assert_eq!(Head::read([b'R', 0xff, 0xff, 0xff, 0xff]), Err(Unreadable));
        assert_eq!(read(&[b'E', 0, 0, 0, 1, 0]), Err(Unreadable));
        assert_eq!(read(&[b'X', 0, 0, 0, 0]), Err(Unreadable));
    }
}
