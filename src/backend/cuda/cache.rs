//! Machine code compiled by earlier processes, on disk: a run starts many, and each would compile the same kernels again.
//!
//! A file's name is a hash of its key, but it holds the whole key and a checksum: another kernel of the same hash, or a file cut short,
//! counts as absent. What cannot be read or written costs a compilation, nothing else. Where: the folder that `ROOFTRACE_CACHE` names (none
//! if it is empty), else `rooftrace` in the user's folder for caches.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::plan::fnv1a;

/// Environment variable that moves the cache or, empty, turns it off.
pub const VARIABLE: &str = "ROOFTRACE_CACHE";
/// First bytes of a file; they change with its layout.
const MAGIC: &[u8; 16] = b"rooftrace cubin1";
/// Bytes at which the oldest files are removed until half is left.
const MOST: u64 = 512 << 20;

/// What one compilation made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Machine code.
    pub cubin: Vec<u8>,
    /// The compiler's log.
    pub log: String,
}

/// A folder of compiled code.
#[derive(Debug)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// The user's cache.
    pub fn of_user() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = match std::env::var_os(VARIABLE) {
            Some(given) if given.is_empty() => None,
            Some(given) => Some(PathBuf::from(given)),
            None => variable("XDG_CACHE_HOME")
                .or_else(|| variable("HOME").map(|home| home.join(".cache")))
                .or_else(|| variable("LOCALAPPDATA"))
                .map(|caches| caches.join("rooftrace")),
        };
        Self::at(folder)
    }

    /// A cache in this folder, or none.
    pub fn at(folder: Option<PathBuf>) -> Self {
        Cache { folder }
    }

    /// What was compiled for this key, if it is here and whole.
    pub fn get(&self, key: &str) -> Option<Entry> {
        decode(&fs::read(self.file(key)?).ok()?, key)
    }

    /// Whether there is a file for this key, whole or not.
    pub fn names(&self, key: &str) -> bool {
        self.file(key).is_some_and(|file| file.exists())
    }

    /// Keeps it, where that is possible, and removes the oldest files of a folder that has grown too large. A reader sees the whole file or
    /// none.
    pub fn put(&self, key: &str, entry: &Entry) {
        let (Some(folder), Some(file)) = (&self.folder, self.file(key)) else { return };
        let part = file.with_extension(format!("part{}", std::process::id()));
        let written = fs::create_dir_all(folder).is_ok() && fs::write(&part, encode(key, entry)).is_ok();
        if !written || fs::rename(&part, &file).is_err() {
            let _ = fs::remove_file(&part);
        }
        prune(folder, MOST);
    }

    fn file(&self, key: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(format!("{:016x}.cubin", fnv1a(key.as_bytes()))))
    }
}

/// Magic, checksum of the rest, then key, log and code, each behind its length.
fn encode(key: &str, entry: &Entry) -> Vec<u8> {
    let mut body = Vec::new();
    for part in [key.as_bytes(), entry.log.as_bytes(), &entry.cubin] {
        body.extend((part.len() as u64).to_le_bytes());
        body.extend(part);
    }
    [&MAGIC[..], &fnv1a(&body).to_le_bytes(), &body].concat()
}

fn decode(bytes: &[u8], key: &str) -> Option<Entry> {
    let (sum, mut body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
    if fnv1a(body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let mut part = || {
        let (length, rest) = body.split_first_chunk::<8>()?;
        let (part, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        body = rest;
        Some(part)
    };
    let (found, log, cubin) = (part()?, part()?, part()?);
    (found == key.as_bytes()).then(|| Entry { cubin: cubin.to_vec(), log: String::from_utf8_lossy(log).into_owned() })
}

/// Removes the oldest files of a folder that holds more than `most` bytes, until half of that is left.
fn prune(folder: &Path, most: u64) {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<(SystemTime, u64, PathBuf)> = files
        .filter_map(|file| file.metadata().ok().map(|data| (data.modified().unwrap_or(SystemTime::UNIX_EPOCH), data.len(), file.path())))
        .collect();
    let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    if total <= most {
        return;
    }
    files.sort();
    for (_, bytes, path) in files {
        if total <= most / 2 {
            break;
        }
        if fs::remove_file(path).is_ok() {
            total -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry { cubin: (0..=255).collect(), log: "ptxas info: 8 registers".into() }
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("rooftrace-cache-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn what_was_put_is_found_again_under_its_key_only() {
        let folder = folder("kept");
        let cache = Cache::at(Some(folder.clone()));
        assert_eq!(cache.get("a"), None);
        cache.put("a", &entry());
        assert_eq!((cache.get("a"), cache.get("b")), (Some(entry()), None));
        // The same file name for another key: as if both had one hash.
        fs::rename(cache.file("a").unwrap(), cache.file("b").unwrap()).unwrap();
        assert_eq!(cache.get("b"), None);
        let _ = fs::remove_dir_all(&folder);
    }

    #[test]
    fn a_file_cut_anywhere_or_changed_by_a_bit_counts_as_absent() {
        let whole = encode("key", &entry());
        assert_eq!(decode(&whole, "key"), Some(entry()));
        for cut in 0..whole.len() {
            assert_eq!(decode(&whole[..cut], "key"), None, "cut at {cut}");
            let mut changed = whole.clone();
            changed[cut] ^= 1;
            assert_eq!(decode(&changed, "key"), None, "changed at {cut}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_costs_nothing_but_the_cache() {
        let file = folder("file");
        fs::write(&file, "no folder").unwrap();
        for cache in [Cache::at(Some(file.clone())), Cache::at(None)] {
            cache.put("a", &entry());
            assert_eq!(cache.get("a"), None);
        }
        let _ = fs::remove_file(&file);
    }

    #[test]
    fn the_oldest_files_go_first_until_half_is_left() {
        let folder = folder("full");
        fs::create_dir_all(&folder).unwrap();
        for (n, name) in ["old", "middle", "new"].iter().enumerate() {
            let path = folder.join(name);
            fs::write(&path, [0; 100]).unwrap();
            fs::File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1 + n as u64)).unwrap();
        }
        prune(&folder, 300);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
        prune(&folder, 299);
        assert!(folder.join("new").exists() && !folder.join("old").exists() && !folder.join("middle").exists());
        let _ = fs::remove_dir_all(&folder);
    }
}
