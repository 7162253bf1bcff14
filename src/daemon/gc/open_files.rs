//! Which files of our mounts are open or mapped: the kernel does not tell a FUSE daemon, but `/proc` does (proc(5)).
//!
//! Nothing below a mount is touched: that could wait for ourselves.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Inodes that processes have open or mapped, with the place of their mount among `mounts`. Processes that can't be looked
/// into, being another user's, are passed by.
pub fn inodes(mounts: &[PathBuf]) -> BTreeSet<(usize, u64)> {
    let mut found = BTreeSet::new();
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let known = Known::new(&table, mounts);
    if known.ids.is_empty() {
        return found;
    }
    let Ok(processes) = fs::read_dir("/proc") else { return found };
    for process in processes.flatten() {
        if !process.file_name().as_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let process = process.path();
        for descriptor in fs::read_dir(process.join("fdinfo")).into_iter().flatten().flatten() {
            let info = fs::read_to_string(descriptor.path()).unwrap_or_default();
            found.extend(known.of_descriptor(&info));
        }
        let maps = fs::read(process.join("maps")).unwrap_or_default();
        found.extend(maps.split(|byte| *byte == b'\n').filter_map(|line| known.of_mapping(line)));
    }
    found
}

/// Our mounts as the kernel calls them.
struct Known {
    /// Mount id → place.
    ids: HashMap<u64, usize>,
    /// Device → place.
    devices: HashMap<(u32, u32), usize>,
}

impl Known {
    fn new(table: &[u8], mounts: &[PathBuf]) -> Self {
        let mut known = Self { ids: HashMap::new(), devices: HashMap::new() };
        for line in table.split(|byte| *byte == b'\n') {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            let [id, _, device, _, point, ..] = fields[..] else { continue };
            let point = unescaped(point);
            let Some(place) = mounts.iter().position(|mount| mount == Path::new(std::ffi::OsStr::from_bytes(&point)))
            else {
                continue;
            };
            if let Some(id) = text(id).and_then(|id| id.parse().ok()) {
                known.ids.insert(id, place);
            }
            let device = text(device).and_then(|device| device.split_once(':'));
            if let Some((Ok(major), Ok(minor))) = device.map(|(major, minor)| (major.parse(), minor.parse())) {
                known.devices.insert((major, minor), place);
            }
        }
        known
    }

    /// `mnt_id:` and `ino:` of `/proc/PID/fdinfo/N`.
    fn of_descriptor(&self, info: &str) -> Option<(usize, u64)> {
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name))?.trim().parse::<u64>().ok();
        let place = *self.ids.get(&field("mnt_id:")?)?;
        Some((place, field("ino:")?))
    }

    /// A line of `/proc/PID/maps`: addresses, permissions, offset, device, inode, path.
    fn of_mapping(&self, line: &[u8]) -> Option<(usize, u64)> {
        let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty()).skip(3);
        let (major, minor) = text(fields.next()?)?.split_once(':')?;
        let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        let place = *self.devices.get(&device)?;
        Some((place, text(fields.next()?)?.parse().ok()?))
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// A mount point as it is: blanks and the like are written in octal.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\').and_then(text);
        let meant = octal.and_then(|octal| u8::from_str_radix(octal, 8).ok());
        out.push(meant.unwrap_or(byte));
        rest = if meant.is_some() { &after[3..] } else { after };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 254:0 / / rw - ext4 /dev/vda rw\n\
        95 22 0:48 / /mnt/a\\040b rw,nosuid - fuse.larder larder:x rw\n";

    #[test]
    fn descriptors_and_mappings_of_a_mount_are_recognised() {
        let known = Known::new(TABLE, &[PathBuf::from("/other"), PathBuf::from("/mnt/a b")]);
        let info = "pos:\t0\nflags:\t0100000\nmnt_id:\t95\nino:\t4242\n";
        assert_eq!(known.of_descriptor(info), Some((1, 4242)));
        assert_eq!(known.of_descriptor(&info.replace("95", "22")), None);
        let line = b"7f00-7f01 r--p 00000000 00:30 4242       /mnt/a b/file";
        assert_eq!(known.of_mapping(line), Some((1, 4242)));
        assert_eq!(known.of_mapping(b"7f00-7f01 rw-p 00000000 00:00 0"), None);
        assert_eq!(known.of_mapping(b""), None);
    }

    #[test]
    fn this_process_has_files_open() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let ino = std::os::unix::fs::MetadataExt::ino(&file.as_file().metadata().expect("metadata"));
        let table = fs::read_to_string("/proc/self/mountinfo").expect("readable");
        let points: Vec<PathBuf> = table
            .lines()
            .filter_map(|line| {
                line.split(' ')
                    .nth(4)
                    .map(|point| PathBuf::from(std::ffi::OsStr::from_bytes(&unescaped(point.as_bytes()))))
            })
            .collect();
        assert!(inodes(&points).iter().any(|(_, open)| *open == ino));
    }
}
