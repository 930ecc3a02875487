//! The tree: its root, and what proves that an entry is in it, or that it grew out of a former one.
//!
//! Stored are the hashes of its entries (level 0) and, for every 256 neighbours of a level that are all
//! there, the one above them: what a tile of height 8 shows. Everything else is computed from at most 256 of
//! each level.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::ids::sha256;

/// SHA-256.
pub type Hash = [u8; 32];

/// Levels of the tree between two levels that are stored.
pub const TILE_HEIGHT: u32 = 8;
/// Hashes side by side in a tile.
pub const TILE_WIDTH: u64 = 1 << TILE_HEIGHT;
/// Largest level that is stored: 2^64 entries.
const LEVELS: u8 = 8;

/// Of an entry.
pub fn leaf(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry].concat())
}

/// Of two subtrees.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], &left[..], &right[..]].concat())
}

/// Hashes of one level that are stored side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub level: u8,
    pub positions: Range<u64>,
}

/// Stored hashes, by level and position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hashes(BTreeMap<(u8, u64), Hash>);

impl FromIterator<((u8, u64), Hash)> for Hashes {
    fn from_iter<T: IntoIterator<Item = ((u8, u64), Hash)>>(hashes: T) -> Self {
        Self(hashes.into_iter().collect())
    }
}

impl Extend<((u8, u64), Hash)> for Hashes {
    fn extend<T: IntoIterator<Item = ((u8, u64), Hash)>>(&mut self, hashes: T) {
        self.0.extend(hashes);
    }
}

impl Hashes {
    /// Root of the first `size` entries (RFC 9162 section 2.1.1); `None` where a hash
    /// of [`wanted_for_root`] is missing.
    pub fn root(&self, size: u64) -> Option<Hash> {
        self.of(&(0..size))
    }

    /// The hashes of these subtrees, in this order.
    pub fn proof(&self, subtrees: &[Range<u64>]) -> Option<Vec<Hash>> {
        subtrees.iter().map(|subtree| self.of(subtree)).collect()
    }

    /// Appends entries to the first `size`, of which the hashes of [`wanted_for_root`] are here. Returns
    /// every hash that is to be stored.
    pub fn grow(&mut self, size: u64, leaves: &[Hash]) -> Option<Vec<((u8, u64), Hash)>> {
        let mut new: Vec<_> = (size..)
            .zip(leaves)
            .map(|(at, leaf)| ((0, at), *leaf))
            .collect();
        self.extend(new.iter().copied());
        let mut counts = size..size.checked_add(u64::try_from(leaves.len()).ok()?)?;
        for level in 1..=LEVELS {
            counts = counts.start >> TILE_HEIGHT..counts.end >> TILE_HEIGHT;
            for position in counts.clone() {
                let above = self.complete(u32::from(level) * TILE_HEIGHT, position)?;
                new.push(((level, position), above));
            }
            self.extend(new.iter().copied());
        }
        Some(new)
    }

    /// One after the other, as in a tile.
    pub fn concat(&self) -> Vec<u8> {
        self.0.values().flatten().copied().collect()
    }

    /// How many are here.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of(&self, subtree: &Range<u64>) -> Option<Hash> {
        let mut parts = complete_parts(subtree).into_iter().rev();
        let Some((height, position)) = parts.next() else {
            return Some(sha256(b""));
        };
        let last = self.complete(height, position)?;
        parts.try_fold(last, |right, (height, position)| {
            Some(node(&self.complete(height, position)?, &right))
        })
    }

    /// Of 2^height entries, of which none is missing.
    fn complete(&self, height: u32, position: u64) -> Option<Hash> {
        let level = u8::try_from(height / TILE_HEIGHT).ok()?;
        if height.is_multiple_of(TILE_HEIGHT)
            && let Some(known) = self.0.get(&(level, position))
        {
            return Some(*known);
        }
        // What is to be stored soon is one level of tiles higher than what is stored.
        let height = height.checked_sub(1)?;
        let left = self.complete(height, position * 2)?;
        Some(node(&left, &self.complete(height, position * 2 + 1)?))
    }
}

/// What must be known to compute the root of the first `size` entries, and to append to them.
pub fn wanted_for_root(size: u64) -> Vec<Run> {
    wanted(std::slice::from_ref(&(0..size)))
}

