//! Where the hashes and entries of a log are read: C2SP `tlog-tiles`.

use std::ops::Range;

use super::tree::TILE_WIDTH;

/// Largest level that is stored (2^48 entries): the format allows up to 63.
const MAX_LEVEL: u8 = 6;

/// Up to 256 neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    pub content: Content,
    pub number: u64,
    /// 1 to 256; what has 256 never changes.
    pub width: u64,
}

/// What stands in a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Hashes { level: u8 },
    Entries,
}

impl Tile {
    /// Reads what follows `/tile/`: `<level>/<number>` or `entries/<number>`, then `.p/<width>` where it is not
    /// full. Each tile has one path.
    pub fn parse(path: &str) -> Option<Self> {
        let (content, rest) = path.split_once('/')?;
        let content = match content {
            "entries" => Content::Entries,
            level => Content::Hashes {
                level: decimal(level).and_then(|level| u8::try_from(level).ok())?,
            },
        };
        if matches!(content, Content::Hashes { level } if level > MAX_LEVEL) {
            return None;
        }
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, decimal(width)?),
            None => (rest, TILE_WIDTH),
        };
        if !(1..=TILE_WIDTH).contains(&width) || (width == TILE_WIDTH && rest.contains(".p/")) {
            return None;
        }
        let tile = Self {
            content,
            number: parse_number(number)?,
            width,
        };
        (tile.path() == path).then_some(tile)
    }

    /// As in its URL, after `/tile/`.
    pub fn path(&self) -> String {
        let content = match self.content {
            Content::Hashes { level } => level.to_string(),
            Content::Entries => "entries".to_owned(),
        };
        let partial = if self.is_full() {
            String::new()
        } else {
            format!(".p/{}", self.width)
        };
        format!("{content}/{}{partial}", number(self.number))
    }

    /// Whether it never changes.
    pub fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// The level, and what stands in it.
    pub fn positions(&self) -> Option<Range<u64>> {
        let first = self.number.checked_mul(TILE_WIDTH)?;
        Some(first..first.checked_add(self.width)?)
    }

    /// Whether a log of `size` entries has it.
    pub fn is_of(&self, size: u64) -> bool {
        let level = match self.content {
            Content::Hashes { level } => u32::from(level),
            Content::Entries => 0,
        };
        let there = size >> (level * super::tree::TILE_HEIGHT);
        self.positions()
            .is_some_and(|positions| positions.end <= there)
    }

    /// The tiles of one level that a log of `size` entries has, from the one that holds position `from`.
    pub fn all(content: Content, from: u64, size: u64) -> impl Iterator<Item = Self> {
        let level = match content {
            Content::Hashes { level } => u32::from(level),
            Content::Entries => 0,
        };
        let there = size >> (level * super::tree::TILE_HEIGHT);
        (from / TILE_WIDTH..there.div_ceil(TILE_WIDTH)).map(move |number| Self {
            content,
            number,
            width: TILE_WIDTH.min(there - number * TILE_WIDTH),
        })
    }
}

/// 1234067 is `x001/x234/067`.
fn number(mut number: u64) -> String {
    let mut groups = vec![format!("{:03}", number % 1000)];
    while number >= 1000 {
        number /= 1000;
        groups.push(format!("x{:03}", number % 1000));
    }
    groups.reverse();
    groups.join("/")
}

fn parse_number(text: &str) -> Option<u64> {
    text.split('/').try_fold(0_u64, |number, group| {
        let digits = group.strip_prefix('x').unwrap_or(group);
        let is_group = digits.len() == 3 && digits.bytes().all(|digit| digit.is_ascii_digit());
        let group = is_group.then(|| digits.parse::<u64>().ok())??;
        number.checked_mul(1000)?.checked_add(group)
    })
}

fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// An entry as it stands in a tile of entries: its length in two bytes, then itself. `None`: too long.
pub fn framed(entry: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(entry.len()).ok()?;
    Some([&length.to_be_bytes(), entry].concat())
}

/// The entries of a tile; `None` when it is not whole.
pub fn entries(mut tile: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = tile.split_first_chunk::<2>() {
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(entry);
        tile = rest;
    }
    tile.is_empty().then_some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first is the example of C2SP `tlog-tiles`.
    #[test]
    fn each_tile_has_one_path() {
        for (path, content, number, width) in [
            (
                "0/x001/x234/067",
                Content::Hashes { level: 0 },
                1_234_067,
                256,
            ),
            ("1/000.p/7", Content::Hashes { level: 1 }, 0, 7),
            ("entries/x001/000.p/255", Content::Entries, 1000, 255),
        ] {
            let tile = Tile {
                content,
                number,
                width,
            };
            assert_eq!(Tile::parse(path).as_ref(), Some(&tile));
            assert_eq!(tile.path(), path);
        }
        for path in [
            "",
            "0",
            "0/",
            "0/0",
            "0/00",
            "0/0000",
            "00/000",
            "7/000",
            "0/x000/001",
            "0/001/067",
            "0/x001",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/01",
            "0/000.p/",
            "data/000",
            "0/000/",
            "+1/000",
            "0/x001/x0a4/067",
            "0/x018/x446/x744/x073/x709/x551/x616",
        ] {
            assert_eq!(Tile::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_log_has_what_it_has_and_no_more() {
        let tile = |path| Tile::parse(path).expect("a tile");
        assert!(tile("0/000.p/7").is_of(7) && !tile("0/000.p/8").is_of(7));
        assert!(tile("1/000.p/1").is_of(256) && !tile("1/000.p/1").is_of(255));
        assert!(!tile("entries/000").is_of(255) && tile("entries/000").is_of(256));
        let paths = |content, size| {
            Tile::all(content, 300, size)
                .map(|tile| tile.path())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            paths(Content::Entries, 700),
            ["entries/001", "entries/002.p/188"]
        );
        assert_eq!(
            paths(Content::Hashes { level: 0 }, 256),
            Vec::<String>::new()
        );
    }

    proptest! {
        #[test]
        fn what_is_framed_is_read_again(all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..9)) {
            let tile: Vec<u8> = all.iter().flat_map(|entry| framed(entry).expect("short")).collect();
            prop_assert_eq!(entries(&tile), Some(all.iter().map(Vec::as_slice).collect()));
            if let Some((_, short)) = tile.split_last() {
                prop_assert_eq!(entries(short), None);
            }
        }
    }
}
