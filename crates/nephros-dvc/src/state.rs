//! What files hashed to, so that those unchanged are not read again.
//!
//! The file is a cache: one that is absent, of another version or damaged is an empty one. It holds a
//! magic number, a record a file, and the MD5 of all before it.

use std::{
    collections::HashMap,
    fs::Metadata,
    io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{digest::Md5Sum, files, place::RepoPath};

const MAGIC: &[u8; 8] = b"nphrsmd1";

/// A file that was changed less than this ago may be changed again without another time stamp.
const SETTLED: Duration = Duration::from_millis(50);

/// By what a file is taken for unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified: i64,
    /// Number on its disk, 0 where there is none.
    pub inode: u64,
}

impl Stamp {
    /// Of a file.
    pub fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
        let modified = match modified.duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_nanos() as i64,
            Err(before) => -(before.duration().as_nanos() as i64),
        };
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Self { size: metadata.len(), modified, inode }
    }

    /// Whether a later change would show.
    pub fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i128::from(self.modified) + SETTLED.as_nanos() as i128 <= now.as_nanos() as i128
    }
}

/// Hashes of files by their path from the repository's folder.
#[derive(Debug, Default)]
pub struct State {
    known: HashMap<Box<str>, (Stamp, Md5Sum)>,
    changed: bool,
}

impl State {
    /// Reads a state file.
    pub fn load(path: &Path) -> Self {
        let known = fs_err::read(path).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        Self { known, changed: false }
    }

    /// The hash of a file that has not changed.
    pub fn get(&self, path: &str, stamp: Stamp) -> Option<Md5Sum> {
        self.known.get(path).filter(|(known, _)| *known == stamp).map(|(_, sum)| *sum)
    }

    /// Remembers a file.
    pub fn set(&mut self, path: &str, stamp: Stamp, sum: Md5Sum) {
        if self.known.get(path) != Some(&(stamp, sum)) {
            self.known.insert(path.into(), (stamp, sum));
            self.changed = true;
        }
    }

    /// Forgets the files at `place` and below that `keep` does not want.
    pub fn retain(&mut self, place: &RepoPath, keep: impl Fn(&str) -> bool) {
        let before = self.known.len();
        let inside = |path: &str| {
            path.strip_prefix(place.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.known.retain(|path, _| !inside(path) || keep(path));
        self.changed |= self.known.len() != before;
    }

    /// Number of files that are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no file is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Writes what has changed since it was read.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&mut self, path: &Path) -> io::Result<()> {
        if self.changed {
            files::write_atomic(path, &self.encode())?;
            self.changed = false;
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.known.len() * 112 + 32);
        bytes.extend(MAGIC);
        for (path, (stamp, sum)) in &self.known {
            // Paths are shorter than 4 GiB on every system.
            bytes.extend((path.len() as u32).to_le_bytes());
            bytes.extend(path.as_bytes());
            bytes.extend(stamp.size.to_le_bytes());
            bytes.extend(stamp.modified.to_le_bytes());
            bytes.extend(stamp.inode.to_le_bytes());
            bytes.extend(sum.0);
        }
        let check = Md5Sum::of(&bytes);
        bytes.extend(check.0);
        bytes
    }
}

fn decode(bytes: &[u8]) -> Option<HashMap<Box<str>, (Stamp, Md5Sum)>> {
    let (content, check) = bytes.split_last_chunk::<16>()?;
    let mut rest = content.strip_prefix(MAGIC)?;
    if Md5Sum::of(content).0 != *check {
        return None;
    }
    let mut known = HashMap::with_capacity(rest.len() / 100);
    while !rest.is_empty() {
        let length = u32::from_le_bytes(take(&mut rest)?) as usize;
        let (path, after) = rest.split_at_checked(length)?;
        rest = after;
        let stamp = Stamp {
            size: u64::from_le_bytes(take(&mut rest)?),
            modified: i64::from_le_bytes(take(&mut rest)?),
            inode: u64::from_le_bytes(take(&mut rest)?),
        };
        let sum = Md5Sum(take(&mut rest)?);
        known.insert(str::from_utf8(path).ok()?.into(), (stamp, sum));
    }
    Some(known)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled() -> State {
        let mut state = State::default();
        for number in 0..20_u64 {
            let stamp = Stamp { size: number, modified: -5 + number as i64, inode: number * 7 };
            state.set(&format!("data/é {number}"), stamp, Md5Sum::of(&number.to_le_bytes()));
        }
        state
    }

    #[test]
    fn what_is_saved_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let mut state = filled();
        state.save(&path).unwrap();
        let read = State::load(&path);
        assert_eq!(read.known, state.known);
        assert!(State::load(&folder.path().join("absent")).is_empty());
    }

    #[test]
    fn only_what_is_gone_is_forgotten() {
        let mut state = filled();
        state.set("database", Stamp { size: 1, modified: 1, inode: 1 }, Md5Sum::of(b""));
        let place = RepoPath::root().join("data").unwrap();
        state.retain(&place, |path| path.ends_with(" 3"));
        assert_eq!(state.len(), 2);
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_an_empty_one(at in 0..1000_usize, byte in 1..=255_u8, cut in 0..1000_usize) {
            let whole = filled().encode();
            let mut flipped = whole.clone();
            let at = at % flipped.len();
            flipped[at] ^= byte;
            prop_assert!(decode(&flipped).is_none());
            prop_assert!(decode(&whole[..cut.min(whole.len() - 1)]).is_none());
        }
    }
}
