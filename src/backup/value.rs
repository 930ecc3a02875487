//! A value of a row, as both kinds of database store it.

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    /// Whole numbers; `true` is 1.
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

const NULL: u8 = 0;
const INT: u8 = 1;
const TEXT: u8 = 2;
const BYTES: u8 = 3;

impl Value {
    /// How many bytes it takes, about.
    pub fn weight(&self) -> usize {
        match self {
            Self::Null => 1,
            Self::Int(_) => 9,
            Self::Text(text) => 5 + text.len(),
            Self::Bytes(bytes) => 5 + bytes.len(),
        }
    }

    /// Appends it. `None` for one that is too long to be counted.
    pub(super) fn write(&self, to: &mut Vec<u8>) -> Option<()> {
        let (kind, bytes) = match self {
            Self::Null => {
                to.push(NULL);
                return Some(());
            }
            Self::Int(number) => {
                to.push(INT);
                to.extend(number.to_be_bytes());
                return Some(());
            }
            Self::Text(text) => (TEXT, text.as_bytes()),
            Self::Bytes(bytes) => (BYTES, bytes.as_slice()),
        };
        to.push(kind);
        to.extend(u32::try_from(bytes.len()).ok()?.to_be_bytes());
        to.extend(bytes);
        Some(())
    }

    /// Takes one off the beginning.
    pub(super) fn read(from: &mut &[u8]) -> Option<Self> {
        match take::<1>(from)? {
            [NULL] => Some(Self::Null),
            [INT] => Some(Self::Int(i64::from_be_bytes(take(from)?))),
            [TEXT] => {
                let text = counted(from)?.to_vec();
                Some(Self::Text(String::from_utf8(text).ok()?))
            }
            [BYTES] => Some(Self::Bytes(counted(from)?.to_vec())),
            _ => None,
        }
    }
}

/// Takes so many bytes off the beginning.
pub(super) fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*taken)
}

/// Takes bytes off the beginning, of which there are as many as four bytes before them say.
pub(super) fn counted<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u32::from_be_bytes(take(from)?)).ok()?;
    let (taken, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(taken)
}