/// What must be known to compute these subtrees.
pub fn wanted(subtrees: &[Range<u64>]) -> Vec<Run> {
    let parts = subtrees.iter().flat_map(complete_parts);
    parts
        .map(|(height, position)| {
            let within = height % TILE_HEIGHT;
            Run {
                level: u8::try_from(height / TILE_HEIGHT).unwrap_or(LEVELS),
                positions: position << within..(position + 1) << within,
            }
        })
        .collect()
}

/// The subtrees whose hashes prove that entry `index` is one of the first `size` (RFC 9162 section 2.1.3.1);
/// `None` when it is not.
pub fn inclusion(index: u64, size: u64) -> Option<Vec<Range<u64>>> {
    if index >= size {
        return None;
    }
    let (mut tree, mut path) = (0..size, Vec::new());
    while tree.end - tree.start > 1 {
        let middle = middle(&tree);
        if index < middle {
            path.push(middle..tree.end);
            tree.end = middle;
        } else {
            path.push(tree.start..middle);
            tree.start = middle;
        }
    }
    path.reverse();
    Some(path)
}

/// The subtrees whose hashes prove that the first `old` of the first `size` entries are the former log (RFC
/// 9162 section 2.1.4.1); `None` when it was larger, or empty.
pub fn consistency(old: u64, size: u64) -> Option<Vec<Range<u64>>> {
    if old == 0 || old > size {
        return None;
    }
    let (mut tree, mut path, mut whole) = (0..size, Vec::new(), true);
    while old < tree.end {
        let middle = middle(&tree);
        if old <= middle {
            path.push(middle..tree.end);
            tree.end = middle;
        } else {
            path.push(tree.start..middle);
            tree.start = middle;
            whole = false;
        }
    }
    if !whole {
        path.push(tree);
    }
    path.reverse();
    Some(path)
}

/// The root that a proof of inclusion leads to (RFC 9162 section 2.1.3.2).
pub fn root_of_inclusion(leaf: Hash, index: u64, size: u64, proof: &[Hash]) -> Option<Hash> {
    roots_of_inclusion(leaf, index, size, proof).map(|roots| roots.whole)
}

/// What a proof of inclusion says of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roots {
    /// Of the log when the entry was the last in it: what stands before the entry is all that is left of
    /// its way up.
    pub then: Hash,
    /// Of the whole log.
    pub whole: Hash,
}

/// The roots that a proof of inclusion leads to; `None` when it has another length.
pub fn roots_of_inclusion(leaf: Hash, index: u64, size: u64, proof: &[Hash]) -> Option<Roots> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut hash, mut then) = (index, size - 1, leaf, leaf);
    for sibling in proof {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node(sibling, &hash);
            then = node(sibling, &then);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(Roots { then, whole: hash })
}

/// Whether a log of `old` entries with one root became one of `size` with the other (RFC 9162 section
/// 2.1.4.2). Every log was empty once.
pub fn is_consistent(
    (old, former): (u64, &Hash),
    (size, root): (u64, &Hash),
    proof: &[Hash],
) -> bool {
    if old == 0 || old == size {
        let is_same = old == 0 || former == root;
        return proof.is_empty() && is_same && old <= size;
    }
    if old > size {
        return false;
    }
    let (mut at, mut last) = (old - 1, size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let mut hashes = proof.iter();
    // A former tree that is complete is the first subtree itself, and not sent.
    let first = if at == 0 { Some(former) } else { hashes.next() };
    let Some(first) = first else { return false };
    let (mut before, mut now) = (*first, *first);
    for sibling in hashes {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            before = node(sibling, &before);
            now = node(sibling, &now);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            now = node(&now, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && before == *former && now == *root
}

/// Where a tree of more than one entry parts: at the largest power of two below its size.
fn middle(tree: &Range<u64>) -> u64 {
    let last = tree.end - tree.start - 1;
    tree.start + (1 << last.ilog2())
}

/// The complete subtrees side by side, as height and position; the largest first.
fn complete_parts(subtree: &Range<u64>) -> Vec<(u32, u64)> {
    let (mut start, mut parts) = (subtree.start, Vec::new());
    while start < subtree.end {
        let height = (subtree.end - start).ilog2();
        parts.push((height, start >> height));
        start += 1 << height;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count)
            .map(|number| leaf(&number.to_be_bytes()))
            .collect()
    }

    /// RFC 9162 section 2.1.1 as it is written.
    fn defined(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256(b""),
            [one] => *one,
            more => {
                let middle = 1 << (more.len() - 1).ilog2();
                node(&defined(&more[..middle]), &defined(&more[middle..]))
            }
        }
    }

    fn tree(size: u64) -> Hashes {
        let mut tree = Hashes::default();
        tree.grow(0, &leaves(size)).expect("grows");
        tree
    }

    /// Only what is asked for is known: nothing else is needed.
    fn only(all: &Hashes, runs: &[Run]) -> Hashes {
        let at = runs
            .iter()
            .flat_map(|run| run.positions.clone().map(|at| (run.level, at)));
        at.map(|at| (at, *all.0.get(&at).expect("it is stored")))
            .collect()
    }

    /// RFC 6962 roots that the reference implementation of Certificate Transparency publishes for its
    /// eight test entries.
    #[test]
    fn the_roots_are_those_of_certificate_transparency() {
        let entries: [&str; 8] = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ];
        let leaves: Vec<Hash> = entries
            .iter()
            .map(|hex| leaf(&hex::decode(hex).expect("hex")))
            .collect();
        let roots = [
            (
                1,
                "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            ),
            (
                2,
                "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            ),
            (
                3,
                "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            ),
            (
                8,
                "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
            ),
        ];
        let mut tree = Hashes::default();
        tree.grow(0, &leaves).expect("grows");
        for (size, root) in roots {
            assert_eq!(
                hex::encode(tree.root(size).expect("a root")),
                root,
                "{size}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_is_stored_gives_every_root_and_proves_every_entry(size in 1u64..1500, index in 0u64..1500, more in 0u64..600) {
            let all = leaves(size + more);
            let index = index % size;
            let mut tree = tree(size);
            let frontier = only(&tree, &wanted_for_root(size));
            prop_assert_eq!(frontier.root(size), Some(defined(&all[..usize::try_from(size).expect("small")])));

            // It grows out of what its root is computed from.
            let mut grown = frontier;
            let rest = &all[usize::try_from(size).expect("small")..];
            let stored = grown.grow(size, rest).expect("grows");
            tree.extend(stored);
            let whole = size + more;
            prop_assert_eq!(&tree, &self::tree(whole));

            let subtrees = inclusion(index, whole).expect("inside");
            let proof = only(&tree, &wanted(&subtrees)).proof(&subtrees).expect("known");
            let root = tree.root(whole).expect("a root");
            let leaf = all[usize::try_from(index).expect("small")];
            let roots = Roots { then: tree.root(index + 1).expect("a root"), whole: root };
            prop_assert_eq!(roots_of_inclusion(leaf, index, whole, &proof), Some(roots));
            prop_assert_ne!(root_of_inclusion(root, index, whole, &proof), Some(root));

            let subtrees = consistency(size, whole).expect("smaller");
            let proof = only(&tree, &wanted(&subtrees)).proof(&subtrees).expect("known");
            let former = tree.root(size).expect("a root");
            prop_assert!(is_consistent((size, &former), (whole, &root), &proof));
            let forged = leaf;
            prop_assert_eq!(is_consistent((size, &forged), (whole, &root), &proof), forged == former);
            if size != whole {
                prop_assert!(!is_consistent((size, &former), (whole, &forged), &proof));
                let mut longer = proof.clone();
                longer.push(forged);
                prop_assert!(!is_consistent((size, &former), (whole, &root), &longer));
            }
        }
    }

    #[test]
    fn nobody_proves_what_is_not_there() {
        assert_eq!(inclusion(5, 5), None);
        assert_eq!(consistency(0, 5), None);
        assert_eq!(consistency(6, 5), None);
        let root = tree(5).root(5).expect("a root");
        assert!(
            is_consistent((0, &root), (5, &root), &[]),
            "every log was empty once"
        );
        assert!(!is_consistent((6, &root), (5, &root), &[]));
        assert!(!is_consistent((3, &root), (5, &root), &[]));
        assert_eq!(Hashes::default().root(3), None, "nothing is made up");
    }
}
